"""What a request used ends up in the books, whatever happens to the request; the request never notices."""

import gzip
import json
import random
import zlib

import brotli
import pytest
import zstandard
from engine.conftest import Open
from engine.harness import ALICE, BOB, Gate, get, ok, post
from engine.wires import Ended, Wire, eventually

from ai_mux.limits import Limits, Quantity, Rule
from ai_mux.usage.tally import NO_TOKENS, Tokens

MODEL = "claude-sonnet-4-5-20250929"
USED = Tokens(input=11, cache_read=700, cache_write_5m=40, cache_write_1h=9, output=321)


def event(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def usage(tokens: Tokens) -> dict[str, object]:
    """Return Anthropic's words for these tokens."""
    return {
        "input_tokens": tokens.input,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation_input_tokens": tokens.cache_write_5m + tokens.cache_write_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": tokens.output,
    }


def stream(tokens: Tokens = USED) -> bytes:
    """Return the events of one answer that used ``tokens``."""
    begun = {"id": "msg_1", "model": MODEL, "usage": usage(tokens._replace(output=1))}
    delta = {"type": "text_delta", "text": 'no "usage": {"output_tokens": 999999} here'}
    return (
        event("message_start", message=begun)
        + event("ping")
        + b"".join(event("content_block_delta", index=0, delta=delta) for _ in range(20))
        + event("message_delta", delta={}, usage={"output_tokens": tokens.output})
        + event("message_stop")
    )


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"anthropic-ratelimit-unified-5h-utilization: 0.25\r\n"
    b"anthropic-ratelimit-unified-5h-reset: 1900000000\r\n\r\n"
)
JSON = b"Content-Type: application/json\r\n"
DOCUMENT = json.dumps({"id": "msg_1", "model": MODEL, "content": [], "usage": usage(USED)}).encode()


async def row(gate: Gate):
    """Return the only row, once it is there."""
    await eventually(lambda: gate.rows.records, what="no row was entered")
    (one,) = gate.rows.records
    return one


async def answered(gate: Gate, request: bytes, answer: bytes) -> Wire:
    client, provider = await gate.ask(request)
    await provider.message()
    await provider.send(answer)
    assert (await client.message()).status == int(answer.split(b" ")[1])
    return client


# What is read


async def test_a_stream(gate: Gate):
    await answered(gate, post(), STREAM_HEAD + chunks(stream()) + b"0\r\n\r\n")
    one = await row(gate)
    assert (one.tokens, one.metering, one.model, one.status) == (USED, "whole", MODEL, 200)
    assert (one.user, one.provider, one.credential) == ("alice", "claude", "claude:login")
    assert (one.path, one.ended_at) == ("/claude/v1/messages", gate.clock.now)
    assert one.request_id.startswith("amx_")
    assert (one.bytes_in, one.bytes_out) == (2, len(chunks(stream()) + b"0\r\n\r\n"))
    assert one.cost is not None and one.cost > 0


@pytest.mark.parametrize("seed", range(12))
async def test_a_stream_that_is_cut_into_any_pieces_and_any_chunks(gate: Gate, seed: int):
    chance = random.Random(seed)
    sent = Tokens()
    whole = b""
    client, provider = await gate.ask(post() * 3)
    for _ in range(3):
        used = Tokens(*(chance.randrange(10**6) for _ in USED))
        sent = Tokens(*map(sum, zip(sent, used, strict=True)))
        body = stream(used)
        at = sorted(chance.sample(range(1, len(body)), 30))
        whole = (
            STREAM_HEAD
            + chunks(*(body[i:j] for i, j in zip([0, *at], [*at, None], strict=True)))
            + b"0\r\n\r\n"
        )
        await provider.message()
        await provider.send_slowly(whole, chance.sample(range(len(whole)), 25))
        assert (await client.message()).body == body
    await eventually(lambda: len(gate.rows.records) == 3)
    kept = [one.tokens for one in gate.rows.records]
    assert Tokens(*map(sum, zip(*kept, strict=True))) == sent
    assert {one.metering for one in gate.rows.records} == {"whole"}


async def test_a_document(gate: Gate):
    await answered(gate, post(), ok(DOCUMENT, JSON))
    assert (await row(gate))[8:10] == ("whole", USED)


@pytest.mark.parametrize("framing", ["length", "chunked", "until close"])
@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        (b"gzip", gzip.compress),
        (b"deflate", zlib.compress),
        (b"br", brotli.compress),
        (b"zstd", zstandard.ZstdCompressor().compress),
    ],
)
async def test_field_note_6_an_encoded_body_passes_as_it_is_and_is_read_all_the_same(
    gate, coding, encode, framing
):
    body = encode(stream())
    fields = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: %b\r\n" % coding
    client, provider = await gate.ask(post(fields=b"Accept-Encoding: gzip, deflate, br, zstd\r\n"))
    await provider.message()
    if framing == "length":
        await provider.send_slowly(
            fields + b"Content-Length: %d\r\n\r\n" % len(body) + body, list(range(300, 420))
        )
    elif framing == "chunked":
        await provider.send(
            fields + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(body[:50], body[50:]) + b"0\r\n\r\n"
        )
    else:
        await provider.send(fields + b"Connection: close\r\n\r\n" + body)
        provider.close()
    if framing == "until close":
        assert (await client.end()).got.endswith(body)
    else:
        assert (await client.message()).body == body
    assert (await row(gate))[8:10] == ("whole", USED)


