"""What streams of events used is read however their bytes are cut, and nothing in them passes for it."""

import gzip
import itertools
import json
import tracemalloc
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from spoken import (
    BLANK_RESPONSE,
    CHAT_CHUNKS,
    CHAT_READING,
    CHAT_STREAM,
    CHAT_STREAM_UNASKED,
    CHAT_USAGE,
    CHUNK,
    LAST_CHUNK,
    MESSAGE_DELTA,
    MESSAGE_DELTAS,
    MESSAGE_EVENTS,
    MESSAGE_READING,
    MESSAGE_START,
    MESSAGE_STREAM,
    MESSAGE_USAGE,
    RESPONSE,
    RESPONSE_COMPLETED,
    RESPONSE_DELTAS,
    RESPONSE_EVENTS,
    RESPONSE_READING,
    RESPONSE_STREAM,
    WINDOWS,
    compact,
    sse,
)

from ai_mux.usage.meter import Meter, meter_for
from ai_mux.usage.tally import NO_TOKENS, NOTHING_READ, Reading, Tokens
from ai_mux.wire.answers import Dialect

MIB = 1024 * 1024
ANTHROPIC, OPENAI = Dialect.ANTHROPIC, Dialect.OPENAI
UNMETERED = Reading(NO_TOKENS, "unmetered")
PACK = {
    b"": bytes,
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": lambda data: brotli.compress(data, quality=1),
    b"zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def metering(dialect: Dialect, *, coding: bytes = b"", kind: bytes = b"text/event-stream") -> Meter:
    return meter_for(dialect, content_type=kind, content_encoding=coding)


def read(
    dialect: Dialect, *pieces: bytes, whole: bool = True, look_every: int = 1, coding: bytes = b""
) -> Reading:
    meter = metering(dialect, coding=coding)
    for piece in pieces:
        meter.take(piece)
        if len(meter.pieces) >= look_every:
            meter.look()
            assert meter.pieces == []
    reading = meter.close(whole=whole)
    assert meter.pieces == []
    return reading


STREAMS = {
    "a message": (ANTHROPIC, MESSAGE_STREAM, MESSAGE_READING),
    "a response": (OPENAI, RESPONSE_STREAM, RESPONSE_READING),
    "a chat": (OPENAI, CHAT_STREAM, CHAT_READING),
    "a chat whose usage was not asked for": (
        OPENAI,
        CHAT_STREAM_UNASKED,
        Reading(NO_TOKENS, "unmetered", "gpt-5.5-mini-2026-01-01"),
    ),
    "an error": (
        ANTHROPIC,
        sse({"type": "ping"}) + sse({"type": "error", "error": {"type": "x"}}),
        NOTHING_READ,
    ),
    "an error in the middle": (
        ANTHROPIC,
        sse(MESSAGE_START)
        + sse(MESSAGE_DELTAS[2])
        + sse({"type": "error", "error": {"type": "overloaded_error"}}),
        Reading(Tokens(21, 4000, 300, 400, 1), "partial", "claude-sonnet-4-5-20250929", "standard"),
    ),
}
ALL = pytest.mark.parametrize(("dialect", "stream", "reading"), STREAMS.values(), ids=STREAMS)
cuts = st.lists(st.integers(0, 10**6), max_size=20)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


@ALL
@given(cuts, st.integers(1, 20), st.sampled_from(list(PACK)))
def test_a_stream_reads_the_same_however_its_bytes_are_cut(dialect, stream, reading, at, look_every, coding):
    assert read(dialect, *cut(PACK[coding](stream), at), look_every=look_every, coding=coding) == reading


@ALL
def test_a_stream_reads_the_same_byte_by_byte(dialect, stream, reading):
    assert read(dialect, *(stream[at : at + 1] for at in range(len(stream)))) == reading


WRITTEN = {
    "CRLF": lambda stream: stream.replace(b"\n", b"\r\n"),
    "no blank after the colon": lambda stream: stream.replace(b"data: ", b"data:"),
    "a byte order mark": lambda stream: b"\xef\xbb\xbf" + stream,
    "a mark before data": lambda stream: b"\xef\xbb\xbf" + stream[stream.index(b"data") :],
    "comments": lambda stream: (
        b': "usage":{"input_tokens":3}\n\n' + stream.replace(b"\n\n", b"\n:\n\n: x\n\n")
    ),
    "other fields": lambda stream: (
        b'id: "usage"\n' + stream.replace(b"\ndata: ", b'\nid: "usage"\nretry: 3\ndata: ')
    ),
    "no blank line at the end": lambda stream: stream.rstrip(b"\n"),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
@ALL
def test_a_stream_may_be_written_in_several_ways(dialect, stream, reading, written):
    stream = written(stream)
    assert read(dialect, stream) == reading
    assert read(dialect, *(stream[at : at + 1] for at in range(len(stream)))) == reading


def spread(event: dict[str, object]) -> bytes:
    """An event with blanks between its tokens, its type last."""
    event = dict(event)
    kind = event.pop("type")
    return b"data: " + json.dumps({**event, "type": kind}, separators=(" , ", " : ")).encode() + b"\n\n"


def test_blanks_and_the_order_of_members_do_not_matter():
    assert read(ANTHROPIC, *map(spread, MESSAGE_EVENTS)) == MESSAGE_READING
    meter = metering(OPENAI)
    for event in RESPONSE_EVENTS:
        meter.take(spread(event))
    assert meter.close(whole=True) == RESPONSE_READING
    assert meter.windows == WINDOWS


# Nothing passes for usage

texts = st.lists(
    st.sampled_from(
        [
            '"usage":',
            '{"input_tokens":77}',
            "\n",
            "\\",
            '"',
            "data: ",
            "}",
            '{"type":"message_delta",',
            "word",
            "é",
        ]
    ),
    max_size=12,
).map("".join)


@given(texts, texts, cuts)
def test_no_text_passes_for_usage(text, argument, at):
    said = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    called = {
        "type": "content_block_start",
        "content_block": {"type": "x", "input": {argument: 1, "usage": {text: 1}}},
    }
    stream = b"".join(map(sse, [MESSAGE_START, said, called, said, MESSAGE_DELTA]))
    assert read(ANTHROPIC, *cut(stream, at)) == MESSAGE_READING
    response = {**RESPONSE, "instructions": text, "output": [{"text": text, "usage": {"input_tokens": 9}}]}
    response["metadata"] = {argument: text}
    delta = {"type": "response.output_text.delta", "delta": text}
    created = {"type": "response.created", "response": {**response, "usage": None}}
    stream = b"".join(map(sse, [created, delta, {"type": "response.completed", "response": response}]))
    assert read(OPENAI, *cut(stream, at)) == RESPONSE_READING


# Cumulative figures


@given(st.permutations([MESSAGE_START, MESSAGE_DELTA, *MESSAGE_DELTAS]), st.data())
def test_repeated_events_and_events_out_of_order_count_nothing_twice(events, data):
    repeated = data.draw(st.lists(st.sampled_from(events), max_size=5))
    assert read(ANTHROPIC, *map(sse, [*events, *repeated])) == MESSAGE_READING
    assert (
        read(OPENAI, *map(sse, [RESPONSE_COMPLETED, *RESPONSE_DELTAS, RESPONSE_COMPLETED]))
        == RESPONSE_READING
    )
    assert read(OPENAI, *map(sse, [LAST_CHUNK, *CHAT_CHUNKS, LAST_CHUNK])) == CHAT_READING


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
def test_of_cumulative_figures_the_largest_counts(outputs):
    deltas = [{**MESSAGE_DELTA, "usage": {"output_tokens": count, "input_tokens": 22}} for count in outputs]
    assert read(ANTHROPIC, *map(sse, [MESSAGE_START, *deltas])).tokens == (
        22,
        4000,
        300,
        400,
        max(1, *outputs),
    )


def test_cache_writes_that_are_split_once_are_counted_once():
    delta = {**MESSAGE_DELTA, "usage": {**MESSAGE_USAGE, "cache_creation": None, "output_tokens": 88}}
    assert read(ANTHROPIC, sse(MESSAGE_START), sse(delta)) == MESSAGE_READING
    grown = {**MESSAGE_DELTA, "usage": {"cache_creation_input_tokens": 750, "output_tokens": 88}}
    assert read(ANTHROPIC, sse(MESSAGE_START), sse(grown)).tokens == (21, 4000, 350, 400, 88)


# How whole it is


@ALL
def test_what_a_cut_stream_had_used_is_kept(dialect, stream, reading):
    seen = []
    for end in range(len(stream) + 1):
        part = read(dialect, stream[:end], whole=False)
        assert all(had <= has for had, has in zip(part.tokens, reading.tokens, strict=True))
        seen.append((sum(part.tokens), part.metering))
    assert [tokens for tokens, _ in seen] == sorted(tokens for tokens, _ in seen)
    order = ["unmetered", "partial", "whole"]
    ways = [order.index(way) for _, way in seen if way != "none"]
    spoilt_on_the_way = [way for way in ways if way != 1]  # by a line that was cut
    assert spoilt_on_the_way == sorted(spoilt_on_the_way)
    assert seen[-1] == (sum(reading.tokens), reading.metering)


def test_a_stream_whose_last_figures_came_is_whole_whoever_left():
    until_delta = b"".join(map(sse, MESSAGE_EVENTS[:-1]))
    assert read(ANTHROPIC, until_delta, whole=False) == MESSAGE_READING
    assert read(OPENAI, RESPONSE_STREAM, whole=False) == RESPONSE_READING
    assert read(OPENAI, CHAT_STREAM.removesuffix(b"data: [DONE]\n\n"), whole=False) == CHAT_READING


def test_figures_that_may_not_be_the_last_make_it_whole_only_at_its_end():
    running = {**MESSAGE_DELTA, "delta": {"stop_reason": None}}
    for whole, metering_ in ((True, "whole"), (False, "partial")):
        assert read(ANTHROPIC, sse(MESSAGE_START), sse(running), whole=whole) == MESSAGE_READING._replace(
            metering=metering_
        )
    chunks = [{**chunk, "usage": CHAT_USAGE} for chunk in CHAT_CHUNKS]
    for whole, metering_ in ((True, "whole"), (False, "partial")):
        assert read(OPENAI, *map(sse, chunks), whole=whole) == CHAT_READING._replace(metering=metering_)


def test_a_stream_that_only_began_is_partial():
    begun = MESSAGE_READING._replace(tokens=Tokens(21, 4000, 300, 400, 1), metering="partial")
    for whole in (True, False):
        assert read(ANTHROPIC, sse(MESSAGE_START), *map(sse, MESSAGE_DELTAS), whole=whole) == begun


def test_last_figures_without_the_first_are_partial():
    assert read(ANTHROPIC, sse(MESSAGE_DELTA)) == Reading(Tokens(output=88), "partial")


def test_a_response_that_failed_used_what_it_says():
    failed = {"type": "response.failed", "response": {**RESPONSE, "status": "failed"}}
    incomplete = {"type": "response.incomplete", "response": {**RESPONSE, "status": "incomplete"}}
    for event in (failed, incomplete):
        assert read(OPENAI, sse(event)) == RESPONSE_READING
    refused = {
        "type": "response.failed",
        "response": {**BLANK_RESPONSE, "error": {"code": "rate_limit_exceeded"}},
    }
    assert read(OPENAI, sse(refused)) == NOTHING_READ._replace(model="gpt-5.5")
    silent = {"type": "response.completed", "response": {"id": "resp_made_up"}}
    assert read(OPENAI, sse(silent)) == UNMETERED


@pytest.mark.parametrize(
    "event", [{"type": "error", "code": "x", "message": "m"}, {"error": {"message": "m"}}]
)
def test_an_error_in_the_place_of_an_answer_used_nothing(event):
    assert read(OPENAI, sse(event, named=False)) == NOTHING_READ
    assert read(OPENAI, sse(WINDOWS), sse(event, named=False)) == NOTHING_READ


def test_a_response_that_ended_in_an_error_may_have_used_something():
    created = {"type": "response.created", "response": BLANK_RESPONSE}
    error = {"type": "error", "code": "server_error", "message": "m"}
    assert read(OPENAI, sse(created), sse(error)) == UNMETERED._replace(model="gpt-5.5")


# What else is used, and said


def test_what_the_server_used_beside_the_answer_is_added():
    beside = {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 40,
    }
    split = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}
    usage = {
        **MESSAGE_USAGE,
        "output_tokens": 88,
        "iterations": [
            {"type": "message", "input_tokens": 5, "output_tokens": 5},
            {"type": "compaction", **beside},
            {"type": "advisor_message", "model": "claude-opus-4-8", "cache_creation": split, **beside},
            {"type": ["compaction"]},
            {"type": "unknown", **beside},
            "message",
            None,
        ],
    }
    reading = read(ANTHROPIC, sse(MESSAGE_START), sse({**MESSAGE_DELTA, "usage": usage}))
    assert reading == MESSAGE_READING._replace(tokens=Tokens(41, 4060, 780 - 402, 402, 128))


@pytest.mark.parametrize("wrong", [-5, "5", 2.0, True, 10**30])
def test_what_is_wrong_beside_the_answer_makes_it_partial(wrong):
    beside = [{"type": "compaction", "input_tokens": wrong, "output_tokens": 7}]
    delta = {**MESSAGE_DELTA, "usage": {"input_tokens": 30, "output_tokens": 88, "iterations": beside}}
    assert read(ANTHROPIC, sse(MESSAGE_START), sse(delta)) == MESSAGE_READING._replace(
        tokens=Tokens(21, 4000, 300, 400, 95), metering="partial"
    )


def test_a_tier_is_what_the_provider_says_it_was():
    created = {"type": "response.created", "response": BLANK_RESPONSE}
    assert read(OPENAI, sse(created), sse(RESPONSE_COMPLETED)).tier == "default"
    start = {"type": "message_start", "message": {"usage": {**MESSAGE_USAGE, "speed": "fast"}}}
    late = {**MESSAGE_DELTA, "usage": {"output_tokens": 1, "service_tier": "standard"}}
    assert read(ANTHROPIC, sse(start), sse(late)).tier == "fast"
    assert read(ANTHROPIC, sse(MESSAGE_START), sse(late)).tier == "standard"


@pytest.mark.parametrize(
    "model", [None, 7, "", "x" * 129, "a\nb", "m\u00e9", "\ud800", ["m"], {"m": 1}, True]
)
def test_what_is_no_name_is_no_model(model):
    start = {
        "type": "message_start",
        "message": {"model": model, "usage": {"input_tokens": 3, "service_tier": model}},
    }
    assert read(ANTHROPIC, sse(start)) == Reading(Tokens(3), "partial")
    chunk = {**CHUNK, "model": model, "service_tier": model, "usage": CHAT_USAGE, "choices": []}
    assert read(OPENAI, sse(chunk)) == CHAT_READING._replace(model=None, tier=None)


def test_the_last_word_on_the_providers_windows_is_kept():
    later = {**WINDOWS, "rate_limits": {"primary": {"used_percent": 43}}}
    meter = metering(OPENAI)
    assert meter.windows is None
    for piece in (sse(WINDOWS), RESPONSE_STREAM, sse(later)):
        meter.take(piece)
    assert meter.close(whole=True) == RESPONSE_READING
    assert meter.windows == later


def test_windows_of_an_absurd_size_are_not_kept():
    meter = metering(OPENAI)
    meter.take(sse(WINDOWS) + sse({**WINDOWS, "x": "y" * 20_000}))
    meter.close(whole=True)
    assert meter.windows == WINDOWS


# Bad input

WRONG = [-1, 10**9 + 1, 2**53, 10**30, True, False, 1.0, 1e300, "12", [], {}, [5], {"a": 5}]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize(
    "field", [name for name in MESSAGE_USAGE if name not in {"cache_creation", "service_tier"}]
)
def test_a_figure_that_is_none_is_not_taken_and_makes_it_partial(field, wrong):
    start = {
        "type": "message_start",
        "message": {**MESSAGE_START["message"], "usage": {**MESSAGE_USAGE, field: wrong}},
    }
    reading = read(ANTHROPIC, sse(start), sse(MESSAGE_DELTA))
    without = {
        "input_tokens": Tokens(0, 4000, 300, 400, 88),
        "cache_read_input_tokens": Tokens(21, 0, 300, 400, 88),
    }
    assert reading == MESSAGE_READING._replace(
        tokens=without.get(field, MESSAGE_READING.tokens), metering="partial"
    )


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_other_figures_that_are_none_are_not_taken_either(wrong):
    def of(**usage: object) -> Reading:
        response = {**RESPONSE, "usage": {**RESPONSE["usage"], **usage}}
        return read(OPENAI, sse({"type": "response.completed", "response": response}))

    part = RESPONSE_READING._replace(metering="partial")
    assert of(input_tokens=wrong) == part._replace(tokens=Tokens(output=345))
    assert of(output_tokens=wrong) == part._replace(tokens=Tokens(76, 1024, 100, 0, 0))
    cached = {"cached_tokens": wrong, "cache_write_tokens": 100}
    assert of(input_tokens_details=cached) == part._replace(tokens=Tokens(1100, 0, 100, 0, 345))
    if wrong not in ({}, {"a": 5}):  # an object without the figure does not say it
        assert of(input_tokens_details=wrong) == part._replace(tokens=Tokens(1200, 0, 0, 0, 345))
        split = {**MESSAGE_START["message"], "usage": {**MESSAGE_USAGE, "cache_creation": wrong}}
        events = [{"type": "message_start", "message": split}, MESSAGE_DELTA]
        assert read(ANTHROPIC, *map(sse, events)) == MESSAGE_READING._replace(
            tokens=Tokens(21, 4000, 700, 0, 88), metering="partial"
        )


def cached(given: int, **details: object) -> Tokens:
    usage = {"input_tokens": given, "input_tokens_details": details, "output_tokens": 1}
    return read(OPENAI, sse({"type": "response.completed", "response": {"usage": usage}})).tokens


def test_cache_writes_are_split_by_how_long_they_are_kept():
    split = {"ttl_30m_tokens": 30, "ttl_12h_tokens": 12}
    assert cached(100, cached_tokens=8, cache_write_tokens=42, cache_write_tokens_details=split) == (
        50,
        8,
        30,
        12,
        1,
    )
    assert cached(100, cache_write_tokens=50, cache_write_tokens_details=split) == (50, 0, 38, 12, 1)
    assert cached(100, cache_write_tokens_details=split) == (58, 0, 30, 12, 1)
    assert cached(100, cache_write_tokens=50, cache_write_tokens_details=None) == (50, 0, 50, 0, 1)


def test_a_part_is_never_more_than_the_whole():
    assert cached(10, cached_tokens=11) == (0, 10, 0, 0, 1)
    assert cached(10, cached_tokens=4, cache_write_tokens=7) == (0, 4, 6, 0, 1)
    assert cached(10, cache_write_tokens=11) == (0, 0, 10, 0, 1)
    assert cached(0, cached_tokens=5, cache_write_tokens=5) == (0, 0, 0, 0, 1)
    split = {"ttl_30m_tokens": 9, "ttl_12h_tokens": 9}
    assert cached(10, cache_write_tokens=18, cache_write_tokens_details=split) == (0, 0, 1, 9, 1)
    assert cached(10, cached_tokens=6, cache_write_tokens_details=split) == (0, 6, 0, 4, 1)


BROKEN = [
    b'data: {"type":"message_delta","usage":{"output_tokens":1\n\n',
    b'data: {"type":"message_delta","usage":' + b"[" * 100_000 + b"\n\n",
    b'data: {"type":"message_delta","usage":{"output_tokens":' + b"9" * 5000 + b"}}\n\n",
    b'data: {"type":"message_delta","usage":7}\n\n',
    b'data: {"type":"message_delta","usage":[]}\n\n',
    b'data: ["usage"]\n\n',
    b'data: "usage"\n\n',
    b'data: {"usage":"\xff"}\n\n',
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken[:40].decode("latin-1"))
def test_an_event_that_cannot_be_read_makes_it_partial(broken):
    assert read(ANTHROPIC, sse(MESSAGE_START) + broken + sse(MESSAGE_DELTA)) == MESSAGE_READING._replace(
        metering="partial"
    )
    assert read(ANTHROPIC, broken) == UNMETERED


def test_an_event_of_a_type_that_tells_nothing_is_not_parsed():
    other = (
        b'data: {"type":"content_block_start","content_block":{"input":{"usage":' + b"[" * 100_000 + b"\n\n"
    )
    assert read(ANTHROPIC, sse(MESSAGE_START) + other + sse(MESSAGE_DELTA)) == MESSAGE_READING


def test_an_error_before_figures_that_cannot_be_read_is_not_the_whole_truth():
    error = sse({"type": "error", "error": {"type": "x"}})
    assert read(ANTHROPIC, error + BROKEN[0]) == UNMETERED


def test_last_figures_without_output_are_not_the_last():
    silent = {**MESSAGE_DELTA, "usage": {"input_tokens": 21}}
    assert read(ANTHROPIC, sse(MESSAGE_START), sse(silent)).metering == "partial"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_start"},
        {"type": "message_start", "message": None},
        {"type": "message_start", "message": [1], "usage": 1},
        {"type": ["message_start"], "message": MESSAGE_START["message"]},
        {"type": {}, "usage": MESSAGE_USAGE},
        {"type": None, "message": MESSAGE_START["message"]},
        {"type": "message_delta"},
        {"type": "message_delta", "delta": 5, "usage": None},
    ],
)
def test_an_event_of_another_shape_is_passed_over(event):
    assert read(ANTHROPIC, sse(event, named=False)) == UNMETERED
    assert read(ANTHROPIC, sse(event, named=False) + MESSAGE_STREAM) == MESSAGE_READING
    assert read(OPENAI, sse(event, named=False) + RESPONSE_STREAM).tokens == RESPONSE_READING.tokens


