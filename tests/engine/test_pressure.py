"""Neither side can make us hold more than a window: point 10 of "What bites", field notes 15 and 16."""

import asyncio
import gc
import socket
import tracemalloc

import pytest
from engine.harness import Gate, get, ok, post
from engine.wires import Wire, eventually, turns

MB = 1024 * 1024
# A piece read, what the transport holds, and what a body may keep for a replay.
WINDOW = 2 * MB
COPY = 8 * MB


class Peak:
    """The most that Python held at once while the block ran, in bytes."""

    def __enter__(self) -> "Peak":
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        self.bytes = 0
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = tracemalloc.get_traced_memory()[1] - self._before
        tracemalloc.stop()


async def test_an_upload_of_50_mb_to_a_slow_provider_takes_constant_memory(gate: Gate):
    """Field note 15: streamed, never held whole."""
    size = 50 * MB
    client = await gate.client()
    piece = b"x" * MB
    with Peak() as peak:
        await client.send(post(piece)[:-MB].replace(b"%d" % MB, b"%d" % size))
        provider = await gate.upstream.accept()
        await provider.until(b"\r\n\r\n")  # what comes before there is a connection is held until there is
        sending = asyncio.ensure_future(_send(client, b"", piece, 50))
        await eventually(lambda: any(one._read_paused for one in gate.server._clients))
        taken = 0
        while taken < size:
            taken += len(await provider.some())
            if taken % 7 == 0:
                await turns(3)
        await sending
    assert taken == size
    await provider.send(ok(b"whole"))
    assert (await client.message()).body == b"whole"
    assert peak.bytes < COPY + WINDOW + MB


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked", b"X: until close"]
)
async def test_a_fast_stream_to_a_client_that_does_not_read_is_held_back(gate: Gate, framing: bytes):
    """Point 10 and field note 16: the provider is paused, not its stream gathered."""
    client = await gate.client()
    await client.send(post())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    event = b"400\r\n" + b"data: x " * 128 + b"\r\n"
    with Peak() as peak:
        pouring = asyncio.ensure_future(_send(provider, b"", event * 256, 400))
        await eventually(lambda: any(one._read_paused for one in gate.server.pool._all))
        held = next(iter(gate.server._clients)).transport.get_write_buffer_size()
        await turns(50)
    assert held < WINDOW
    assert peak.bytes < WINDOW
    assert not pouring.done()
    seen = 0
    while seen < 30 * MB:  # it goes on where it was
        seen += len(await client.some())
    pouring.cancel()
    await asyncio.gather(pouring, return_exceptions=True)


async def test_a_client_that_asks_on_and_on_without_reading_is_held_back(gate: Gate):
    """Not even a stranger's cheap questions may fill our memory with answers."""
    client = await gate.client(window=16384)
    await eventually(lambda: gate.server._clients)
    narrow = next(iter(gate.server._clients)).transport.get_extra_info("socket")
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    asking = asyncio.ensure_future(
        _send(client, b"", b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n" * 500, 10_000)
    )
    await eventually(lambda: any(one.write_paused and one._read_paused for one in gate.server._clients))
    one = next(iter(gate.server._clients))
    assert one.transport.get_write_buffer_size() < MB
    await turns(20_000)  # an answer takes a turn
    assert one.transport.get_write_buffer_size() < MB
    assert len(one._buffer) < MB
    assert not asking.done()
    for _ in range(3000):  # and goes on as soon as it reads
        assert (await client.message()).body == b"ok\n"
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_client_that_pipelines_without_end_is_held_back(gate: Gate):
    """One request is served, and no more than a head's worth of the next ones is read."""
    client, provider = await gate.ask(get())
    await provider.message()
    asking = asyncio.ensure_future(_send(client, b"", get() * 1000, 1000))
    await eventually(lambda: any(one._read_paused for one in gate.server._clients))
    one = next(iter(gate.server._clients))
    assert len(one._buffer) < MB
    for _ in range(20):
        await provider.send(ok(b"x"))
        assert (await client.message()).body == b"x"
        await provider.message()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_body_in_tiny_pieces_costs_no_more_than_its_size_allows(gate: Gate):
    """Small pieces are kept for a replay too, and each has a cost of its own."""
    gate.tokens.stale = True
    gate.tokens.open.clear()
    client = await gate.client()
    await client.send(post(b"x" * 20_000)[:-20_000])
    await eventually(lambda: gate.tokens.waiting)
    for _ in range(2000):
        await client.send(b"x")
        await turns(2)
    upload = next(iter(gate.server._clients))._request.upload
    assert gate.reserved >= 64 * len(upload._kept)


async def test_five_hundred_streams_come_and_go_without_a_trace(gate: Gate):
    """Field note 16: a soak in small."""

    async def serve(wire: Wire) -> None:
        while True:
            await wire.message()
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(3):
                await wire.send(b"3\r\nabc\r\n")
            await wire.send(b"0\r\n\r\n")

    gate.upstream.serve(serve)

    async def streams(count: int) -> None:
        client = await gate.client()
        for _ in range(count):
            await client.send(post(b"x" * 1000))
            assert (await client.message()).body == b"abcabcabc"
        client.close()

    await streams(50)  # what is remembered is remembered by now
    gate.lines.clear()
    with Peak() as peak:
        for _ in range(5):
            await streams(100)
        gc.collect()
        gate.lines.clear()
        left = tracemalloc.get_traced_memory()[0]
    assert left < MB // 4
    assert peak.bytes < 4 * MB


async def _send(wire: Wire, first: bytes, piece: bytes, count: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(wire.sock, first)
    for _ in range(count):
        await loop.sock_sendall(wire.sock, piece)
