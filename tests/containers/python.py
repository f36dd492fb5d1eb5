"""Finds a Python to stand in for the one of a base image."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def prefix(base: str) -> Path:
    """Return where there is a Python of the version of ``python:3.13-slim``, else the one that runs this."""
    version = re.findall(r"[\d.]+", base)[0]
    installed = Path(os.environ.get("PYENV_ROOT", "/nowhere"), "versions")
    named = [shutil.which(f"python{version}"), *map(str, installed.glob(f"{version}*/bin/python{version}"))]
    for program in filter(None, named):
        found = _prefix_of(program)
        if found is not None:
            return found
    return Path(sys.base_prefix)


def _prefix_of(program: str) -> Path | None:
    command = [program, "-c", "import sys, pip; print(sys.base_prefix)"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return Path(done.stdout.strip())
