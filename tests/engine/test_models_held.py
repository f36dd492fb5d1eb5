"""Who may ask for certain models only gets no other one over HTTP either, and waits for nothing else."""

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
import zstandard
from engine.conftest import Open
from engine.harness import BOB, Gate, get, ok
from engine.harness import post as plain_post
from engine.tunnels import handshake
from engine.wires import Wire, eventually, turns

from ai_mux.proxy.upload import ReplayBudget

MODELS = {"models": ("claude-sonnet-*",)}
TAIL = b',"messages":[{"role":"user","content":"' + b"x" * 50_000 + b'"}]}'
BODY = b'{"model":"claude-sonnet-5"' + TAIL
REFUSED_401 = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


JSON = b"Content-Type: application/json\r\n"


def post(*args: Any, fields: bytes = b"", **more: Any) -> bytes:
    if b"content-type" not in fields.lower():
        fields += JSON
    return plain_post(*args, fields=fields, **more)


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
        (zlib.compress(BODY), b"Content-Encoding: deflate\r\n", 415, "invalid_request_error"),
        (BODY, b"Content-Type: application/x-www-form-urlencoded\r\n", 415, "invalid_request_error"),
        (BODY, JSON + b"Content-Type: text/plain\r\n", 415, "invalid_request_error"),
        (BODY, JSON + JSON, 415, "invalid_request_error"),
        (BODY, b"Content-Type: application/json, text/plain\r\n", 415, "invalid_request_error"),
        (BODY, b"Content-Type: text/plain;x=application/json\r\n", 415, "invalid_request_error"),
    ],
    ids=range(15),
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


# Where its model might stand where nobody looks


async def test_a_body_without_a_type_is_refused_and_told_what_curl_needs(opened: Open):
    gate = await opened_for_alice(opened)
    client = await gate.client()
    await client.send(plain_post(BODY))
    answer = await client.message()
    assert (answer.status, answer.get(b"accept")) == (415, b"application/json")
    assert b"curl needs -H 'Content-Type: application/json'" in answer.body


@pytest.mark.parametrize(
    "asked",
    [
        post(BODY, path=b"/claude/v1/messages/batches"),
        post(BODY, path=b"/claude/v1/other?model=o9"),
        post(b"", path=b"/claude/v1/other"),
        get(b"/claude/v1/other"),
        handshake(path=b"/chatgpt/v1/realtime?model=o9"),
        get(b"/claude/v1/models", method=b"DELETE"),
        post(BODY, path=b"/claude/v1/models"),
    ],
    ids=range(7),
)
async def test_what_only_the_configuration_opens_is_not_for_those_with_models(opened: Open, asked: bytes):
    gate = await opened(paths=("*",), alice=MODELS)
    client = await gate.client()
    await client.send(asked)
    answer = await client.message()
    assert answer.status == 403
    assert b"it is not known here where a request names its model" in answer.body
    assert await gate.upstream.nobody_comes()


@pytest.mark.parametrize(
    "asked",
    [
        post(BODY),
        get(b"/claude/v1/models"),
        get(b"/claude/v1/models/x", method=b"HEAD"),
        post(BODY, path=b"/claude/v1/other", token=BOB),
    ],
    ids=range(4),
)
async def test_the_providers_own_paths_are_and_for_others_all_is_open(opened: Open, asked: bytes):
    gate = await opened(paths=("*",), alice=MODELS)
    client, provider = await gate.ask(asked)
    await provider.until(b"\r\n\r\n")
    await provider.send(ok(b""))
    assert (await client.exactly(15)).startswith(b"HTTP/1.1 200 OK")


# Looking into it costs others nothing

BRACKETS = b'{"model":"claude-sonnet-5","x":[' + b"[]," * 70_000 + b"0]"


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_large_body_is_looked_into_in_many_turns_and_passes_whole(opened: Open, framing: str):
    gate = await opened_for_alice(opened)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        asyncio.get_running_loop().call_soon(tick)

    body = BRACKETS + b"}"
    whole = post(body) if framing == "length" else post(chunked=True) + chunked(body)
    client = await gate.client()
    tick()
    await client.send(whole)
    sent = ticks
    provider = await gate.upstream.accept()
    assert (await provider.message()).body == body
    assert ticks - sent > len(body) / 2**14
    await provider.send(ok())
    assert (await client.message()).status == 200
    await client.send(post(BODY) + post(BODY))  # the connection goes on, and what is pipelined waits
    for _ in range(2):
        assert (await provider.message()).body == BODY
        await provider.send(ok())
        assert (await client.message()).status == 200


async def test_what_is_pipelined_behind_a_body_that_is_looked_into_comes_next(opened: Open):
    gate = await opened_for_alice(opened)
    body = gzip.compress(BODY)
    client, provider = await gate.ask(post(body, fields=b"Content-Encoding: gzip\r\n") + post(BODY))
    assert (await provider.message()).body == body
    await provider.send(ok())
    assert (await provider.message()).body == BODY
    await provider.send(ok())
    assert [(await client.message()).status for _ in range(2)] == [200, 200]


async def test_of_a_large_body_nothing_passes_that_is_refused_at_its_end(opened: Open):
    gate = await opened_for_alice(opened)
    client = await gate.client()
    await client.send(post(BRACKETS + b',"model":"x"}'))
    answer = await client.message()
    assert answer.status == 400
    client.close()
    await gate.at_rest()


async def test_a_few_bytes_cannot_stand_for_much_work(opened: Open):
    gate = await opened_for_alice(opened)
    client = await gate.client()
    await client.send(post(gzip.compress(BRACKETS + b"}", 9), fields=b"Content-Encoding: gzip\r\n"))
    answer = await client.message()
    assert (answer.status, b"for a body that is packed so well" in answer.body) == (400, True)
    assert await gate.upstream.nobody_comes()


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_who_leaves_while_a_body_is_looked_into_leaves_nothing(opened: Open, leave: str):
    gate = await opened_for_alice(opened)
    client = await gate.client()
    await client.send(post(BRACKETS + b"}"))
    await eventually(lambda: gate.server.requests == 1)
    getattr(client, leave)()
    await gate.at_rest()
    assert gate.server.accounting.limiter.running == 0
