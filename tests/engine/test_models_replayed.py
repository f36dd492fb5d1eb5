"""What is looked into for its model and sent once more after a renewal: all of it is looked into, once."""

import gzip

import pytest
from engine.conftest import Open
from engine.harness import SECOND, Gate, ok, post
from engine.tunnels import REFUSED
from engine.wires import Wire, eventually, turns

from ai_mux.wire.chunked import ChunkDecoder

MODELS = {"models": ("claude-sonnet-*",)}
JSON = b"Content-Type: application/json\r\n"
ALLOWED = b'{"model":"claude-sonnet-5","messages":[{"role":"user","content":"' + b"x" * 30_000 + b'"}]'
MARK = b"NOT TO BE SENT"
BAD_ENDS = {
    "a second model": b',"model":"claude-opus-4-8","z":"' + MARK + b'"}',
    "a model of a tool": b',"tools":[{"type":"advisor","model":"claude-opus-4-8"}],"z":"' + MARK + b'"}',
    "no end": b',"z":"' + MARK + b'"',
}
FRAMINGS = pytest.mark.parametrize("framing", ["length", "chunked"])


def requested(body: bytes, framing: str, *, fields: bytes = b"") -> tuple[bytes, bytes]:
    """Return a request in two parts, of which the second holds the body's last 60 bytes or so."""
    if framing == "length":
        whole = post(body, fields=JSON + fields)
        return whole[:-60], whole[-60:]
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:100], body[100:-60], body[-60:])]
    return post(chunked=True, fields=JSON + fields) + b"".join(parts[:2]), parts[2] + b"0\r\n\r\n"


async def body_of(provider: Wire, size: int, framing: str) -> bytes:
    """Return the body of the request whose head was read, of so many bytes."""
    if framing == "length":
        return await provider.exactly(size)
    return b"".join(ChunkDecoder().feed(await provider.until(b"\r\n0\r\n\r\n")))


async def refused(gate: Gate, client: Wire) -> None:
    """See that the client is told, and nothing is left."""
    told = (await client.message()).status
    assert told in {400, 403}
    client.close()
    await gate.at_rest()
    assert gate.server.accounting.limiter.running == 0
    assert [row.status for row in gate.rows.records] == [told]


@FRAMINGS
@pytest.mark.parametrize("coding", [b"identity", b"gzip"])
@pytest.mark.parametrize("when", ["before", "meanwhile", "afterwards"])
async def test_an_allowed_request_arrives_twice_as_it_came(
    opened: Open, framing: str, coding: bytes, when: str
):
    """Its last part comes before the renewal, while that is waited for, or when the replay has begun."""
    gate = await opened(alice=MODELS)
    body = ALLOWED + b"}"
    if coding == b"gzip":
        body = gzip.compress(body, compresslevel=0)
    begun, rest = requested(body, framing, fields=b"Content-Encoding: %b\r\n" % coding)
    client, provider = await gate.ask(begun)
    await provider.until(b"\r\n\r\n")
    if when == "before":
        await client.send(rest)
        assert await body_of(provider, len(body), framing) == body
    gate.tokens.open.clear()
    await provider.send(REFUSED)
    await eventually(lambda: gate.tokens.waiting)
    if when == "meanwhile":
        await client.send(rest)
        await turns(5)
    gate.tokens.open.set()
    again = await gate.upstream.accept()
    assert SECOND.encode() in await again.until(b"\r\n\r\n")
    if when == "afterwards":
        await client.send(rest)
    assert await body_of(again, len(body), framing) == body
    await again.send(ok())
    assert (await client.message()).status == 200


@FRAMINGS
@pytest.mark.parametrize("end", BAD_ENDS)
async def test_what_turns_bad_while_the_renewal_is_waited_for_is_not_sent_once_more(
    opened: Open, framing: str, end: str
):
    gate = await opened(alice=MODELS)
    begun, rest = requested(ALLOWED + BAD_ENDS[end], framing)
    client, provider = await gate.ask(begun)
    await provider.until(b"\r\n\r\n")
    gate.tokens.open.clear()
    await provider.send(REFUSED)
    await eventually(lambda: gate.tokens.waiting)
    await client.send(rest)
    await refused(gate, client)
    gate.tokens.open.set()
    assert await gate.upstream.nobody_comes()
    assert MARK not in (await provider.end()).got


@FRAMINGS
@pytest.mark.parametrize("end", BAD_ENDS)
async def test_nor_does_its_end_pass_where_the_replay_has_begun(opened: Open, framing: str, end: str):
    gate = await opened(alice=MODELS)
    begun, rest = requested(ALLOWED + BAD_ENDS[end], framing)
    client, provider = await gate.ask(begun)
    await provider.until(b"\r\n\r\n")
    await provider.send(REFUSED)
    again = await gate.upstream.accept()
    await again.until(b"xxxx")
    await client.send(rest)
    await refused(gate, client)
    got = (await again.end()).got
    assert MARK not in got
    assert not got.endswith(b"0\r\n\r\n")
