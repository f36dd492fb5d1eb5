"""What tests/packaging needs besides ai-mux: Nix, systemd's tools and the like.

What did not run is said aloud, in the last lines of the run. With AI_MUX_PACKAGING=required
it is a failure.
"""

import os
import shutil
from collections.abc import Callable
from typing import Final

import pytest

_NOT_RUN: Final = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def needed(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that finds a program, or skips the test where it is not installed."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None and os.environ.get("AI_MUX_PACKAGING") == "required":
            pytest.fail(f"AI_MUX_PACKAGING=required: {name} is missing")
        if found is None:
            missing = request.config.stash.setdefault(_NOT_RUN, [])
            if name not in missing:
                missing.append(name)
            pytest.skip(f"{name} is missing")
        return found

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if missing := config.stash.get(_NOT_RUN, []):
        said = f"PACKAGING TESTS NOT RUN: without {' and '.join(missing)}"
        terminalreporter.write_line(said, red=True, bold=True)
