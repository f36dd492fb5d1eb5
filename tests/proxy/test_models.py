"""Which model a body asks for, in whatever coding, and whether that is allowed."""

import gzip
import json
import random
import zlib
from itertools import pairwise

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.errors import BadRequest, Forbidden, RequestError, UnsupportedMediaType
from ai_mux.proxy.models import ModelScan, check_model

MIB = 1024 * 1024
CODINGS = {
    b"": lambda body: body,
    b"identity": lambda body: body,
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"br": brotli.compress,
    b"zstd": zstandard.ZstdCompressor().compress,
    b"gzip, zstd": lambda body: zstandard.ZstdCompressor().compress(gzip.compress(body)),
}
ALLOWED = ("claude-sonnet-*", "gpt-5?")
BODY = b'{"model":"claude-sonnet-5","messages":[{"role":"user","content":"' + b"x" * 5000 + b'"}]}'


def feed(scan, piece):
    scan.feed(piece)
    while scan.is_behind:
        scan.go_on()


def verdict(body, coding=b"", *, cuts=(), allowed=ALLOWED, **more):
    """Return the model that passes, or the error."""
    try:
        scan = ModelScan(coding, allowed, **more)
        edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
        for begin, end in pairwise(edges):
            feed(scan, body[begin:end])
        scan.finish()
    except RequestError as error:
        return type(error)
    assert scan.is_known
    return scan.model


@pytest.mark.parametrize(
    ("model", "passes"),
    [
        ("claude-sonnet-5", True),
        ("Claude-SONNET-", True),
        ("gpt-5x", True),
        ("gpt-5", False),
        ("gpt-5xx", False),
        ("claude-opus-5", False),
        ("xclaude-sonnet-5", False),
    ],
)
def test_globs_match_the_whole_name_without_regard_to_case(model, passes):
    if passes:
        check_model(model, ALLOWED)
        check_model(model, tuple(glob.upper() for glob in ALLOWED))
    else:
        with pytest.raises(Forbidden):
            check_model(model, ALLOWED)


def test_whoever_has_an_empty_list_has_no_model():
    assert verdict(BODY, allowed=()) is Forbidden
    assert verdict(BODY, allowed=("*",)) == "claude-sonnet-5"


@pytest.mark.parametrize(
    ("tools", "answer"),
    [
        ([{"type": "advisor", "model": "claude-opus-5"}], Forbidden),
        ([{"type": "advisor", "model": "claude-sonnet-5"}], "claude-sonnet-5"),
        ([{"name": "x", "input_schema": {"properties": {"model": {"type": "string"}}}}], "claude-sonnet-5"),
    ],
)
def test_a_tool_has_no_other_model_either(tools, answer):
    body = json.dumps({"model": "claude-sonnet-5", "tools": tools, "x": []}).encode()
    assert verdict(body) == verdict(body, cuts=range(300)) == answer


def test_a_refusal_names_the_model_cut_and_printable():
    with pytest.raises(Forbidden) as refused:
        check_model("o9\u202e\u200b" + "x" * 200, ALLOWED)
    assert refused.value.public_message == (
        'Your token is not for the model "o9??' + "x" * 96 + '". Ask the operator which models it is for.'
    )


BODIES = st.one_of(
    st.sampled_from([BODY, b"{}", b"", b"x", BODY[:-1], BODY + b"x", b'{"model":1}']),
    st.dictionaries(
        st.sampled_from(["model", "Model", "x"]), st.one_of(st.sampled_from(["gpt-5x", "o9"]), st.none())
    ).map(lambda members: json.dumps(members).encode()),
)


@given(body=BODIES, coding=st.sampled_from(list(CODINGS)), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_the_verdict_is_the_same_in_every_coding_and_however_it_is_cut(body, coding, cuts):
    found, plain = verdict(CODINGS[coding](body), coding, cuts=cuts), verdict(body)
    assert found == plain or {found, plain} <= {Forbidden, BadRequest}  # by which of two reasons comes first


@pytest.mark.parametrize("coding", [b"", b"gzip", b"br", b"zstd"])
def test_it_is_known_as_early_as_its_coding_allows(coding):
    packed = CODINGS[coding](BODY + b" " * 400_000)  # more than a block of any coding
    scan = ModelScan(coding, ALLOWED)
    assert not scan.is_known
    feed(scan, packed[:-1])
    assert scan.is_known
    feed(scan, packed[-1:])
    scan.finish()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"compress", BODY),
        (b"deflate", zlib.compress(BODY)),  # by others without zlib's header: two formats of one name
        (b"aes128gcm", BODY),
        (b"gzip", BODY),
        (b"zstd", BODY),
        (b"br", BODY),
        (b"gzip", gzip.compress(BODY)[:-9]),
        (b"gzip", gzip.compress(BODY) + b"x"),
        (b"zstd", CODINGS[b"zstd"](BODY)[:-3]),
        (b"zstd, gzip", CODINGS[b"gzip, zstd"](BODY)),
        (b"gzip" + b", gzip" * 20, BODY),
    ],
)
@pytest.mark.parametrize("cuts", [(), range(200)])
def test_what_cannot_be_unpacked_is_a_415(coding, body, cuts):
    assert verdict(body, coding, cuts=cuts) is UnsupportedMediaType


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json; charset=utf-7",
        b"application/json;charset=UTF-16",
        b'application/json; Charset = "cp037"',
        b"application/json; charset=utf-8; charset=utf-7",
    ],
)
def test_another_charset_is_a_415(kind):
    assert verdict(BODY, content_types=[kind]) is UnsupportedMediaType


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json",
        b" Application/JSON ;charset=utf-8",
        b'application/vnd.x+json; charset="UTF-8"',
    ],
)
def test_utf_8_is_none_of_those(kind):
    assert verdict(BODY, content_types=[kind]) == "claude-sonnet-5"


