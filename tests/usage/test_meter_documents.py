"""What JSON responses used is read from their ends as a parser of the whole reads it, whatever their size."""

import gzip
import itertools
import json
import tracemalloc

import brotli
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st
from spoken import (
    CHAT,
    CHAT_READING,
    EMBEDDING,
    EMBEDDING_READING,
    MESSAGE,
    MESSAGE_READING,
    RESPONSE,
    RESPONSE_READING,
    TOOL,
    TREACHEROUS,
    compact,
)

from ai_mux.usage.meter import meter_for
from ai_mux.usage.reading import read_answer
from ai_mux.usage.tally import NO_TOKENS, Reading, Tokens
from ai_mux.wire.answers import Dialect

MIB = 1024 * 1024
ANTHROPIC, OPENAI = Dialect.ANTHROPIC, Dialect.OPENAI
UNMETERED = Reading(NO_TOKENS, "unmetered")
PACK = {
    b"": bytes,
    b"gzip": gzip.compress,
    b"br": lambda data: brotli.compress(data, quality=1),
    b"zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def read(
    dialect: Dialect,
    *pieces: bytes,
    kind: bytes = b"application/json",
    coding: bytes = b"",
    look_every: int = 10**9,
    whole: bool = True,
) -> Reading:
    meter = meter_for(dialect, content_type=kind, content_encoding=coding)
    for piece in pieces:
        meter.take(piece)
        if len(meter.pieces) >= look_every:
            meter.look()
            assert meter.pieces == []
    reading = meter.close(whole=whole)
    assert meter.pieces == []
    return reading


COMPACTED = {
    "id": "resp_made_up",
    "object": "response.compaction",
    "created_at": 1790000000,
    "output": [{"type": "compaction", "id": "cmp_made_up", "encrypted_content": TREACHEROUS}],
    "usage": RESPONSE["usage"],
}
DOCUMENTS = {
    "a message": (ANTHROPIC, MESSAGE, MESSAGE_READING),
    "a response": (OPENAI, RESPONSE, RESPONSE_READING),
    "a compaction": (OPENAI, COMPACTED, RESPONSE_READING._replace(model=None, tier=None)),
    "a chat": (OPENAI, CHAT, CHAT_READING),
    "an embedding": (OPENAI, EMBEDDING, EMBEDDING_READING),
}
ALL = pytest.mark.parametrize(("dialect", "document", "reading"), DOCUMENTS.values(), ids=DOCUMENTS)
cuts = st.lists(st.integers(0, 10**6), max_size=20)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


@ALL
@pytest.mark.parametrize("how", [{}, {"separators": (",", ":")}, {"indent": 2}, {"sort_keys": True}], ids=str)
@given(at=cuts, look_every=st.integers(1, 20), coding=st.sampled_from(list(PACK)))
def test_a_document_reads_the_same_however_it_is_written_and_cut(
    dialect, document, reading, how, at, look_every, coding
):
    raw = json.dumps(document, **how).encode()
    pieces = cut(PACK[coding](raw), at)
    assert read(dialect, *pieces, look_every=look_every, coding=coding) == reading


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON; charset=utf-8", b"application/problem+json"]
)
def test_a_document_is_known_by_its_type(kind):
    assert read(ANTHROPIC, compact(MESSAGE), kind=kind) == MESSAGE_READING


@pytest.mark.parametrize("wrap", [b"\xef\xbb\xbf%b", b" \r\n%b", b"%b\n\n"])
def test_blanks_and_a_mark_around_a_document_do_not_matter(wrap):
    assert read(OPENAI, wrap % compact(CHAT)) == CHAT_READING


# Compared with a parser of the whole

keys = st.sampled_from(["usage", "model", "service_tier", "content", 'not "usage', "input_tokens", "é"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**10),
    st.sampled_from(["gpt-5.5", "claude", '"usage":', '{"usage":{"input_tokens":1}}', "}}", "\\", ""]),
)
usages = st.fixed_dictionaries(
    {},
    optional={
        name: st.integers(0, 10**9) | scalars for name in ("input_tokens", "output_tokens", "prompt_tokens")
    },
)
values = st.recursive(
    scalars | usages,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=15,
)
documents = st.dictionaries(keys, values, max_size=7)


SMALL = {"prompt_tokens": 3, "total_tokens": 3}


@given(documents, st.sampled_from(list(Dialect)), st.booleans(), st.booleans())
@example({"service_tier": "claude", "content": {"service_tier": "x"}, "usage": SMALL}, OPENAI, False, False)
@example({"usage": SMALL, "service_tier": "claude", "content": {"usage": 1}}, OPENAI, False, False)
@example({"content": [], "model": "claude", "é": {"model": "x"}, "usage": SMALL}, OPENAI, False, False)
def test_any_document_reads_as_if_all_of_it_had_been_parsed(document, dialect, spaced, plain):
    separators = (" , ", " : ") if spaced else (",", ":")
    raw = json.dumps(document, separators=separators, ensure_ascii=not plain).encode()
    reading = read(dialect, raw)
    parsed = read_answer(dialect, document)
    if "usage" in document:
        assert reading == parsed
    else:
        assert reading.tokens == parsed.tokens == NO_TOKENS
        assert reading.metering == "unmetered"


