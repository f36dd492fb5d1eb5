"""Where messages begin and end: chunks, lengths, interim responses, early ones, HEAD, HTTP/1.0.

The numbers are the points of "What bites" in the design, section 4.
"""

import pytest
from engine.harness import ALICE, Gate, get, ok, post
from engine.wires import turns

CHUNKS = b"5\r\nhello\r\n1;ext=1\r\n \r\n000A\r\n0123456789\r\n0\r\n\r\n"
TRAILED = b"3\r\nabc\r\n0\r\nX-Checksum: 1\r\nx_other:  2 \r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nrequest-id: r\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("body", [CHUNKS, TRAILED, b"0\r\n\r\n"], ids=["chunks", "trailers", "empty"])
async def test_a_chunked_response_cut_anywhere_arrives_byte_for_byte(gate: Gate, body: bytes):
    """Trailers and extensions pass; each connection is reused, so each end was seen at its byte."""
    client = await gate.client()
    provider = None
    for cut in range(1, len(HEAD + body)):
        await client.send(post())
        provider = provider or await gate.upstream.accept()
        await provider.message()
        await provider.send_slowly(HEAD + body, [cut])
        answer = await client.message()
        assert answer.raw_head + answer.raw_body == HEAD + body, cut
    assert len(gate.upstream.accepted) == 1
    assert await gate.upstream.nobody_comes()


