"""A whole ai-mux to be reloaded, and its provider."""

import pytest
from fakes.renewing import claude_file
from whole import ACCESS, CAROL, REFRESH, Origin, claude, whole


@pytest.fixture
async def origin():
    return Origin()


@pytest.fixture
async def mux(tmp_path, origin):
    """A whole ai-mux with a long-lived login for Claude, configured for ``origin`` and not yet started."""
    async with whole(tmp_path, origins=[origin]) as it:
        it.secrets += [ACCESS, REFRESH, CAROL]
        claude_file(it.state / "claude" / ".credentials.json", access=ACCESS, refresh=None, ends=None)
        it.configure(providers=[claude(origin)])
        yield it