def test_a_line_without_end_is_not_kept():
    for before, reading in (
        (b"", UNMETERED),
        (
            sse(MESSAGE_START),
            MESSAGE_READING._replace(tokens=Tokens(21, 4000, 300, 400, 1), metering="partial"),
        ),
    ):
        meter = metering(ANTHROPIC)
        meter.take(before + b"data: ")
        tracemalloc.start()
        for _ in range(200):
            meter.take(bytes(65536))
            meter.look()
            assert meter.pieces == []
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5 * MIB
        assert now < MIB // 8
        meter.take(b"\n\n" + sse(MESSAGE_DELTA))
        assert meter.close(whole=True) == reading


def test_a_stream_may_be_of_any_length():
    """What is held of its lines is bounded for each of them, not for all together."""
    event = sse({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "words " * 2000}})
    meter = metering(ANTHROPIC)
    meter.take(sse(MESSAGE_START))
    for _ in range(1000):
        for piece in (event[:10_000], event[10_000:]):
            meter.take(piece)
            meter.look()
    meter.take(sse(MESSAGE_DELTA))
    assert meter.close(whole=True) == MESSAGE_READING


def test_a_long_line_is_joined_once():
    """A response of megabytes, in small pieces, which are not joined anew at every look."""
    response = {**RESPONSE, "output": [{"text": "words " * 500_000}]}
    stream = sse({"type": "response.completed", "response": response})
    meter = metering(OPENAI)
    tracemalloc.start()
    for at in range(0, len(stream), 1024):
        meter.take(stream[at : at + 1024])
        meter.look()
    assert meter.close(whole=True) == RESPONSE_READING
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * len(stream)


