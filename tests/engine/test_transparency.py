"""What is changed on the way, and nothing else, as both ends see it on the wire (design, section 4)."""

import socket

import pytest
from engine.harness import ALICE, BOB, FIRST, Gate, get, ok, post


async def _forwarded(gate: Gate, request: bytes) -> bytes:
    """Send ``request`` and return what the provider received, whole."""
    client, provider = await gate.ask(request)
    message = await provider.message()
    await provider.send(ok())
    assert (await client.message()).status == 200
    return message.raw_head + message.raw_body


async def test_a_request_arrives_with_only_the_listed_changes(gate: Gate):
    """Field notes 6 (compressed bodies pass untouched) and 23 (x-api-key and Bearer)."""
    body = b"\x28\xb5\x2f\xfd zstd or not, nobody looks \x00\xff"
    sent = (
        b"POST /claude/v1/messages?beta=true&x=%20a HTTP/1.1\r\n"
        b"Host: gate.example\r\n"
        b"X-First: 1\r\n"
        b"authorization: bearer {ALICE}\r\n"
        b"X-API-KEY: another-madeup-token\r\n"
        b"Cookie: a=b\r\n"
        b"Accept-Encoding: gzip, deflate;q=0.5, sdch, br\r\n"
        b"anthropic-Beta: one\r\n"
        b"Connection: keep-alive, X-Hop, Content-Length, Host\r\n"
        b"X-Hop: drop me\r\n"
        b"Keep-Alive: timeout=5\r\n"
        b"TE: trailers\r\n"
        b"Trailer: X-T\r\n"
        b"Proxy-Authorization: Basic eA==\r\n"
        b"X-Forwarded-For: 10.0.0.1\r\n"
        b"Forwarded: for=10.0.0.1\r\n"
        b"Via: 1.1 other\r\n"
        b"X-Real-IP: 10.0.0.1\r\n"
        b"CF-Ray: 1\r\n"
        b"Content-Encoding: zstd\r\n"
        b"x_under_score:  two  \r\n"
        b"X-Repeated: 1\r\n"
        b"anthropic-beta: two\r\n"
        b"x-repeated: 2\r\n"
        b"Content-Length: {SIZE}\r\n\r\n"
    )
    arrived = (
        b"POST /v1/messages?beta=true&x=%20a HTTP/1.1\r\n"
        b"Host: 127.0.0.1:{PORT}\r\n"
        b"X-First: 1\r\n"
        b"authorization: Bearer {FIRST}\r\n"
        b"Accept-Encoding: gzip, deflate;q=0.5, br\r\n"
        b"anthropic-Beta: one\r\n"
        b"Content-Encoding: zstd\r\n"
        b"x_under_score:  two  \r\n"
        b"X-Repeated: 1\r\n"
        b"anthropic-beta: two,oauth-2025-04-20\r\n"
        b"x-repeated: 2\r\n"
        b"Content-Length: {SIZE}\r\n\r\n"
    )
    known = {b"{ALICE}": ALICE, b"{FIRST}": FIRST.encode()}
    known |= {b"{SIZE}": b"%d" % len(body), b"{PORT}": b"%d" % gate.upstream.port}
    for place, value in known.items():
        sent, arrived = sent.replace(place, value), arrived.replace(place, value)
    assert await _forwarded(gate, sent + body) == arrived + body


@pytest.mark.parametrize(
    "field", [b"Authorization: Bearer %b\r\n", b"x-api-key: %b\r\n", b"AUTHORIZATION: BEARER %b\r\n"]
)
async def test_the_users_token_is_accepted_either_way_and_never_forwarded(gate: Gate, field: bytes):
    """Field note 23."""
    forwarded = await _forwarded(
        gate, b"GET /claude/v1/models HTTP/1.1\r\nHost: h\r\n" + field % BOB + b"\r\n"
    )
    assert BOB not in forwarded
    assert forwarded.count(FIRST.encode()) == 1
    assert b"x-api-key" not in forwarded.lower()


