"""A user who may run one request at a time: phases of that request, and how its place is seen to be free."""

from collections.abc import Awaitable, Callable
from typing import Final

from engine.harness import Gate, post
from engine.tunnels import REFUSED
from engine.wires import Wire, eventually

from ai_mux.limits import Limits

ONE: Final = {"limits": Limits(concurrent=1)}
# For any user, also one who may ask for certain models only.
ASKED: Final = post(b'{"model":"claude-made-up-5"}', fields=b"Content-Type: application/json\r\n")
BEGINNINGS: Final = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "until close": b"HTTP/1.1 200 OK\r\n\r\nhello",
}

Phase = Callable[[Gate], Awaitable[Wire]]


def running(gate: Gate) -> int:
    return gate.server.accounting.limiter.running


async def taken(gate: Gate) -> None:
    """See that the only place is taken, also by asking for it."""
    await eventually(lambda: running(gate) == 1, what="no request runs")
    second = await gate.client()
    await second.send(post())
    assert (await second.message()).status == 429
    second.close()
    assert running(gate) == 1
    assert gate.rows.records.pop().status == 429


async def given_back(gate: Gate, *, status: int) -> None:
    """See that the place is free, and how the request stands in the books."""
    await gate.at_rest()
    assert running(gate) == 0
    assert [row.status for row in gate.rows.records] == [status]
    gate.tokens.gone = "There is none, and that is what the next one should meet."
    following = await gate.client()
    await following.send(ASKED)
    assert (await following.message()).status == 503
    following.close()
    await gate.at_rest()
    assert running(gate) == 0


async def refused(gate: Gate, client: Wire, status: int) -> None:
    """See that the client is told, and the place is free."""
    assert (await client.message()).status == status
    client.close()
    await given_back(gate, status=status)


async def cut(gate: Gate, client: Wire) -> None:
    """See that the client's answer breaks off, and the place is free."""
    await client.end()
    client.close()
    await given_back(gate, status=200)


# The phases in which a client waits


async def upload(gate: Gate) -> Wire:
    client, provider = await gate.ask(post(b"x" * 1000)[:-500])
    await provider.until(b"\r\n\r\n")
    return client


async def renewal(gate: Gate) -> Wire:
    gate.tokens.stale = True
    gate.tokens.open.clear()
    client = await gate.client()
    await client.send(post())
    await eventually(lambda: gate.tokens.waiting)
    return client


async def renewal_after_a_401(gate: Gate) -> Wire:
    gate.tokens.open.clear()
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(REFUSED)
    await eventually(lambda: gate.tokens.waiting)
    return client


async def head(gate: Gate) -> Wire:
    client, provider = await gate.ask(post())
    await provider.message()
    return client


async def head_of_the_replay(gate: Gate) -> Wire:
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(REFUSED)
    await (await gate.upstream.accept()).message()
    return client


async def half_the_head(gate: Gate) -> Wire:
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nX-Half:")
    return client
