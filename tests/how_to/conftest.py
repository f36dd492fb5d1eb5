"""What docs/how-to needs besides ai-mux: nginx and Caddy.

What did not run is said aloud, in the last lines of the run. With AI_MUX_CLIENTS=required
it is a failure, as for the vendors' clients.
"""

import os
import shutil
from collections.abc import Callable
from typing import Final

import pytest

_NOT_RUN: Final = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that finds a program, or skips the test where it is not installed."""

    def find(name: str) -> str:
        # Debian puts nginx where only root looks.
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if found is None and os.environ.get("AI_MUX_CLIENTS") == "required":
            pytest.fail(f"AI_MUX_CLIENTS=required: {name} is missing")
        if found is None:
            missing = request.config.stash.setdefault(_NOT_RUN, [])
            if name not in missing:
                missing.append(name)
            pytest.skip(f"{name} is missing")
        return found

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if missing := config.stash.get(_NOT_RUN, []):
        said = f"HOW-TO TESTS NOT RUN: without {' and '.join(missing)}"
        terminalreporter.write_line(said, red=True, bold=True)