def test_a_bomb_ends_the_reading_and_what_was_read_is_kept():
    packer = zlib.compressobj(wbits=31)
    start = packer.compress(sse(MESSAGE_START)) + packer.flush(zlib.Z_SYNC_FLUSH)
    meter = metering(ANTHROPIC, coding=b"gzip")
    meter.take(start)
    meter.look()
    meter.take(packer.compress(bytes(64 * MIB)) + packer.flush())
    tracemalloc.start()
    meter.look()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48 * MIB
    assert now < MIB
    meter.take(start)
    assert meter.close(whole=True) == MESSAGE_READING._replace(
        tokens=Tokens(21, 4000, 300, 400, 1), metering="partial"
    )


@pytest.mark.parametrize(
    ("kind", "coding"),
    [
        (b"text/plain", b""),
        (b"", b""),
        (b"text/html; charset=utf-8", b""),
        (b"text/event-streams", b""),
        (b"text/event-stream", b"compress"),
        (b"application/json", b"gzip, secret"),
        (b"x" * 100_000, b""),
    ],
)
def test_what_cannot_be_read_is_unmetered_and_not_kept(kind, coding):
    meter = meter_for(ANTHROPIC, content_type=kind, content_encoding=coding)
    meter.take(MESSAGE_STREAM)
    meter.look()
    assert meter.pieces == []
    meter.take(MESSAGE_STREAM)
    assert meter.close(whole=True) == UNMETERED
    assert meter.pieces == []
    assert meter.windows is None


