"""Who may ask for certain models only gets no other one over HTTP either, and waits for nothing else."""

import gzip
import json

import pytest
import zstandard
from engine.conftest import Open
from engine.harness import Gate, ok, post
from engine.wires import Wire, eventually, turns

from ai_mux.proxy.upload import ReplayBudget

MODELS = {"models": ("claude-sonnet-*",)}
TAIL = b',"messages":[{"role":"user","content":"' + b"x" * 50_000 + b'"}]}'
BODY = b'{"model":"claude-sonnet-5"' + TAIL
REFUSED_401 = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


async def opened_for_alice(opened: Open) -> Gate:
    return await opened(alice=MODELS)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def untouched(provider: Wire) -> None:
    """See that nothing of the request has come."""
    await turns(20)
    with pytest.raises(BlockingIOError):
        provider.sock.recv(1)


@pytest.mark.parametrize("path", [b"/claude/v1/messages", b"/claude/v1/messages/count_tokens"])
async def test_an_allowed_model_passes_as_it_came(opened: Open, path: bytes):
    gate = await opened_for_alice(opened)
    client, provider = await gate.ask(post(BODY, path=path))
    assert (await provider.message()).body == BODY
    await provider.send(ok())
    assert (await client.message()).status == 200
    await client.send(post(BODY, path=path))  # over the same connection
    assert (await provider.message()).body == BODY
    await provider.send(ok())
    assert (await client.message()).body == b"ok"


async def test_byte_by_byte_and_in_chunks(opened: Open):
    gate = await opened_for_alice(opened)
    body = BODY[:100] + b'"}]}'
    client = await gate.client()
    for byte in post(chunked=True, fields=b"") + chunked(*(body[at : at + 3] for at in range(0, 104, 3))):
        await client.send(bytes([byte]))
        await turns(1)
    provider = await gate.upstream.accept()
    assert (await provider.message()).body == body
    await provider.send(ok())
    assert (await client.message()).status == 200


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
async def test_a_coded_body_is_looked_into_and_passes_as_it_came(opened: Open, coding: bytes):
    gate = await opened_for_alice(opened)
    pack = gzip.compress if coding == b"gzip" else zstandard.ZstdCompressor().compress
    fields = b"Content-Encoding: %b\r\n" % coding
    client, provider = await gate.ask(post(pack(BODY), fields=fields))
    assert (await provider.message()).body == pack(BODY)
    await provider.send(ok())
    await client.message()
    await client.send(post(pack(BODY.replace(b"sonnet", b"opus")), fields=fields))
    answer = await client.message()
    assert (answer.status, answer.get(b"x-should-retry")) == (403, b"false")


