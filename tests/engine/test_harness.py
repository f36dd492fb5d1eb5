"""The harness sees what a test leaves open, and blames no test for what its loop opens by itself."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from engine.harness import descriptors, none_left

from ai_mux.proxy.engine import Engine


@pytest.mark.parametrize(
    "make",
    [
        socket.socket,
        lambda: socket.socket(socket.AF_UNIX),
        lambda: socket.create_server(("127.0.0.1", 0)),
        Path(__file__).open,
    ],
    ids=["a socket", "a unix socket", "a listener", "a file"],
)
async def test_what_is_left_is_named(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], socket.socket | IO[str]]
):
    monkeypatch.setattr("engine.wires.DEADLINE_S", 0.05)
    before = descriptors()
    if not before:
        pytest.skip("this system does not tell which descriptors are open")
    with make() as left:
        to = descriptors()[str(left.fileno())]
        with pytest.raises(AssertionError, match="descriptors are left: ") as told:
            await none_left(before)
        assert to in str(told.value)
    await none_left(before)


async def test_both_ends_of_a_connection_are_seen():
    before = descriptors()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0],
    ):
        assert len(descriptors()) - len(before) == (3 if before else 0)


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_a_loop_that_runs_again_with_other_sockets_of_its_own_leaves_nothing(name: str):
    """A thread that opens a file between a fixture's run and the test's takes the numbers that they had."""

    async def look() -> dict[str, str]:
        return descriptors()

    with asyncio.Runner(loop_factory=Engine(name)._new_loop) as runner:
        before = runner.run(look())
        taken = [Path(__file__).open("rb") for _ in range(4)]  # noqa: SIM115 - closed below

        async def end() -> None:
            for file in taken:
                file.close()
            await none_left(before)

        runner.run(end())
