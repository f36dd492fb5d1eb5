"""The listener runs on the loops that people use."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from admin.parts import Parts
from engine.harness import descriptors, none_left
from engine.wires import eventually

from ai_mux.proxy.engine import ENVIRONMENT, Engine


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on the stock loop and on the one that replaces it."""
    wanted = os.environ.get(ENVIRONMENT)
    return {name: Engine(name)._new_loop for name in ([wanted] if wanted else ["asyncio", "uvloop"])}


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Parts of a server; the listener over them is stopped at the end, and leaves nothing."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, int)  # the threads and their pipes are not leaks
    before = descriptors()
    tasks: set[asyncio.Task[Any] | None] = {*asyncio.all_tasks()}
    astray: list[object] = []
    loop.set_exception_handler(lambda _, context: astray.append(context))
    it = Parts(tmp_path)
    yield it
    await it.close()
    tasks |= {asyncio.current_task()}
    await eventually(
        lambda: asyncio.all_tasks() <= tasks, what=lambda: f"tasks: {asyncio.all_tasks() - tasks}"
    )
    await none_left(before)
    loop.set_exception_handler(None)
    assert not astray, astray