# How whole it is


@ALL
@pytest.mark.parametrize("look_every", [1, 10])
def test_a_document_that_was_cut_is_not_read(dialect, document, reading, look_every):
    raw = compact(document)
    for end in range(0, len(raw), 3):
        assert (
            read(dialect, raw[: end // 2], raw[end // 2 : end], whole=False, look_every=look_every)
            == UNMETERED
        )
    assert read(dialect, raw, look_every=look_every) == reading


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"usage"',
        b'[{"usage":{"input_tokens":1,"output_tokens":1}}]',
        b'{"usage":null}',
        b'{"usage":7,"model":"m"}',
        b'{"usage":{}}',
        b'{"a":' + b"[" * 100_000 + b'"usage":',
        b'{"a":1,"usage":' + b'{"a":' * 100_000,
        b'{"usage":{"input_tokens":1,"output_tokens":1}} trailing',
        b"\xff\xfe{\0}\0",
        b'{"a":"\xff","usage":{"input_tokens":"\xff"}}',
    ],
    ids=lambda raw: raw[:30].decode("latin-1"),
)
@pytest.mark.parametrize("dialect", Dialect)
def test_what_says_no_figures_is_unmetered(dialect, raw):
    reading = read(dialect, raw)
    assert (reading.tokens, reading.metering) == (NO_TOKENS, "unmetered")
    assert reading.tokens is NO_TOKENS


def test_a_figure_that_is_none_makes_it_partial():
    usage = {**MESSAGE["usage"], "cache_read_input_tokens": "4000"}
    assert read(ANTHROPIC, compact({**MESSAGE, "usage": usage})) == MESSAGE_READING._replace(
        tokens=Tokens(21, 0, 300, 400, 88), metering="partial"
    )


def test_a_usage_without_output_is_whole_for_an_embedding_only():
    assert (
        read(OPENAI, compact({**CHAT, "usage": {"prompt_tokens": 5, "total_tokens": 9}})).metering
        == "partial"
    )
    assert (
        read(OPENAI, compact({**CHAT, "usage": {"input_tokens": 5, "total_tokens": 9}})).metering == "partial"
    )
    assert read(ANTHROPIC, compact({**MESSAGE, "usage": {"input_tokens": 5}})).metering == "partial"
    assert read(ANTHROPIC, compact({**MESSAGE, "usage": {"output_tokens": 5}})).metering == "partial"


# Large ones


def in_reads(raw: bytes) -> list[bytes]:
    return [raw[at : at + 65536] for at in range(0, len(raw), 65536)]


def test_of_a_large_document_only_the_ends_are_kept():
    vector = [at / 3 for at in range(3072)]
    data = [{"object": "embedding", "index": at, "embedding": vector} for at in range(80)]
    pieces = in_reads(compact({**EMBEDDING, "data": data}))
    assert sum(map(len, pieces)) > 3 * MIB
    meter = meter_for(OPENAI, content_type=b"application/json", content_encoding=b"")
    tracemalloc.start()
    for piece in pieces:
        meter.take(piece)
        meter.look()
    now, peak = tracemalloc.get_traced_memory()
    assert meter.close(whole=True) == EMBEDDING_READING
    tracemalloc.stop()
    assert now < 512 * 1024
    assert peak < MIB


@pytest.mark.parametrize("size", [100_000, 250_000, 262_000, 263_000, 400_000, 2_000_000])
@ALL
def test_a_document_of_any_size_is_read(dialect, document, reading, size):
    padding = {
        key: [0.5] * (size // 4) for key in ("content", "output", "choices", "data") if key in document
    }
    large = {**document, **padding}
    raw = compact(large)
    assert len(raw) > size
    assert read(dialect, *in_reads(raw), look_every=1) == reading
    assert read(dialect, raw) == reading


def test_what_stands_in_the_middle_of_a_large_document_is_not_guessed():
    tools = [TOOL] * 3000  # behind the tier and before the usage: neither end has both
    large = {**RESPONSE, "output": [0.5] * 300_000, "tools": tools}
    assert read(OPENAI, *in_reads(compact(large)), look_every=1) == RESPONSE_READING._replace(tier=None)
    before = {"model": "m", "service_tier": "flex", "usage": {"input_tokens": 1, "output_tokens": 1}}
    far = compact({**before, "output": [0.5] * 300_000, "content": [{"usage": {"input_tokens": 2}}] * 9})
    assert read(OPENAI, *in_reads(far), look_every=1) == UNMETERED


@pytest.mark.parametrize("size", [0, 300_000])
def test_what_is_only_called_usage_hides_none(size):
    metadata = {
        **{f"key {number}": "usage" for number in range(13)},
        "usage": "usage",
        "service_tier": "flex",
    }
    document = {**RESPONSE, "output": [0.5] * size, "metadata": {"model": "m", **metadata}}
    assert read(OPENAI, *in_reads(compact(document)), look_every=1) == RESPONSE_READING
    assert read(OPENAI, compact(document)) == RESPONSE_READING


def test_a_bomb_is_not_read():
    packed = gzip.compress(bytes(64 * MIB))
    tracemalloc.start()
    assert read(OPENAI, *in_reads(packed), look_every=1, coding=b"gzip") == UNMETERED
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * MIB
