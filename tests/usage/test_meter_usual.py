"""An answer written as usual is read by its patterns, and exactly as any other way of writing it is read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import CHAT, MESSAGE, MESSAGE_READING, MESSAGE_USAGE, TREACHEROUS, compact

from ai_mux.usage.documents import read_document
from ai_mux.usage.tally import Reading, Tokens
from ai_mux.usage.usual import read_usual
from ai_mux.wire.answers import Dialect

FIRST = ("id", "type", "role", "model")
ID_FIRST = {key: MESSAGE[key] for key in FIRST} | MESSAGE
USAGE = MESSAGE["usage"]


def with_usage(**figures: object) -> bytes:
    return compact({**MESSAGE, "usage": {**USAGE, **figures}})


def split(for_5m: int, for_1h: int) -> dict[str, int]:
    return {"ephemeral_5m_input_tokens": for_5m, "ephemeral_1h_input_tokens": for_1h}


USUAL = {
    "the model first": (compact(MESSAGE), MESSAGE_READING),
    "the id first": (compact(ID_FIRST), MESSAGE_READING),
    "where it was written": (with_usage(inference_geo="not_available"), MESSAGE_READING),
    "another tier": (with_usage(service_tier="priority"), MESSAGE_READING._replace(tier="priority")),
    "nothing used": (
        with_usage(
            **dict.fromkeys(["input_tokens", "cache_creation_input_tokens"], 0), cache_creation=split(0, 0)
        ),
        MESSAGE_READING._replace(tokens=Tokens(0, 4000, 0, 0, 88)),
    ),
    "less in the split than in all": (
        with_usage(cache_creation=split(0, 100)),
        MESSAGE_READING._replace(tokens=Tokens(21, 4000, 600, 100, 88)),
    ),
    "more in the split than in all": (
        with_usage(cache_creation=split(900, 100)),
        MESSAGE_READING._replace(tokens=Tokens(21, 4000, 900, 100, 88)),
    ),
}


@pytest.mark.parametrize(("raw", "reading"), USUAL.values(), ids=USUAL)
def test_what_is_usual_is_read_by_its_patterns(raw, reading):
    assert read_usual(raw) == reading == read_document(raw, Dialect.ANTHROPIC)
    assert type(read_usual(raw)) is Reading
    assert type(read_usual(raw).tokens) is Tokens


NESTED = compact({**MESSAGE, "content": [{"input": ID_FIRST}]})
UNUSUAL = {
    "nothing": b"",
    "another provider's": compact(CHAT),
    "blanks": json.dumps(MESSAGE).encode(),
    "no model": compact({key: value for key, value in MESSAGE.items() if key != "model"}),
    "a model behind the words": compact(
        {"content": [], **{k: v for k, v in MESSAGE.items() if k != "content"}}
    ),
    "a model with an escape": compact({**MESSAGE, "model": 'the "model"'}),
    "a model that is long": compact({**MESSAGE, "model": "m" * 129}),
    "a tier that is none": with_usage(service_tier=None),
    "a figure that is none": with_usage(output_tokens=None),
    "a figure that is too large": with_usage(output_tokens=10**9),
    "a figure below nothing": with_usage(output_tokens=-1),
    "a figure with noughts before it": compact(MESSAGE).replace(b":88", b":088"),
    "another key": compact(MESSAGE).replace(b"cache_read_", b"cache_reed_"),
    "fast": with_usage(speed="fast"),
    "something behind the usage": compact({**MESSAGE, "container": None}),
    "a line end behind it": compact(MESSAGE) + b"\n",
    "an id that goes on": compact(ID_FIRST).replace(
        b'made_up","type":"message"', b'made_up\\","type":"message"'
    ),
    "an escaped quote": compact(MESSAGE).replace(b',"usage"', b',\\"usage"'),
    "a bracket more": compact(MESSAGE) + b"}",
    "the usage of what is inside": compact({"model": "m", "inside": MESSAGE}),
    "an answer in a list": b"[" + compact(MESSAGE) + b"]",
    "an answer in a string": compact({**MESSAGE, "usage": compact(MESSAGE).decode()}),
}


@pytest.mark.parametrize("raw", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_unusual_is_left_to_whoever_reads_everything(raw):
    assert read_usual(raw) is None


def reads_as_in_the_general_way(raw: bytes) -> None:
    unusual = raw + b" "  # which says nothing, and is not usual
    assert read_usual(unusual) is None
    assert read_document(raw, Dialect.ANTHROPIC) == read_document(unusual, Dialect.ANTHROPIC)


@pytest.mark.parametrize("raw", [*(raw for raw, _ in USUAL.values()), *UNUSUAL.values()])
def test_whichever_way_it_goes_it_reads_the_same(raw):
    reads_as_in_the_general_way(raw)


figures = st.integers(0, 3) | st.integers(0, 10**6) | st.just(10**9 - 1)
usages = st.fixed_dictionaries(
    {
        "input_tokens": figures,
        "cache_creation_input_tokens": figures,
        "cache_read_input_tokens": figures,
        "cache_creation": st.builds(split, figures, figures),
        "output_tokens": figures,
        "service_tier": st.sampled_from(["standard", "priority", ""]),
    },
    optional={
        "inference_geo": st.sampled_from(["not_available", ""]),
    },
)
messages = st.builds(
    lambda start, words, usage: {**start, "content": words, "usage": usage},
    st.sampled_from([MESSAGE, ID_FIRST]),
    st.sampled_from([[], TREACHEROUS, MESSAGE["content"], [MESSAGE], [{"input": {"usage": MESSAGE_USAGE}}]]),
    usages,
)
# What is put into an answer, or in the place of a part of it.
patches = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [
            *(b'"', b"\\", b"{", b"}", b"}}", b"[", b",", b"0", b"-", b".5", b"e9", b" ", b"\n", b"\xff"),
            b'"model":"other",',
            b'"usage":{},',
            b',"usage":{"input_tokens":1}',
            b',"usage":' + compact(MESSAGE_USAGE),
            b'"mod\\u0065l":"other",',
            b'"speed":"fast",',
            b'"iterations":[{"type":"compaction","output_tokens":5}],',
            b"null",
        ]
    ),
)
changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 8), patches, st.booleans()), max_size=2)


def changed(raw: bytes, change: tuple[int, int, bytes, bool]) -> bytes:
    """Put something in the place of some bytes, counted from the beginning or from the end."""
    place, size, patch, is_near_the_end = change
    at = len(raw) - place % min(400, len(raw) + 1) if is_near_the_end else place % (len(raw) + 1)
    return raw[:at] + patch + raw[at + size :]


@given(messages, changes, st.none() | st.integers(0, 10**6))
@settings(max_examples=1000)
def test_however_an_answer_is_changed_or_cut_it_reads_as_in_the_general_way(message, changes, end):
    raw = compact(message)
    for change in changes:
        raw = changed(raw, change)
    reads_as_in_the_general_way(raw)
    if end is not None:
        reads_as_in_the_general_way(raw[: end % (len(raw) + 1)])


@given(
    messages,
    st.integers(0, 400),
    st.binary(min_size=1, max_size=1) | st.sampled_from([b"0", b"1", b'"', b","]),
)
@settings(max_examples=1000)
def test_with_another_byte_near_its_end_or_one_more_it_reads_as_in_the_general_way(message, place, byte):
    raw = compact(message)
    at = len(raw) - place % len(raw)
    reads_as_in_the_general_way(raw[:at] + byte + raw[at:])
    reads_as_in_the_general_way(raw[:at] + byte + raw[at + 1 :])


@pytest.mark.parametrize(
    "raw",
    [
        b',"usage":{"input_tokens":' * 50_000,
        compact({**MESSAGE, "content": ","}).replace(b'","', b"," * 500_000),
        b'{"model":"' + b"m" * 1_000_000,
        compact(MESSAGE) + b" " * 1_000_000 + b"x",
    ],
    ids=["keys", "commas", "a model", "blanks"],
)
def test_what_is_made_to_be_costly_is_looked_at_once(raw):
    """In time that grows with its length: backtracking would take minutes."""
    assert read_usual(raw) is None