async def test_a_response_arrives_with_only_the_listed_changes(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(
        b"HTTP/1.1 200 Quite Fine\r\n"
        b"Date: today\r\n"
        b"Set-Cookie: a=b\r\n"
        b"X-Odd_Name:   spaced  \r\n"
        b"Alt-Svc: h3\r\n"
        b"Strict-Transport-Security: max-age=1\r\n"
        b"NEL: {}\r\n"
        b"Report-To: {}\r\n"
        b"Connection: keep-alive, X-Hop\r\n"
        b"X-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\n"
        b"request-id: req_theirs\r\n"
        b"Content-Encoding: gzip\r\n"
        b"CONTENT-length: 3\r\n\r\n\x1f\x8b\x00"
    )
    answer = await client.message()
    assert answer.raw_head + answer.raw_body == (
        b"HTTP/1.1 200 Quite Fine\r\n"
        b"Date: today\r\n"
        b"X-Odd_Name:   spaced  \r\n"
        b"request-id: req_theirs\r\n"
        b"Content-Encoding: gzip\r\n"
        b"CONTENT-length: 3\r\n\r\n\x1f\x8b\x00"
    )


@pytest.mark.parametrize(
    ("path", "name"), [(b"/claude/v1/messages", b"request-id"), (b"/chatgpt/v1/responses", b"x-request-id")]
)
async def test_our_request_id_is_added_only_where_the_provider_sent_none(
    gate: Gate, path: bytes, name: bytes
):
    client, provider = await gate.ask(post(path=path))
    sent = await provider.message()
    assert b"amx_" not in sent.raw_head
    await provider.send(ok())
    told = (await client.message()).get(name)
    assert told is not None
    assert told.startswith(b"amx_")
    assert len(told) == 30


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 429, 500, 503, 529])
async def test_a_providers_refusal_passes_verbatim(gate: Gate, status: int):
    """Field note 9: a 429 keeps its headers, and no error becomes another."""
    client, provider = await gate.ask(post())
    await provider.message()
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"theirs"}}'
    refusal = (
        b"HTTP/1.1 %d Whatever\r\nretry-after: 17\r\nanthropic-ratelimit-unified-status: rejected\r\n"
        b"x-should-retry: false\r\nrequest-id: req_1\r\nContent-Length: %d\r\n\r\n"
        % (status, len(body))
        + body
    )
    await provider.send(refusal)
    assert await client.exactly(len(refusal)) == refusal


async def test_a_401_that_is_not_the_providers_is_never_made(gate: Gate):
    """Field note 5: an internal failure sent as 401 makes clients log in again."""
    gate.tokens.gone = "The credential is dead."
    client = await gate.client()
    await client.send(post())
    answer = await client.message()
    assert answer.status == 503
    assert answer.get(b"x-should-retry") == b"false"
    assert await gate.upstream.nobody_comes()


async def test_nothing_is_inserted_into_a_silent_stream(gate: Gate):
    """Field note 7: a stream is passed as it comes, however long it is silent, and nothing is added."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nrequest-id: r\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    for event in (b"event: ping\n\n", b"data: {}\n\n"):
        await gate.later(299)
        await provider.send(b"%x\r\n%b\r\n" % (len(event), event))
        assert await client.until(b"\n\n\r\n") == b"%x\r\n%b\r\n" % (len(event), event)


async def test_each_event_reaches_the_client_before_the_next_is_sent(gate: Gate):
    """Field note 24: nothing is held back, not even half an event or half a chunk."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nrequest-id: r\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.until(b"\r\n\r\n")
    for piece in (b"5\r\nhe", b"llo", b"\r", b"\n", b"3\r\n: x\r\n"):
        await provider.send(piece)
        assert await client.exactly(len(piece)) == piece


async def test_no_piece_waits_for_the_one_before_to_be_acknowledged(gate: Gate):
    """Field note 24: Nagle's algorithm would hold an event back for 40 ms, on either side."""
    client, provider = await gate.ask(post())
    await provider.message()
    theirs, ours = next(iter(gate.server._clients)), next(iter(gate.server.pool._all))
    for one in (theirs, ours):
        sock = one.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    client.close()
    provider.close()


async def test_each_piece_of_a_request_reaches_the_provider_before_the_next_is_sent(gate: Gate):
    client, provider = await gate.ask(
        b"POST /claude/v1/messages HTTP/1.1\r\nHost: h\r\nx-api-key: "
        + ALICE
        + b"\r\nContent-Length: 6\r\n\r\n"
    )
    await provider.until(b"\r\n\r\n")
    for piece in (b"ab", b"c", b"def"):
        await client.send(piece)
        assert await provider.exactly(len(piece)) == piece
    await provider.send(ok())
    assert (await client.message()).status == 200


async def test_configured_headers_replace_and_remove_but_never_displace_the_credential(opened):
    gate = await opened(configured={b"X-Team": b"blue", b"X-Gone": None})
    forwarded = await _forwarded(gate, get(fields=b"X-Gone: 1\r\nx-team: red\r\nX-Team: green\r\n"))
    assert b"\r\nx-team: blue\r\n" in forwarded
    assert b"green" not in forwarded
    assert b"X-Gone" not in forwarded
    assert b"Bearer " + FIRST.encode() in forwarded


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        (b"/claude/v1/models?after=%2Fx&a=b?c", b"/base/v1/models?after=%2Fx&a=b?c"),
        (b"/claude?x=1", b"/base?x=1"),
        (b"/claude/%41~", b"/base/%41~"),
        (b"/chatgpt/v1/models", b"/base/models"),
        (b"/chatgpt/v1beta", b"/base/v1beta"),
    ],
)
async def test_the_target_is_the_clients_with_another_prefix(opened, asked: bytes, target: bytes):
    gate = await opened(base_path=b"/base", paths=["*"])
    assert (await _forwarded(gate, get(asked))).startswith(b"GET " + target + b" HTTP/1.1\r\n")
