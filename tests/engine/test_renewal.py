"""401 from upstream: renew, send the same request once more, tell the client nothing (design, section 4)."""

import pytest
from engine.harness import FIRST, SECOND, Gate, get, ok, post
from engine.wires import Wire, eventually, turns

from ai_mux.proxy.upload import KEPT_BYTES_EACH, KEPT_BYTES_IN_ALL

REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 7\r\n\r\nrefused"


def _bearer(token: str) -> bytes:
    return b"Bearer " + token.encode()


@pytest.mark.parametrize(
    "request_",
    [get(), post(b"hello"), post(chunked=True) + b"5\r\nhello\r\n0\r\n\r\n"],
    ids=["get", "length", "chunked"],
)
async def test_the_same_request_is_sent_once_more_with_the_renewed_token(gate: Gate, request_: bytes):
    """Field note 5: the client sees only the second answer."""
    client, provider = await gate.ask(request_)
    first = await provider.message()
    await provider.send(REFUSED)
    again = await gate.upstream.accept()
    second = await again.message()
    assert first.get(b"authorization") == _bearer(FIRST)
    assert second.get(b"authorization") == _bearer(SECOND)
    assert second.raw_head.replace(SECOND.encode(), FIRST.encode()) == first.raw_head
    assert second.body == first.body
    assert gate.tokens.refused == [FIRST]
    await again.send(ok(b"second"))
    assert (await client.message()).body == b"second"
    assert await provider.end()  # which may have more to say: it serves nobody again


