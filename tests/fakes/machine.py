"""What tests ask of the machine they run on."""

import subprocess
from pathlib import Path


def run(*command: object) -> bool:
    """Run a command in silence and tell whether it succeeded; one that is not there did not."""
    try:
        return (
            subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        return False


def names(directory: Path) -> list[str]:
    """Return what is in a directory, hidden files included."""
    return sorted(path.name for path in directory.iterdir())
