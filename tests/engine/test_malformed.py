"""What neither side may send: refused to clients with a 400, to providers with a 502 or a cut.

The numbers are the points of "What bites" in the design, section 4.
"""

import pytest
from engine.harness import ALICE, Gate, get, ok, post
from engine.wires import Ended

HEAD = b"HTTP/1.1 200 OK\r\nrequest-id: r\r\nTransfer-Encoding: chunked\r\n\r\n"

# Point 6: what is refused


_SOUND = b"POST /claude/v1/messages HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + ALICE + b"\r\n"
_MALFORMED = {
    "CL with TE": _SOUND + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "TE with CL": _SOUND + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "repeated CL": _SOUND + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "differing CL": _SOUND + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "listed CL": _SOUND + b"Content-Length: 5, 5\r\n\r\n",
    "signed CL": _SOUND + b"Content-Length: +5\r\n\r\n",
    "negative CL": _SOUND + b"Content-Length: -5\r\n\r\n",
    "CL with a blank": _SOUND + b"Content-Length: 5 5\r\n\r\n",
    "CL with leading zeros": _SOUND + b"Content-Length: 005\r\n\r\n",
    "empty CL": _SOUND + b"Content-Length:\r\n\r\n",
    "hexadecimal CL": _SOUND + b"Content-Length: 0x5\r\n\r\n",
    "gzip, chunked": _SOUND + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked, gzip": _SOUND + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "chunked twice": _SOUND + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "identity": _SOUND + b"Transfer-Encoding: identity\r\n\r\n",
    "xchunked": _SOUND + b"Transfer-Encoding: xchunked\r\n\r\n",
    "TE on 1.0": _SOUND.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n",
    "obs-fold": _SOUND + b"X-A: 1\r\n folded\r\n\r\n",
    "obs-fold with a tab": _SOUND + b"X-A: 1\r\n\tfolded\r\n\r\n",
    "bare LF": _SOUND + b"X-A: 1\nX-B: 2\r\n\r\n",
    "bare CR": _SOUND + b"X-A: 1\rX-B: 2\r\n\r\n",
    "NUL": _SOUND + b"X-A: \x00\r\n\r\n",
    "space before the colon": _SOUND + b"Content-Length : 5\r\n\r\n",
    "tab before the colon": _SOUND + b"Content-Length\t: 5\r\n\r\n",
    "no colon": _SOUND + b"X-A\r\n\r\n",
    "empty name": _SOUND + b": x\r\n\r\n",
    "missing Host": _SOUND.replace(b"Host: h\r\n", b"") + b"\r\n",
    "repeated Host": _SOUND + b"Host: h\r\n\r\n",
    "Host with a path": _SOUND.replace(b"Host: h", b"Host: h/evil") + b"\r\n",
    "Host with userinfo": _SOUND.replace(b"Host: h", b"Host: a@h") + b"\r\n",
    "another authority": _SOUND.replace(b" /claude", b" http://evil/claude") + b"\r\n",
    "HTTP/1.2": _SOUND.replace(b"HTTP/1.1", b"HTTP/1.2") + b"\r\n",
    "HTTP/2.0": _SOUND.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\n",
    "HTTP/0.9": _SOUND.replace(b"HTTP/1.1", b"HTTP/0.9") + b"\r\n",
    "RTSP": _SOUND.replace(b"HTTP/1.1", b"RTSP/1.0") + b"\r\n",
    "no version": _SOUND.replace(b" HTTP/1.1", b"") + b"\r\n",
    "lower-case http": _SOUND.replace(b"HTTP/1.1", b"http/1.1") + b"\r\n",
    "unknown method": _SOUND.replace(b"POST", b"PWN") + b"\r\n",
    "lower-case method": _SOUND.replace(b"POST", b"post") + b"\r\n",
    "method with a control": _SOUND.replace(b"POST", b"PO\x01ST") + b"\r\n",
    "two blanks": _SOUND.replace(b"POST ", b"POST  ") + b"\r\n",
    "target with a control": _SOUND.replace(b"messages", b"mess\x01ages") + b"\r\n",
    "target with DEL": _SOUND.replace(b"messages", b"mess\x7fages") + b"\r\n",
    "target above 0x7E": _SOUND.replace(b"messages", b"mess\xc3\xa4ges") + b"\r\n",
    "two Authorization": _SOUND + b"Authorization: Bearer x\r\n\r\n",
    "two x-api-key": _SOUND + b"x-api-key: a\r\nx-api-key: b\r\n\r\n",
    "TLS on a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("raw", _MALFORMED.values(), ids=_MALFORMED.keys())
async def test_a_malformed_head_is_a_400_closes_and_goes_nowhere(gate: Gate, raw: bytes):
    """Point 6. A sound request rides behind each, and must not be served."""
    client = await gate.client()
    await client.send(raw + get())
    answer = await client.message()
    assert answer.status == 400
    assert answer.get(b"connection") == b"close"
    assert answer.get(b"content-type") == b"application/json"
    assert (await client.end()).got == b""
    assert await gate.upstream.nobody_comes()


@pytest.mark.parametrize(
    "body",
    [
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\nhello\r\n",
        b"\r\n",
        b";x\r\n",
        b"g\r\n",
        b"5\r\nhelloX",
        b"5\r\nhello\n",
        b"5\r\nhello\r\n-1\r\n",
        b"fffffffffffffffff\r\n",
        b"5;" + b"e" * 5000,
        b"0\r\n" + b"X: 1\r\n" * 5000,
        b"0\r\nX: 1\n\r\n",
    ],
    ids=lambda body: repr(body[:16]),
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
async def test_a_malformed_chunked_body_is_a_400_and_ends_the_upstream_request(
    gate: Gate, body: bytes, at_once: bool
):
    """Point 6, for what follows the head."""
    client = await gate.client()
    if at_once:
        await client.send(post(chunked=True) + body)
        assert (await client.message()).status == 400
        assert await gate.upstream.nobody_comes()
        return
    await client.send(post(chunked=True))
    provider = await gate.upstream.accept()
    await provider.until(b"\r\n\r\n")
    await client.send(body)
    assert (await client.message()).status == 400
    assert b"0\r\n\r\n" not in (await provider.end()).got


# Point 8: what a provider may not do


@pytest.mark.parametrize("behind", [b"x", b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"])
@pytest.mark.parametrize("response", [ok(), HEAD + b"2\r\nok\r\n0\r\n\r\n"], ids=["length", "chunked"])
async def test_junk_behind_a_response_is_never_another_users_answer(
    gate: Gate, response: bytes, behind: bytes
):
    """Point 8: the connection is discarded."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(response + behind)
    got = (await client.end()).got if response.startswith(HEAD) else (await client.message()).body
    assert b"evil" not in got
    other = await gate.client()
    await other.send(post())
    fresh = await gate.upstream.accept()
    await fresh.message()
    await fresh.send(ok(b"for the other"))
    assert (await other.message()).body == b"for the other"
    assert await provider.end()


@pytest.mark.parametrize("behind", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"])
async def test_junk_on_an_idle_connection_discards_it(gate: Gate, behind: bytes):
    """Point 8: also when it comes later."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(ok())
    await client.message()
    await provider.send(behind)
    assert await provider.end()
    await client.send(post())
    fresh = await gate.upstream.accept()
    await fresh.message()
    await fresh.send(ok(b"good"))
    assert (await client.message()).body == b"good"


_CUTS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    "chunk data": HEAD + b"a\r\nhello",
    "between chunks": HEAD + b"5\r\nhello\r\n",
    "last chunk": HEAD + b"5\r\nhello\r\n0\r\n",
    "trailer": HEAD + b"5\r\nhello\r\n0\r\nX: 1\r\n",
}


@pytest.mark.parametrize("how", ["close", "reset", "end_writing"])
@pytest.mark.parametrize("response", _CUTS.values(), ids=_CUTS.keys())
async def test_a_cut_response_is_never_a_clean_end(gate: Gate, response: bytes, how: str):
    """Point 8: the client is cut off too, in the middle of the same message."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(response)
    await client.until(b"hello")
    getattr(provider, how)()
    with pytest.raises(Ended):
        await client.until(b"0\r\n\r\n")
    await gate.at_rest()
    if how == "end_writing":
        assert await provider.end()


@pytest.mark.parametrize(
    "broken",
    [b"g\r\n", b"5\r\nhelloX\r\n", b"-1\r\n", b"5\nhello\n"],
)
async def test_broken_chunks_cut_the_client_off_before_they_reach_it(gate: Gate, broken: bytes):
    """Point 8: chunks are looked at before they are written."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(HEAD + b"2\r\nok\r\n")
    await client.until(b"ok\r\n")
    await provider.send(broken)
    assert (await client.end()).got == b""
    assert await provider.end()


_BAD_HEADS = {
    "CL with TE": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "differing CL": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "signed CL": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "gzip TE": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
    "two-digit status": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "blank line first": b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "513 fields": b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 513 + b"\r\n",
    "257 KiB": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 257 * 1024,
}


@pytest.mark.parametrize("response", _BAD_HEADS.values(), ids=_BAD_HEADS.keys())
async def test_a_response_head_that_cannot_be_trusted_is_a_502(gate: Gate, response: bytes):
    """Point 8."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(response)
    answer = await client.message()
    assert answer.status == 502
    assert answer.get(b"x-should-retry") == b"true"
    assert await provider.end()


async def test_large_heads_pass_both_ways(gate: Gate):
    """Point 7: 70 KB and 200 fields are normal."""
    fields = b"".join(b"X_Field-%d: %b\r\n" % (number, b"v" * 340) for number in range(200))
    client, provider = await gate.ask(post(fields=fields))
    assert fields in (await provider.message()).raw_head
    await provider.send(ok(b"", fields * 2))
    assert fields * 2 in (await client.message()).raw_head


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"x" * 17_000, 414),
        (b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: 1\r\n" * 256 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 129 * 1024, 431),
    ],
)
async def test_heads_that_are_too_large_are_told_so_without_waiting_for_their_end(
    gate: Gate, raw: bytes, status: int
):
    """Point 7."""
    client = await gate.client()
    await client.send(raw)
    answer = await client.message()
    assert answer.status == status
    assert answer.get(b"connection") == b"close"


# The size of bodies


async def test_a_declared_body_over_the_limit_is_a_413_before_a_byte_of_it_is_read(opened):
    gate = await opened(max_body_size=100)
    client = await gate.client()
    await client.send(post(b"x" * 101)[:-101])
    answer = await client.message()
    assert answer.status == 413
    assert answer.get(b"connection") == b"close"
    assert await gate.upstream.nobody_comes()


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_chunked_body_over_the_limit_is_a_413_while_it_is_read(opened, at_once: bool):
    gate = await opened(max_body_size=100)
    client = await gate.client()
    head, body = post(chunked=True), b"64\r\n" + b"x" * 100 + b"\r\n"
    if at_once:
        await client.send(head + body + b"1\r\nx\r\n")
    else:
        await client.send(head, body)
        provider = await gate.upstream.accept()
        await provider.until(b"\r\n\r\n")
        await client.send(b"1\r\nx\r\n")
    assert (await client.message()).status == 413
    if not at_once:
        assert b"0\r\n\r\n" not in (await provider.end()).got


async def test_a_body_of_exactly_the_limit_passes(opened):
    gate = await opened(max_body_size=100)
    for request in (post(b"x" * 100), post(chunked=True) + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n"):
        client = await gate.client()
        await client.send(request)
        provider = gate.upstream.accepted[0] if gate.upstream.accepted else await gate.upstream.accept()
        assert (await provider.message()).body == b"x" * 100
        await provider.send(ok())
        assert (await client.message()).status == 200