@pytest.mark.parametrize(
    "kind", [b"text/event-stream", b"Text/Event-Stream ;charset=utf-8", b" text/event-stream"]
)
def test_a_stream_is_known_by_its_type(kind):
    meter = metering(ANTHROPIC, kind=kind)
    meter.take(MESSAGE_STREAM)
    assert meter.close(whole=True) == MESSAGE_READING


@given(
    st.sampled_from(list(Dialect)),
    st.sampled_from([b"text/event-stream", b"application/json", b"text/html"]),
    st.sampled_from([*PACK, b"br, gzip"]),
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([MESSAGE_STREAM, RESPONSE_STREAM, compact(RESPONSE), *BROKEN]),
            st.sampled_from([b"\n", b'"usage"', b'{"usage":', b"data: ", b'"codex.rate_limits"']),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_a_meter_never_raises(dialect, kind, coding, pieces, whole):
    meter = meter_for(dialect, content_type=kind, content_encoding=coding)
    for number, piece in enumerate(pieces):
        meter.take(piece)
        if number % 2:
            meter.look()
            assert meter.pieces == []
    reading = meter.close(whole=whole)
    assert meter.pieces == []
    assert reading.metering in {"whole", "partial", "unmetered", "none"}
    assert all(type(count) is int and count >= 0 for count in reading.tokens)
    assert (reading.tokens is NO_TOKENS) == (reading.metering in {"unmetered", "none"})
