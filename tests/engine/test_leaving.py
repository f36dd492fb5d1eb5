"""A client that leaves ends its request, in whatever phase: point 3 of "What bites", field note 17.

Each test ends with ``at_rest``: the upstream request is over, no task runs, nothing
is reserved; and the fixture asserts that no descriptor is left.
"""

import asyncio

import pytest
from engine.harness import Gate, get, ok, post
from engine.tunnels import frame, handshake
from engine.upstream import Upstream
from engine.wires import Ended, Wire, eventually, turns

WAYS = pytest.mark.parametrize("leave", ["close", "reset", "end_writing"])


def _leave(client: Wire, how: str) -> None:
    getattr(client, how)()


async def _busy(gate: Gate) -> None:
    await eventually(lambda: gate.server.requests, what="no request is being served")


@WAYS
async def test_while_the_head_is_sent(gate: Gate, leave: str):
    client = await gate.client()
    await client.send(post()[:40])
    await eventually(lambda: gate.server.connections)
    _leave(client, leave)
    await gate.at_rest()
    assert await gate.upstream.nobody_comes()


@WAYS
@pytest.mark.parametrize("chunked", [False, True])
async def test_while_the_body_uploads(gate: Gate, leave: str, chunked: bool):
    request = post(chunked=True) + b"5\r\nhello\r\n5\r\nwo" if chunked else post(b"x" * 1000)[:-500]
    client, provider = await gate.ask(request)
    await provider.until(b"\r\n\r\n")
    _leave(client, leave)
    assert b"0\r\n\r\n" not in (await provider.end()).got  # nor does it look complete
    await gate.at_rest()


@WAYS
@pytest.mark.parametrize(
    "asked",
    [post(b"x" * 100_000)[:-10], handshake(), handshake() + frame(b"early", masked=True)],
    ids=["an upload", "a handshake", "a handshake with early data"],
)
async def test_while_the_token_is_renewed(gate: Gate, leave: str, asked: bytes):
    gate.tokens.stale = True
    gate.tokens.open.clear()
    client = await gate.client()
    await client.send(asked)
    await eventually(lambda: gate.tokens.waiting)
    _leave(client, leave)
    await eventually(lambda: not gate.tokens.waiting)
    await gate.at_rest()
    assert await gate.upstream.nobody_comes()


@WAYS
@pytest.mark.parametrize("asked", [post(), handshake()], ids=["a request", "a handshake"])
async def test_while_the_token_is_renewed_after_a_401(gate: Gate, leave: str, asked: bytes):
    gate.tokens.open.clear()
    client, provider = await gate.ask(asked)
    await provider.message()
    await provider.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    await eventually(lambda: gate.tokens.waiting)
    _leave(client, leave)
    await gate.at_rest()
    assert await provider.end()
    gate.tokens.open.set()
    await turns(5)
    assert await gate.upstream.nobody_comes()


@WAYS
async def test_while_the_token_is_renewed_after_a_401_that_came_before_a_slow_body(opened, leave: str):
    """Point 3: what paused reading before the renewal must not hide that the client left during it."""
    gate = await opened(upstream_window=4096)
    gate.tokens.open.clear()
    client = await gate.client()
    await client.send(post(b"x" * 6_000_000)[:-6_000_000])
    provider = await gate.upstream.accept()
    await provider.until(b"\r\n\r\n")
    sending = asyncio.ensure_future(client.send(b"x" * 6_000_000))
    await eventually(lambda: _paused(gate), what="the provider takes everything")
    await provider.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    await eventually(lambda: gate.tokens.waiting)
    await sending
    _leave(client, leave)
    await gate.at_rest()


@WAYS
async def test_while_connecting(opened, leave: str):
    gate = await opened()
    full = _full_backlog(gate.upstream)
    client = await gate.client()
    await client.send(post())
    await _busy(gate)
    await turns(20)
    _leave(client, leave)
    await gate.at_rest()
    for wire in full:
        wire.close()


async def test_just_as_the_connection_to_the_provider_is_made(gate: Gate):
    """A connection that comes too late for its client is nobody's, and must not stay open for ever."""
    connect = gate.server.pool._connect
    made = asyncio.Event()

    async def connect_and_tell(*given, **named) -> asyncio.Transport:
        transport = await connect(*given, **named)
        made.set()
        return transport

    gate.server.pool._connect = connect_and_tell
    client = await gate.client()
    await client.send(post())
    await made.wait()
    one = next(iter(gate.server._clients))
    one.eof_received()  # in the very turn in which the connect has ended, and nobody was told yet
    await gate.at_rest()
    await eventually(lambda: gate.upstream_connections == 0, what="a connection is left")
    client.close()