@pytest.mark.parametrize("coding", [b"", b"gzip", b"zstd", b"br"])
def test_the_model_must_be_in_the_first_mib_unpacked(coding):
    noise = "".join(chr(0x4E00 + (at * 7919) % 20_000) for at in range(400_000))  # which packs badly
    late = json.dumps({"x": noise, "model": "gpt-5x"}, ensure_ascii=False).encode()
    assert len(late) > MIB
    assert verdict(CODINGS[coding](late), coding, cuts=range(0, 2 * MIB, 65_536)) is BadRequest


def test_nor_may_a_coding_go_on_for_ever_without_a_byte():
    empty = zlib.compressobj(wbits=31)
    empty_blocks = empty.compress(b"") + empty.flush(zlib.Z_FULL_FLUSH)
    scan = ModelScan(b"gzip", ALLOWED)
    feed(scan, empty_blocks)
    with pytest.raises(BadRequest):
        for _ in range(300):
            feed(scan, b"\0\0\0\xff\xff" * 1000)


@pytest.mark.parametrize("coding", [b"gzip", b"zstd", b"br"])
def test_a_bomb_is_refused_before_it_is_looked_into(coding):
    bomb = CODINGS[coding](b'{"model":"gpt-5x","x":"' + b"x" * 12_000_000 + b'"}')
    assert verdict(bomb, coding) is UnsupportedMediaType
    assert verdict(bomb, coding, cuts=range(0, len(bomb), 1000)) is UnsupportedMediaType


def test_a_long_conversation_of_text_is_none():
    text = json.dumps(
        {"model": "gpt-5x", "input": [f"line {n}: the same tool's output" for n in range(400_000)]}
    )
    assert verdict(CODINGS[b"zstd"](text.encode()), b"zstd", cuts=range(0, 10 * MIB, 65_536)) == "gpt-5x"


@pytest.mark.parametrize("unit", [b"[],", b'{"a":1},', b'"",', b'"\\n",', b"1,", b" ", b"\x09"])
@pytest.mark.parametrize("coding", [b"", b"gzip", b"zstd", b"br"])
def test_no_step_reads_more_than_some_kilobytes_of_what_costs(unit, coding):
    body = b'{"model":"gpt-5x","x":[' + unit * (200_000 // len(unit)) + b"0]}"
    scan = ModelScan(coding, ALLOWED)
    packed, steps = CODINGS[coding](body), 0
    try:
        scan.feed(packed)
        while scan.is_behind:
            scan.go_on()
            steps += 1
        scan.finish()
    except BadRequest as error:  # what is packed so well is not read to its end
        assert b"packed so well" in error.public_message.encode()
    assert steps >= 2


def test_a_body_of_a_million_brackets_is_refused_in_any_coding():
    body = b'{"model":"gpt-5x","x":[' + b"[]," * 500_000 + b"0]}"
    assert {verdict(pack(body), coding) for coding, pack in CODINGS.items() if b"," not in coding} <= {
        BadRequest,
        UnsupportedMediaType,
    }


def test_a_conversation_in_many_small_messages_passes_in_any_coding():
    dice = random.Random(1)
    words = ["the", "file", "reads", "a", "line", "and", "then", "some", "more", "of", "it", "test", "passes"]
    messages = [
        {"role": "user", "content": [{"type": "text", "text": " ".join(dice.choices(words, k=30))}]}
        for _ in range(5000)
    ]
    body = json.dumps({"model": "gpt-5x", "messages": messages}).encode()
    assert {verdict(pack(body), coding) for coding, pack in CODINGS.items()} == {"gpt-5x"}
