"""Gateway processes for the matrix, each started when a mode first needs it."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from clients.gateway_process import running
from engine.upstream import Upstream

# Before they are imported, so that a failing assert in them shows what differs.
pytest.register_assert_rewrite("transparency.crossing", "transparency.expected")

from transparency.crossing import Passage, Through  # noqa: E402
from transparency.modes import MODES, Mode  # noqa: E402

# Users of the processes with logins have limits, all too high to be met; the others have none.
_LIMITED = {"limits": {"concurrent": 1000, "requests": ["1M/min"], "tokens": ["1B/day"], "cost": ["$1M/day"]}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def through(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Through]:
    """Return a function that gives the passage for a mode. All end with the module's tests."""
    passages: dict[str, Passage] = {}
    async with contextlib.AsyncExitStack() as stack:

        async def passage(mode: Mode) -> Passage:
            if mode.gateway not in passages:
                directory = tmp_path_factory.mktemp(mode.gateway)
                upstreams = {}
                providers = []
                for one in (one for one in MODES if one.gateway == mode.gateway):
                    upstreams[one.provider] = upstream = Upstream()
                    stack.push_async_callback(upstream.close)
                    providers.append(one.configuration(upstream.port, directory / "credentials"))
                gateway = await stack.enter_async_context(
                    running(
                        directory,
                        providers=providers,
                        settings=_LIMITED if mode.gateway == "logins" else None,
                    )
                )
                port = int(gateway.url.rpartition(":")[2])
                passages[mode.gateway] = Passage(port=port, upstreams=upstreams)
            return passages[mode.gateway]

        yield passage