async def test_for_a_client_of_http_1_0_chunks_are_undone_and_read(gate: Gate):
    client, provider = await gate.ask(post().replace(b"HTTP/1.1", b"HTTP/1.0"))
    await provider.message()
    await provider.send(STREAM_HEAD + chunks(stream()[:100], stream()[100:]) + b"0\r\n\r\n")
    assert (await client.end()).got.endswith(stream())
    assert (await row(gate))[8:10] == ("whole", USED)


async def test_openai_speaks_of_its_tokens_in_other_words(gate: Gate):
    said = {
        "input_tokens": 90,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 7,
        "total_tokens": 97,
    }
    done = {"id": "resp_1", "model": "gpt-5.5", "usage": said}
    body = event("response.created", response={"model": "gpt-5.5", "usage": None}) + event(
        "response.completed", response=done
    )
    await answered(gate, post(path=b"/chatgpt/v1/responses"), STREAM_HEAD + chunks(body) + b"0\r\n\r\n")
    one = await row(gate)
    assert (one.tokens, one.model, one.metering) == (
        Tokens(input=30, cache_read=60, output=7),
        "gpt-5.5",
        "whole",
    )
    assert (one.provider, one.credential) == ("chatgpt", "chatgpt:login")


async def test_the_model_is_the_requests_where_the_response_does_not_say(gate: Gate):
    refused = b"HTTP/1.1 529 Overloaded\r\nContent-Length: 2\r\n\r\n{}"
    await answered(gate, post(b'{"max_tokens": 9, "model" : "claude-made-up-9"}'), refused)
    one = await row(gate)
    assert (one.model, one.status, one.metering, one.tokens) == ("claude-made-up-9", 529, "none", NO_TOKENS)


@pytest.mark.parametrize("is_there_at_once", [True, False])
async def test_the_model_is_the_requests_where_an_answer_does_not_name_it(gate: Gate, is_there_at_once: bool):
    answer = ok(json.dumps({"id": "msg_1", "usage": usage(USED)}).encode(), JSON)
    head = answer.index(b"\r\n\r\n") + 4
    packed = zstandard.ZstdCompressor().compress(b'{"model":"made-up-7"}')
    client, provider = await gate.ask(post(packed, fields=b"Content-Encoding: zstd\r\n"))
    await provider.message()
    if not is_there_at_once:
        await provider.send(answer[:head])
        await client.until(b"\r\n\r\n")
        answer = answer[head:]
    await provider.send(answer)
    one = await row(gate)
    assert (one.model, one.metering, one.tokens) == ("made-up-7", "whole", USED)


# What cannot be read


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (b"Content-Type: application/json\r\n", b'{"id":"x"}'),
        (b"Content-Type: application/json\r\n", b'{"usage":{"input_tokens":-4,"output_tokens":"many"}}'),
        (b"Content-Type: application/json\r\n", b"no json at all"),
        (b"Content-Type: text/plain\r\n", b"hello"),
        (b"", b"hello"),
        (b"Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n", b"this is not gzip"),
        (b"Content-Type: text/event-stream\r\nContent-Encoding: rot13\r\n", b"uryyb"),
        (b"Content-Type: text/event-stream\r\n", event("ping")),
    ],
)
async def test_what_cannot_be_read_passes_and_is_seen_as_unmetered(gate: Gate, fields: bytes, body: bytes):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(ok(body, fields))
    assert (await client.message()).body == body
    one = await row(gate)
    assert (one.metering, one.tokens, one.cost) == ("unmetered", NO_TOKENS, None)


async def test_field_note_20_counting_tokens_is_no_use(gate: Gate):
    counted = b'{"input_tokens": 4000, "usage": {"input_tokens": 4000, "output_tokens": 0}}'
    await answered(gate, post(path=b"/claude/v1/messages/count_tokens"), ok(counted, JSON))
    one = await row(gate)
    assert (one.metering, one.tokens, one.status) == ("none", NO_TOKENS, 200)


async def test_nothing_is_read_where_the_operator_wants_nothing_kept(opened: Open):
    gate = await opened(metered=False)
    await answered(gate, post(), ok(DOCUMENT, JSON))
    assert (await row(gate))[8:10] == ("none", NO_TOKENS)


# What was cut