async def test_a_second_401_is_a_503_that_is_not_worth_a_retry(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(REFUSED)
    again = await gate.upstream.accept()
    await again.message()
    await again.send(REFUSED)
    answer = await client.message()
    assert answer.status == 503
    assert answer.get(b"x-should-retry") == b"false"
    assert b"refused" not in answer.body
    assert gate.tokens.refused == [FIRST]
    assert await gate.upstream.nobody_comes()
    assert await again.end()


async def test_a_renewal_that_fails_is_told_as_it_is(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    gate.tokens.gone = "The login has ended."
    await provider.send(REFUSED)
    answer = await client.message()
    assert answer.status == 503
    assert b"The login has ended." in answer.body


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_still_uploads_is_replayed_and_goes_on(gate: Gate, chunked: bool):
    gate.tokens.open.clear()
    if chunked:
        head, pieces = post(chunked=True), [b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"3\r\nghi\r\n0\r\n\r\n"]
    else:
        head, pieces = post(b"abcdefghi")[:-9], [b"abc", b"def", b"ghi"]
    client, provider = await gate.ask(head + pieces[0])
    await provider.until(b"abc")
    await provider.send(REFUSED)
    await eventually(lambda: gate.tokens.waiting)
    await client.send(pieces[1])  # while the token is renewed
    await turns(5)
    gate.tokens.open.set()
    again = await gate.upstream.accept()
    await again.until(b"def")
    await client.send(pieces[2])  # while the replay is on its way
    await again.until(b"ghi")
    if chunked:
        await again.until(b"0\r\n\r\n")
    await again.send(ok(b"whole"))
    assert (await client.message()).body == b"whole"


async def test_a_body_that_was_paused_by_the_first_connection_reaches_the_second_whole(opened):
    gate = await opened(upstream_window=4096)
    body = bytes(range(256)) * 20_000  # 5 MB, which can be kept
    client = await gate.client()
    sending = _start(client.send(post(body)))
    provider = await gate.upstream.accept()
    await provider.until(b"\r\n\r\n")
    await eventually(lambda: any(one._read_paused for one in gate.server._clients))
    await provider.send(REFUSED)
    again = await gate.upstream.accept()
    assert (await again.message()).body == body
    await again.send(ok(b"whole"))
    assert (await client.message()).body == b"whole"
    await sending


async def test_what_is_too_large_to_keep_is_not_replayed_but_worth_a_retry(gate: Gate):
    """The token is renewed all the same, so that the retry succeeds."""
    body = b"x" * (KEPT_BYTES_EACH + 1)
    client = await gate.client()
    sending = _start(client.send(post(body)))
    provider = await gate.upstream.accept()
    assert len((await provider.message()).body) == len(body)
    assert gate.reserved == 0  # the copy was dropped the moment that it was of no more use
    await provider.send(REFUSED)
    answer = await client.message()
    assert answer.status == 503
    assert answer.get(b"x-should-retry") == b"true"
    assert gate.tokens.refused == [FIRST]
    assert await gate.upstream.nobody_comes()
    await sending


async def test_what_exceeds_the_budget_of_all_requests_is_not_kept_and_passes(gate: Gate):
    assert gate.server.budget.take(KEPT_BYTES_IN_ALL - 10)
    client, provider = await gate.ask(post(b"x" * 11))
    assert (await provider.message()).body == b"x" * 11
    await provider.send(REFUSED)
    assert (await client.message()).get(b"x-should-retry") == b"true"
    gate.server.budget.give(KEPT_BYTES_IN_ALL - 10)


async def test_a_large_body_is_read_no_further_than_the_copy_while_a_renewal_waits(gate: Gate):
    """Point 3: beyond the copy, and only there, reading is paused; nothing of the body is lost by it."""
    gate.tokens.stale = True
    gate.tokens.open.clear()
    body = bytes(range(256)) * 80_000  # 20 MB
    client = await gate.client()
    sending = _start(client.send(post(body)))
    await eventually(lambda: any(one._read_paused for one in gate.server._clients))
    assert gate.reserved <= KEPT_BYTES_EACH
    gate.tokens.open.set()
    provider = await gate.upstream.accept()
    assert (await provider.message()).body == body
    await provider.send(ok())
    assert (await client.message()).status == 200
    await sending


async def test_a_stale_token_is_renewed_before_anything_is_sent(gate: Gate):
    gate.tokens.stale = True
    gate.tokens.open.clear()
    client = await gate.client()
    await client.send(post())
    await eventually(lambda: gate.tokens.waiting)
    assert await gate.upstream.nobody_comes()
    gate.tokens.open.set()
    provider = await gate.upstream.accept()
    assert (await provider.message()).get(b"authorization") == _bearer(SECOND)
    await provider.send(ok())
    assert (await client.message()).status == 200


async def test_an_invited_client_is_not_asked_for_its_body_twice(gate: Gate):
    """The provider refuses before the body came; what the client sent once goes to the second connection."""
    client, provider = await gate.ask(post(b"hello", fields=b"Expect: 100-continue\r\n")[:-5])
    await provider.until(b"\r\n\r\n")
    await client.until(b"100 Continue\r\n\r\n")
    await provider.send(REFUSED)
    again = await gate.upstream.accept()
    await again.until(b"\r\n\r\n")
    await client.send(b"hello")
    assert await again.exactly(5) == b"hello"
    await again.send(ok())
    assert (await client.message()).status == 200


async def test_nothing_stays_reserved_after_a_thousand_requests_of_every_kind(gate: Gate):
    """Field note 16: served, refused, replayed, cut, left by their clients."""

    async def serve(wire: Wire) -> None:
        while True:
            kind = (await wire.message()).body[:1]
            if kind == b"r" and gate.tokens.credential.access.reveal() == FIRST:
                await wire.send(REFUSED)
            elif kind == b"c":
                await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                return
            elif kind == b"n":
                return
            else:
                await wire.send(ok())

    gate.upstream.serve(serve)
    client = await gate.client()
    for number in range(1000):
        kind = b"oocnrl"[number % 6 : number % 6 + 1]
        await client.send(post(kind * (number % 1000 + 1)))
        if kind in b"ocrn" and kind != b"c":
            answer = await client.message()
            assert answer.status == (502 if kind == b"n" else 200)
            if kind == b"n":
                client.close()
                client = await gate.client()
        else:
            if kind == b"c":
                await client.until(b"half")
            client.close()
            client = await gate.client()
    client.close()
    await gate.at_rest()


def _start(work):
    import asyncio  # noqa: PLC0415

    return asyncio.ensure_future(work)