@WAYS
async def test_while_the_provider_shakes_hands(opened, certificate, leave: str):
    gate = await opened(trust=certificate)
    client = await gate.client()
    await client.send(post())
    provider = await gate.upstream.accept()
    await provider.some()  # its ClientHello, which nobody answers
    _leave(client, leave)
    await provider.end()
    await gate.at_rest()


@WAYS
async def test_while_waiting_for_the_head(gate: Gate, leave: str):
    client, provider = await gate.ask(post())
    await provider.message()
    _leave(client, leave)
    assert await provider.end()
    await gate.at_rest()


@WAYS
async def test_in_the_middle_of_the_responses_head(gate: Gate, leave: str):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nX-Half:")
    await turns(5)
    _leave(client, leave)
    assert await provider.end()
    await gate.at_rest()


@WAYS
@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
    ],
    ids=["chunked", "length", "until close"],
)
async def test_in_the_middle_of_the_stream(gate: Gate, beginning: bytes, leave: str):
    """Field note 17: nobody reads it any more, so the provider must not go on."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(beginning)
    await client.until(b"hello")
    _leave(client, leave)
    assert await provider.end()
    await gate.at_rest()
    assert gate.upstream_connections == 0


@WAYS
async def test_in_the_middle_of_a_stream_that_it_does_not_read(gate: Gate, leave: str):
    """With the provider paused, a FIN is hidden behind what was not read; a reset and a deadline are not."""
    client = await gate.client(window=4096)
    await client.send(post())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    sending = asyncio.ensure_future(_send_on(provider))
    await eventually(lambda: any(one._read_paused for one in gate.server.pool._all))
    _leave(client, leave)
    await gate.at_rest()
    await sending


@WAYS
async def test_between_requests(gate: Gate, leave: str):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(ok())
    await client.message()
    _leave(client, leave)
    await gate.at_rest()
    assert gate.server.pool.idle_count == 1  # the provider's connection is none the worse


async def test_before_its_request_has_begun(gate: Gate):
    """A task that is cancelled before its first step never runs; the request must end all the same."""
    for _ in range(20):
        client = await gate.client()
        client.sock.send(post())
        client.reset()
    await gate.at_rest()
    while not await gate.upstream.nobody_comes():
        pass


async def test_at_every_turn_of_the_loop(gate: Gate):
    """Whichever step the request has reached when its client is reset, nothing is left behind."""

    async def serve(wire: Wire) -> None:
        while True:
            await wire.message()
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"hello", b"world")

    gate.upstream.serve(serve)
    for count in range(60):
        client = await gate.client()
        await client.send(post(b"x" * 50))
        await turns(count % 30)
        client.reset() if count % 2 else client.close()
    await gate.at_rest()
    client = await gate.client()
    await client.send(get())
    assert (await client.message()).body == b"helloworld"


async def test_the_provider_leaves_before_its_head(gate: Gate):
    """Point 9: 502, worth a retry, and not sent again: it may have been processed."""
    for how in ("close", "reset", "end_writing"):
        client, provider = await gate.ask(post())
        await provider.message()
        getattr(provider, how)()
        answer = await client.message()
        assert answer.status == 502
        assert answer.get(b"x-should-retry") == b"true"
        assert await gate.upstream.nobody_comes()


async def test_the_provider_leaves_in_the_middle_of_its_head(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nX-Half:")
    provider.close()
    assert (await client.message()).status == 502


async def test_the_provider_leaves_as_soon_as_it_has_accepted(gate: Gate):
    async def leave(wire: Wire) -> None:
        wire.reset()

    gate.upstream.serve(leave)
    for _ in range(20):
        client = await gate.client()
        await client.send(post())
        assert (await client.message()).status == 502


async def test_the_provider_is_not_there(gate: Gate):
    gate.upstream.refuse_connections()
    client = await gate.client()
    await client.send(post())
    answer = await client.message()
    assert answer.status == 502
    assert answer.get(b"x-should-retry") == b"true"
    assert b"api_error" in answer.body


async def test_the_provider_resets_while_the_client_uploads(gate: Gate):
    client, provider = await gate.ask(post(b"x" * 1000)[:-500])
    await provider.until(b"\r\n\r\n")
    provider.reset()
    assert (await client.message()).status == 502


def _full_backlog(upstream: Upstream) -> list[Wire]:
    """Fill the queue of connections that wait to be accepted, so that another one hangs."""
    import socket  # noqa: PLC0415

    upstream._listening.listen(0)
    full: list[Wire] = []
    for _ in range(8):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", upstream.port))
        full.append(Wire(sock))
    return full


def _paused(gate: Gate) -> bool:
    return any(client._read_paused for client in gate.server._clients)


async def _send_on(provider: Wire) -> None:
    try:
        while True:
            await provider.send(b"x" * 65536)
    except (OSError, Ended):
        pass
