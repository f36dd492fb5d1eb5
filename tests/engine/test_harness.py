"""The harness sees what a test leaves open, and blames no test for what its loop opens by itself."""

import asyncio
import socket
import threading

import pytest
from engine.harness import descriptors, none_left


@pytest.mark.parametrize(
    "make",
    [
        socket.socket,
        lambda: socket.socket(socket.AF_UNIX),
        lambda: socket.create_server(("127.0.0.1", 0)),
        lambda: open(__file__, "rb"),  # noqa: PTH123, SIM115 - closed below
    ],
    ids=["a socket", "a unix socket", "a listener", "a file"],
)
async def test_what_is_left_is_named(monkeypatch, make):
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


def test_a_loop_that_runs_again_with_other_numbers_for_its_own_sockets_leaves_nothing():
    """A thread may take the numbers that they had between a fixture's run and the test's."""
    seen = []

    async def look() -> None:
        if seen:
            await none_left(seen[0])
        else:
            seen.append(descriptors())

    for factory in _factories():
        seen.clear()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(look())
            opened: list[object] = []
            opener = threading.Thread(target=lambda: opened.append(_some()))
            opener.start()
            opener.join()
            (some,) = opened
            try:
                # What took the numbers is closed in the next run, when the loop's have others.
                runner.run(_close_then(some, look))
            finally:
                for one in some:
                    one.close()
