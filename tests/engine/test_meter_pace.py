"""Field note 16: the meter looks at a stream while it runs, however long that is, and holds little of it."""

import zlib
from collections.abc import Callable
from random import Random

import pytest
from engine.harness import Gate, post
from engine.wires import eventually
from fakes.claude_answers import events

from ai_mux.usage.meter import Meter

# What `proxy.upstream` says that it lets the meter gather.
PIECES, BYTES = 16, 16 * 4096
# A thousand small events, and some that do not fit into one read of the usual size.
WORDS = {"small": "word " * 1000, "large": " ".join(Random(1).randbytes(15_000).hex() for _ in range(60))}
FRAMINGS = {
    "length": b"Content-Length: %d\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n",
    "until close": b"Connection: close\r\n",
    "chunked, for HTTP/1.0": b"Transfer-Encoding: chunked\r\n",
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def chunked(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def plain(piece: bytes) -> bytes:
    return piece


def meter_of(gate: Gate) -> Meter:
    """Return the meter of the only request that runs."""
    (client,) = gate.server._clients
    assert client._request is not None
    assert client._request.meter is not None
    return client._request.meter


def packed(pieces: list[bytes]) -> list[bytes]:
    """Return what a provider sends that packs each event by itself, as it must to be on time."""
    pack = zlib.compressobj(wbits=31)
    return [pack.compress(piece) + pack.flush(zlib.Z_SYNC_FLUSH) for piece in pieces] + [pack.flush()]


@pytest.mark.parametrize(
    ("framing", "coding"), [*((framing, "identity") for framing in FRAMINGS), ("chunked", "gzip")]
)
@pytest.mark.parametrize("size", WORDS)
async def test_a_long_stream_is_looked_at_on_the_way(gate: Gate, size: str, framing: str, coding: str):
    pieces = [piece + b"\n\n" for piece in events(WORDS[size], output_tokens=77).split(b"\n\n")[:-1]]
    if coding == "gzip":
        pieces = packed(pieces)
    framed: Callable[[bytes], bytes] = chunked if framing.startswith("chunked") else plain
    request = post(fields=b"Accept-Encoding: gzip\r\n")
    if framing.endswith("1.0"):
        request = request.replace(b"HTTP/1.1", b"HTTP/1.0")
    client, provider = await gate.ask(request)
    await provider.message()
    fields = FRAMINGS[framing]
    if framing == "length":
        fields %= sum(map(len, pieces))
    await provider.send(HEAD + b"Content-Encoding: %b\r\n" % coding.encode() + fields + b"\r\n")
    await client.until(b"\r\n\r\n")
    meter = meter_of(gate)
    for piece in pieces[:-1]:
        await provider.send(framed(piece))
        got = piece if framing.endswith("1.0") else framed(piece)
        assert await client.exactly(len(got)) == got
        assert len(meter.pieces) <= PIECES
        assert sum(map(len, meter.pieces)) <= BYTES
    await provider.send(framed(pieces[-1]) + (b"0\r\n\r\n" if framed is chunked else b""))
    provider.close()
    await eventually(lambda: gate.rows.records, what="no row was entered")
    (row,) = gate.rows.records
    assert (row.metering, row.tokens.output) == ("whole", 77)
    assert not meter.pieces
    client.close()


async def test_a_thousand_chunks_that_come_at_once_are_looked_at_at_once(gate: Gate):
    body = events(WORDS["small"])
    chunks = [chunked(body[at : at + 20]) for at in range(0, len(body), 20)]
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(HEAD + FRAMINGS["chunked"] + b"\r\n" + b"".join(chunks))
    await client.until(chunks[-1])
    assert len(meter_of(gate).pieces) <= PIECES
    await provider.send(b"0\r\n\r\n")
    await eventually(lambda: gate.rows.records)
    assert gate.rows.records[0].metering == "whole"
