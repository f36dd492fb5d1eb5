"""What docs/how-to needs besides ai-mux: nginx and Caddy, required wherever the vendors' clients are."""

from collections.abc import Callable
from functools import partial

import programs_needed
import pytest


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that finds a program, or skips the test where it is not installed."""
    return partial(
        programs_needed.program, config=request.config, area="HOW-TO", required_by="AI_MUX_CLIENTS"
    )
