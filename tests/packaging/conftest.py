"""What tests/packaging needs besides ai-mux: Nix, systemd's tools and the like.

What did not run is said aloud, in the last lines of the run. With AI_MUX_PACKAGING=required
a program that is missing is a failure; what a machine does not allow is not.
"""

import os
import shutil
from collections.abc import Callable
from typing import Final, NoReturn

import pytest
from documents import ROOT

# Made by scripts/release/checkers. Its versions are locked, so they come before those of the machine.
_CHECKERS: Final = ROOT / ".venv" / "packaging" / "bin"
_NOT_RUN: Final = pytest.StashKey[list[str]]()
_NOT_ALLOWED: Final = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def needed(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that finds a program, or skips the test where it is not installed."""

    def find(name: str) -> str:
        found = shutil.which(name, path=f"{_CHECKERS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
        if found is None and os.environ.get("AI_MUX_PACKAGING") == "required":
            pytest.fail(f"AI_MUX_PACKAGING=required: {name} is missing")
        if found is None:
            missing = request.config.stash.setdefault(_NOT_RUN, [])
            if name not in missing:
                missing.append(name)
            pytest.skip(f"{name} is missing")
        return found

    return find


@pytest.fixture(scope="session")
def not_allowed(request: pytest.FixtureRequest) -> Callable[[str], NoReturn]:
    """Return a function that skips the test because of what nobody can install here, and says why aloud."""

    def skip(why: str) -> NoReturn:
        told = request.config.stash.setdefault(_NOT_ALLOWED, [])
        if why not in told:
            told.append(why)
        pytest.skip(why)

    return skip


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if missing := config.stash.get(_NOT_RUN, []):
        said = f"PACKAGING TESTS NOT RUN: without {' and '.join(missing)}"
        terminalreporter.write_line(said, red=True, bold=True)
    for why in config.stash.get(_NOT_ALLOWED, []):
        terminalreporter.write_line(f"PACKAGING TESTS NOT RUN: {why}", red=True, bold=True)