async def test_field_note_17_what_a_cut_stream_had_used_is_kept(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(STREAM_HEAD + chunks(stream()[:600]))
    provider.reset()
    with pytest.raises(Ended):
        await client.message()
    one = await row(gate)
    assert (one.metering, one.tokens, one.model) == ("partial", USED._replace(output=1), MODEL)


async def test_field_note_17_what_was_used_when_the_client_left_is_kept(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(STREAM_HEAD + chunks(stream()[:600]))
    await client.until(b"\r\n\r\n")
    client.reset()
    await provider.end()
    one = await row(gate)
    assert (one.metering, one.tokens, one.status) == ("partial", USED._replace(output=1), 200)


async def test_field_note_17_a_client_that_leaves_before_anything_came_leaves_an_unmetered_row(gate: Gate):
    client, provider = await gate.ask(post(b'{"model":"m"}'))
    await provider.message()
    client.reset()
    one = await row(gate)
    assert (one.status, one.metering, one.tokens, one.head_ms, one.model) == (
        0,
        "unmetered",
        NO_TOKENS,
        None,
        "m",
    )


# Who has no row


async def test_strangers_probes_and_pages_have_no_row(gate: Gate):
    for request in (
        post(token=b"a-made-up-stranger"),
        b"HEAD /claude HTTP/1.1\r\nHost: h\r\n\r\n",
        get(b"/usage"),
    ):
        client = await gate.client()
        await client.send(request)
        await client.until(b"\r\n\r\n")
    assert not gate.rows.records


async def test_a_refusal_of_ours_has_a_row(gate: Gate):
    client = await gate.client()
    await client.send(get(b"/claude/v1/files"))
    assert (await client.message()).status == 403
    one = await row(gate)
    assert (one.status, one.user, one.provider, one.metering) == (403, "alice", "claude", "none")


# One's own page


@pytest.mark.parametrize(("token", "name"), [(ALICE, b"alice"), (BOB, b"bob")])
async def test_field_note_12_everyone_sees_their_own_page(gate: Gate, token: bytes, name: bytes):
    client = await gate.client()
    for _ in range(2):
        await client.send(get(b"/usage").replace(ALICE, token))
        seen = await client.message()
        assert (seen.status, seen.body) == (200, b'{"user":"%b"}' % name)
        assert (seen.get(b"content-type"), seen.get(b"cache-control")) == (b"application/json", b"no-store")


async def test_a_page_is_only_read(gate: Gate):
    client = await gate.client()
    await client.send(post(path=b"/usage"))
    seen = await client.message()
    assert (seen.status, seen.get(b"allow")) == (405, b"GET, HEAD")


async def test_a_stranger_sees_no_page(gate: Gate):
    client = await gate.client()
    await client.send(get(b"/usage").replace(ALICE, b"a-made-up-stranger"))
    assert (await client.message()).status == 401


# The provider's own limits


async def test_field_note_26_the_providers_windows_are_remembered_as_they_pass_by(gate: Gate):
    await answered(gate, post(), STREAM_HEAD + chunks(stream()) + b"0\r\n\r\n")
    assert "claude:login" in str(gate.windows.shown(gate.clock.now))
    assert "0.25" in str(gate.windows.shown(gate.clock.now))


async def test_field_note_6_the_model_of_a_packed_request_is_found_in_it(gate: Gate):
    packed = zstandard.ZstdCompressor().compress(b'{"model":"made-up-5","input":"' + b"x" * 50_000 + b'"}')
    refused = b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\n{}"
    await answered(gate, post(packed, fields=b"Content-Encoding: zstd\r\n"), refused)
    assert (await row(gate)).model == "made-up-5"


async def test_the_model_of_a_request_that_we_refuse_stands_in_its_row_too(gate: Gate):
    gate.tokens.gone = "no credential"
    client = await gate.client()
    await client.send(post(b'{"model":"made-up-6"}'))
    assert (await client.message()).status == 503
    one = await row(gate)
    assert (one.model, one.metering, one.bytes_in) == ("made-up-6", "none", 21)


async def test_what_a_provider_that_broke_off_may_have_done_is_unmetered_and_what_it_refused_is_nothing(
    gate: Gate,
):
    client, provider = await gate.ask(post(b'{"model":"m"}'))
    await provider.message()
    provider.close()
    assert (await client.message()).status == 502
    one = await row(gate)
    assert (one.status, one.metering, one.model) == (502, "unmetered", "m")


async def test_a_request_that_no_provider_saw_does_not_count(opened: Open):
    rule = Rule(quantity=Quantity.REQUESTS, amount=1, window_s=3600, text="1/h")
    gate = await opened(alice={"models": ("good-*",), "limits": Limits(concurrent=1, rules=(rule,))})
    json_type = b"Content-Type: application/json\r\n"
    for body, status in ((b'{"model":"bad"}', 403), (b"{}", 400), (b'{"model":"bad"}', 403)):
        client = await gate.client()
        await client.send(post(body, fields=json_type))
        assert (await client.message()).status == status
    await answered(gate, post(b'{"model":"good-1"}', fields=json_type), ok(DOCUMENT, JSON))
    client = await gate.client()
    await client.send(post(b'{"model":"good-1"}', fields=json_type))
    assert (await client.message()).status == 429
    assert gate.server.accounting.limiter.running == 0
    assert [one.status for one in gate.rows.records] == [403, 400, 403, 200, 429]