@pytest.mark.parametrize(
    ("body", "fields", "status", "kind"),
    [
        (BODY.replace(b"sonnet", b"opus"), b"", 403, "permission_error"),
        (BODY.replace(b'"model"', b'"Model"'), b"", 400, "invalid_request_error"),
        (BODY.replace(TAIL, b',"model":"claude-sonnet-5"}'), b"", 400, "invalid_request_error"),
        (BODY + b"x", b"", 400, "invalid_request_error"),
        (b'{"x":"' + b"x" * 1_200_000 + b'","model":"claude-sonnet-5"}', b"", 400, "invalid_request_error"),
        (BODY, b"Content-Encoding: gzip\r\n", 415, "invalid_request_error"),
        (BODY, b"Content-Encoding: compress\r\n", 415, "invalid_request_error"),
        (BODY, b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", 415, "invalid_request_error"),
        (BODY, b"Content-Type: application/json; charset=utf-7\r\n", 415, "invalid_request_error"),
    ],
    ids=range(9),
)
async def test_what_is_refused_at_its_beginning_never_reaches_the_provider(
    opened: Open, body: bytes, fields: bytes, status: int, kind: str
):
    gate = await opened_for_alice(opened)
    client = await gate.client()
    await client.send(post(body, fields=fields))
    answer = await client.message()
    assert answer.status == status
    assert json.loads(answer.body)["error"]["type"] == kind
    assert await gate.upstream.nobody_comes()
    client.close()
    await gate.at_rest()
    assert [row.status for row in gate.rows.records] == [status]
    assert gate.server.accounting.limiter.running == 0


async def test_nothing_is_sent_before_the_model_is_known(opened: Open):
    gate = await opened_for_alice(opened)
    body = TAIL.replace(b",", b"{", 1)[:-1] + b',"model":"claude-sonnet-5","stream":true}'
    request = post(body)
    known = len(request) - len(b'"stream":true}')
    client = await gate.client()
    await client.send(request[: known - 1])
    assert await gate.upstream.nobody_comes()
    await client.send(request[known - 1 : known])
    provider = await gate.upstream.accept()
    await provider.until(b'"claude-sonnet-5",')
    await client.send(request[known:])
    await provider.until(b"true}")
    await provider.send(ok())
    assert (await client.message()).status == 200


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_the_last_piece_does_not_pass_where_the_whole_is_refused(opened: Open, framing: str):
    gate = await opened_for_alice(opened)
    body = BODY[:-1] + b',"Model":"x"}'
    whole = post(body) if framing == "length" else post(chunked=True) + chunked(body[:-13], body[-13:])
    begun, rest = whole[:-30], whole[-30:]
    client, provider = await gate.ask(begun)
    await provider.until(b"xxxx")
    await client.send(rest)
    assert (await client.message()).status == 400
    got = (await provider.end()).got
    assert b"Model" not in got
    assert not got.endswith(b"0\r\n\r\n")
    client.close()
    await gate.at_rest()


async def test_a_replay_after_a_renewal_sends_what_was_looked_into(opened: Open):
    gate = await opened_for_alice(opened)
    client, provider = await gate.ask(post(BODY)[:-20])
    await provider.until(b"xxxx")
    await provider.send(REFUSED_401)
    again = await gate.upstream.accept()
    await again.until(b"xxxx")
    await client.send(post(BODY)[-20:])
    await again.until(b'"}]}')
    await again.send(ok())
    assert (await client.message()).status == 200


async def test_a_body_that_turns_bad_during_a_renewal_is_refused(opened: Open):
    gate = await opened_for_alice(opened)
    client, provider = await gate.ask(post(BODY)[:-4])
    await provider.until(b"xxxx")
    gate.tokens.open.clear()
    await provider.send(REFUSED_401)
    await eventually(lambda: gate.tokens.waiting)
    await client.send(b"]}}}")
    assert (await client.message()).status == 400
    gate.tokens.open.set()
    assert await gate.upstream.nobody_comes()
    client.close()
    await gate.at_rest()


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_who_leaves_while_the_model_is_waited_for_leaves_nothing(opened: Open, leave: str):
    gate = await opened_for_alice(opened)
    client = await gate.client()
    await client.send(post(BODY)[: -len(BODY) + 5])
    await eventually(lambda: gate.server.requests == 1)
    getattr(client, leave)()
    await gate.at_rest()
    assert await gate.upstream.nobody_comes()
    assert gate.server.accounting.limiter.running == 0


async def test_where_all_room_for_copies_is_taken_it_is_found_all_the_same(opened: Open):
    gate = await opened_for_alice(opened)
    gate.server.budget = ReplayBudget(0)
    try:
        request = post(TAIL.replace(b",", b"{", 1)[:-1] + b',"model":"claude-sonnet-5"}')
        client = await gate.client()
        await client.send(request[:200])
        await turns(10)
        await client.send(request[200:])
        provider = await gate.upstream.accept()
        assert (await provider.message()).body.endswith(b'"claude-sonnet-5"}')
        await provider.send(ok())
        assert (await client.message()).status == 200
    finally:
        gate.server.budget = ReplayBudget()


async def test_who_waits_to_be_asked_for_the_body_is_asked_once(opened: Open):
    gate = await opened_for_alice(opened)
    client = await gate.client()
    head = post(BODY, fields=b"Expect: 100-continue\r\n")
    await client.send(head[: -len(BODY)])
    assert await client.exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(BODY)
    provider = await gate.upstream.accept()
    assert (await provider.message()).body == BODY
    await provider.send(ok())
    assert (await client.message()).status == 200


async def test_a_body_that_stalls_before_its_model_is_a_408(opened: Open):
    gate = await opened_for_alice(opened)
    client = await gate.client()
    await client.send(post(BODY)[: -len(BODY) + 5])
    await gate.later(62)
    assert (await client.message()).status == 408
    client.close()
    await gate.at_rest()