async def test_a_chunked_response_in_single_bytes_arrives_byte_for_byte(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send_slowly(HEAD + TRAILED, list(range(len(HEAD + TRAILED))))
    answer = await client.message()
    assert answer.raw_head + answer.raw_body == HEAD + TRAILED


async def test_a_chunked_request_cut_anywhere_is_framed_anew_with_the_same_body(gate: Gate):
    head = post(chunked=True)
    body = b"5\r\nhello\r\n1;ext=1\r\n \r\n000A\r\n0123456789\r\n0\r\nX-Trailer: gone\r\n\r\n"
    client = await gate.client()
    provider = None
    for cut in range(1, len(head + body)):
        await client.send_slowly(head + body, [cut])
        provider = provider or await gate.upstream.accept()
        arrived = await provider.message()
        assert arrived.body == b"hello 0123456789", cut
        assert b"X-Trailer" not in arrived.raw_body
        assert b"ext" not in arrived.raw_body
        await provider.send(ok())
        assert (await client.message()).body == b"ok"
    assert len(gate.upstream.accepted) == 1


@pytest.mark.parametrize("length", [0, 1, 7])
async def test_a_response_with_a_length_cut_anywhere_arrives_byte_for_byte(gate: Gate, length: int):
    whole = ok(b"x" * length, b"request-id: r\r\n")
    client = await gate.client()
    provider = None
    for cut in range(1, len(whole)):
        await client.send(post())
        provider = provider or await gate.upstream.accept()
        await provider.message()
        await provider.send_slowly(whole, [cut])
        assert await client.exactly(len(whole)) == whole
    assert len(gate.upstream.accepted) == 1


# Point 1: interim responses


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
async def test_interim_responses_are_swallowed_and_end_nothing(gate: Gate, interim: bytes):
    """Point 1: a connection pooled after ``100 Continue`` would give one user another's answer."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 %b\r\nLink: </x>\r\n\r\n" % interim, b"HTTP/1.1 %b\r\n\r\n" % interim)
    other = await gate.client()
    await other.send(post(b"other"))
    other_provider = await gate.upstream.accept()  # not the connection that still owes an answer
    await other_provider.message()
    await other_provider.send(ok(b"for the other"))
    await provider.send(ok(b"for the one", b"request-id: r\r\n"))
    answer = await client.message()
    assert answer.raw_head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.body == b"for the one"
    assert (await other.message()).body == b"for the other"


async def test_an_interim_response_and_the_final_one_in_one_piece_are_told_apart(gate: Gate):
    """Point 1."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"final"))
    assert (await client.message()).body == b"final"


async def test_interim_responses_without_end_are_a_502(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
    assert (await client.message()).status == 502


# Point 2: whether a connection is kept


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        (ok(), True),
        (ok(fields=b"Connection: close\r\n"), False),
        (ok(fields=b"Connection: Close, x\r\n"), False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
    ],
)
async def test_a_connection_is_reused_only_where_the_provider_keeps_it(
    gate: Gate, response: bytes, kept: bool
):
    """Point 2."""
    client = await gate.client()
    await client.send(get())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(response)
    assert (await client.message()).get(b"connection") is None
    await client.send(get())
    again = provider if kept else await gate.upstream.accept()
    await again.message()
    await again.send(ok())
    assert (await client.message()).status == 200


# Point 4: early responses


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_early_413_reaches_the_client_and_both_sides_are_closed(gate: Gate, chunked: bool):
    """Point 4: the provider answers while the client still uploads."""
    head = post(chunked=chunked) if chunked else post(b"x" * 100_000)[:-100_000]
    client, provider = await gate.ask(head)
    await provider.until(b"\r\n\r\n")
    refusal = b"HTTP/1.1 413 Too Large\r\nrequest-id: r\r\nContent-Length: 3\r\n\r\nbig"
    await provider.send(refusal)
    answer = await client.message()
    assert answer.status == 413
    assert answer.body == b"big"
    assert answer.get(b"connection") == b"close"
    await provider.end()
    for _ in range(3):  # still taken, and thrown away: a reset would end it at the second
        await client.send(b"5\r\nhello\r\n" if chunked else b"x" * 1000)
        await turns(10)
    assert not (await client.end()).reset
    client.close()
    await gate.at_rest()


async def test_a_client_that_uploads_on_after_an_early_answer_is_cut_off_after_a_megabyte(gate: Gate):
    """Point 4: the linger is bounded in bytes."""
    client, provider = await gate.ask(post(b"x" * 10_000_000)[:-10_000_000])
    await provider.until(b"\r\n\r\n")
    await provider.send(ok(b"early"))
    assert (await client.message()).body == b"early"
    with pytest.raises(OSError):
        for _ in range(100):
            await client.send(b"x" * 100_000)
    await gate.at_rest()


async def test_a_client_that_stays_after_an_early_answer_is_cut_off_after_two_seconds(gate: Gate):
    """Point 4: the linger is bounded in time."""
    client, provider = await gate.ask(post(b"x" * 10_000)[:-10_000])
    await provider.until(b"\r\n\r\n")
    await provider.send(ok(b"early"))
    assert (await client.message()).body == b"early"
    await gate.later(2)
    await gate.at_rest()
    assert await client.end()


async def test_an_early_response_streams_on_while_the_client_still_uploads(gate: Gate):
    """Point 4: the answer is complete although the upload never is."""
    client, provider = await gate.ask(post(b"x" * 100)[:-100])
    await provider.until(b"\r\n\r\n")
    await provider.send(HEAD)
    await client.until(b"\r\n\r\n")
    for _ in range(3):
        await client.send(b"xx")
        assert await provider.exactly(2) == b"xx"
        await provider.send(b"2\r\nyy\r\n")
        assert await client.exactly(7) == b"2\r\nyy\r\n"
    await provider.send(b"0\r\n\r\n")
    assert (await client.end()).got == b"0\r\n\r\n"
    assert await provider.end()


# Point 5: HTTP/1.0, HEAD, 204, 304


async def test_an_http10_client_gets_no_chunked_body(gate: Gate):
    """Point 5."""
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"
    for cut in range(1, len(body)):
        client = await gate.client()
        await client.send(
            b"GET /claude/v1/models HTTP/1.0\r\nHost: h\r\nx-api-key: "
            + ALICE
            + b"\r\nConnection: keep-alive\r\n\r\n"
        )
        provider = gate.upstream.accepted[0] if gate.upstream.accepted else await gate.upstream.accept()
        await provider.message()
        await provider.send_slowly(HEAD + body, [len(HEAD) + cut])
        head = await client.until(b"\r\n\r\n")
        assert b"ransfer-" not in head
        ended = await client.end()
        assert ended.got == b"hello world"
        assert not ended.reset


async def test_an_http10_client_sees_that_a_decoded_body_was_cut(gate: Gate):
    """Points 5 and 8: without chunks only a reset can tell."""
    client, provider = await gate.ask(
        b"GET /claude/v1/models HTTP/1.0\r\nHost: h\r\nx-api-key: " + ALICE + b"\r\n\r\n"
    )
    await provider.message()
    await provider.send(HEAD + b"5\r\nhello\r\n")
    await client.until(b"hello")
    provider.close()
    assert (await client.end()).reset


async def test_a_response_to_head_with_a_length_does_not_swallow_the_next_response(gate: Gate):
    """Point 5."""
    client = await gate.client()
    await client.send(get(method=b"HEAD") + get())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    assert (await client.message(to_head=True)).get(b"content-length") == b"500"
    await provider.message()
    await provider.send(ok(b"second"))
    assert (await client.message()).body == b"second"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_204_and_304_have_no_body_whatever_they_announce(gate: Gate, status: bytes):
    """Point 5: the bytes behind them are junk, and the connection serves nobody again."""
    client = await gate.client()
    await client.send(get() + get())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nhello")
    assert (await client.message()).body == b""
    other = await gate.upstream.accept()
    await other.message()
    await other.send(ok(b"second"))
    assert (await client.message()).body == b"second"
    assert await provider.end()


async def test_a_response_that_ends_with_its_connection_is_passed_and_ends_with_the_clients(gate: Gate):
    client, provider = await gate.ask(get())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    await client.until(b"\r\n\r\n")
    provider.close()
    ended = await client.end()
    assert ended.got == b"until the end"
    assert not ended.reset


async def test_a_reset_in_a_response_that_ends_with_its_connection_is_not_a_clean_end(gate: Gate):
    """Point 8."""
    client, provider = await gate.ask(get())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\n\r\nuntil")
    await client.until(b"until")
    provider.reset()
    assert (await client.end()).reset


# Point 11


async def test_an_upgrade_to_h2c_with_a_body_is_ignored(gate: Gate):
    """Point 11: what ``curl --http2`` asks for."""
    client, provider = await gate.ask(
        post(
            b"body",
            fields=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        )
    )
    arrived = await provider.message()
    assert arrived.body == b"body"
    assert arrived.get(b"upgrade") is None
    assert arrived.get(b"http2-settings") is None
    await provider.send(ok(b"plain"))
    assert (await client.message()).body == b"plain"


async def test_an_upgrade_to_websocket_with_a_body_is_ignored(gate: Gate):
    """Point 11 and field note 14: it counts only on a bodyless GET; ``test_websocket`` has those that do."""
    fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    client, provider = await gate.ask(post(b"body", fields=fields))
    arrived = await provider.message()
    assert arrived.body == b"body"
    assert arrived.get(b"upgrade") is None
    await provider.send(ok(b"plain"))
    assert (await client.message()).body == b"plain"


# Expect


async def test_the_client_is_invited_to_send_its_body_and_the_provider_is_not_told(gate: Gate):
    request = post(b"hello", fields=b"Expect: 100-continue\r\n")
    client, provider = await gate.ask(request[:-5])
    assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"hello")
    arrived = await provider.message()
    assert arrived.get(b"expect") is None
    assert arrived.body == b"hello"
    await provider.send(ok())
    assert (await client.message()).status == 200


async def test_a_client_without_a_token_is_not_invited(gate: Gate):
    client = await gate.client()
    await client.send(post(b"hello", token=b"who-is-this-madeup", fields=b"Expect: 100-continue\r\n")[:-5])
    assert (await client.message()).status == 401
    assert await gate.upstream.nobody_comes()


async def test_a_body_that_comes_uninvited_gets_no_invitation(gate: Gate):
    client, provider = await gate.ask(post(b"hello", fields=b"Expect: 100-continue\r\n"))
    assert (await provider.message()).body == b"hello"
    await provider.send(ok())
    assert (await client.message()).status == 200
