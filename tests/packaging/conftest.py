"""What tests/packaging needs besides ai-mux: Nix, systemd's tools and the like."""

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import programs_needed
import pytest


@pytest.fixture(scope="session")
def needed(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that finds a program, or skips the test where it is not installed."""
    return partial(
        programs_needed.program, config=request.config, area="PACKAGING", required_by="AI_MUX_PACKAGING"
    )


@pytest.fixture(scope="session")
def not_allowed(request: pytest.FixtureRequest) -> Callable[[str], NoReturn]:
    """Return a function that skips the test because of what nobody can install here, and says why aloud."""
    return partial(programs_needed.skip, config=request.config, area="PACKAGING")
