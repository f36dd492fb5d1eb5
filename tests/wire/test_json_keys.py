"""Whom a user asks for, found in a stream of JSON: nobody may read the document otherwise.

``plainly`` says the same with the standard library, all at once and without a thought for
memory; the properties hold the scanner against it with documents, damage and cuts that nobody
chose.
"""

import json
import random
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_mux.wire.json_keys import TopLevelStrings
from ai_mux.wire.json_members import JsonRefused

REFUSED = "refused"
TEXT = st.text(max_size=12)
TELLING = st.sampled_from(
    [
        "model",
        "Model",
        "MODEL",
        "mod\u0435l",
        "model\x00",
        "mode",
        "\ud83d",
        "modeK",
        '"',
        "\\",
        '\\"',
        "{",
        "]",
        "",
    ]
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
        TELLING,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(TEXT, TELLING), inner, max_size=4)
    ),
    max_leaves=12,
)
MEMBERS = st.lists(
    st.tuples(st.one_of(TEXT, TELLING, st.just("model"), st.just("type")), st.one_of(VALUES, TEXT)),
    max_size=6,
)


class Members(list):
    """An object's members, none of them hidden by another of the same name."""


def _no_constant(word):
    raise ValueError(word)


def plainly(document, *wanted, optional=()):
    """Return the strings under wanted top-level keys, or that the document is refused."""
    try:
        members = json.loads(document.decode(), object_pairs_hook=Members, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return REFUSED
    if not isinstance(members, Members):
        return REFUSED
    every = {*wanted, *optional}
    found = {}
    for key, value in members:
        if len(key) > 256 or "\0" in key or any("\ud800" <= one <= "\udfff" for one in key):
            return REFUSED
        if key.casefold() in every:
            unprintable = isinstance(value, str) and any(
                one < " " or "\x7f" <= one <= "\x9f" or "\ud800" <= one <= "\udfff" for one in value
            )
            if key not in every or key in found or not isinstance(value, str) or unprintable:
                return REFUSED
            if not 1 <= len(value) <= 256:
                return REFUSED
            found[key] = value
    return found if found.keys() >= set(wanted) else REFUSED


def scanned(document, cuts, *wanted, optional=(), **limits):
    scanner = TopLevelStrings(*wanted, optional=optional, **limits)
    edges = [0, *sorted(min(cut, len(document)) for cut in cuts), len(document)]
    try:
        for begin, end in pairwise(edges):
            scanner.feed(document[begin:end])
        scanner.finish()
    except JsonRefused:
        return REFUSED
    return scanner.found


def written(value, dice):
    """Return JSON text for a value, written as wildly as is allowed."""
    blank = dice.choice(["", "", "", " ", "\t\r\n"])
    if isinstance(value, str):
        return blank + '"' + "".join(_character(one, dice) for one in value) + '"' + blank
    if isinstance(value, Members):
        return (
            blank + "{" + ",".join(written(k, dice) + ":" + written(v, dice) for k, v in value) + blank + "}"
        )
    if isinstance(value, dict):
        return written(Members(value.items()), dice)
    if isinstance(value, list):
        return blank + "[" + blank + ",".join(written(one, dice) for one in value) + "]"
    return blank + json.dumps(value) + blank


def _character(one, dice):
    plain = one >= " " and one not in '"\\' and not "\ud800" <= one <= "\udfff"
    if plain and dice.random() < 0.8:
        return one
    if dice.random() < 0.3 and one in '"\\/\b\f\n\r\t':
        return "\\" + {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}.get(one, one)
    units = one.encode("utf-16-be", "surrogatepass")
    digits = "%04x" if dice.random() < 0.5 else "%04X"
    return "".join("\\u" + digits % int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))


DOCUMENTS = st.builds(
    lambda members, seed: written(Members(members), random.Random(seed)).encode(),
    MEMBERS,
    st.integers(0, 2**32),
)
CUTS = st.one_of(st.lists(st.integers(0, 300), max_size=6), st.just(range(2000)))


@given(document=DOCUMENTS, cuts=CUTS)
@example(document=b'{"model":"x","a":[1,{"b":"c"},[]],"d":{}}', cuts=range(60))
@example(document=b'{"\\u006dodel":"\\u0078"}', cuts=range(60))
@example(document=b'{"a\\\\":"\\"","model":"\\\\"}', cuts=range(60))
def test_it_finds_what_the_standard_library_finds_wherever_the_document_is_cut(document, cuts):
    assert scanned(document, cuts, "model") == plainly(document, "model")
    assert scanned(document, cuts, optional=("model",)) == plainly(document, optional=("model",))
    assert scanned(document, cuts, "type", optional=("model",)) == plainly(
        document, "type", optional=("model",)
    )


JUNK = st.one_of(
    st.sampled_from(rb"""" \ { } [ ] , : /* */ // ' 1 - e NaN Infinity true "model":"y", \u00""".split()),
    st.sampled_from([b"\0", b"\xff", b"\xc0\xa2", b"\n", b"\x1f", b" "]),
)


@given(
    document=DOCUMENTS,
    damage=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), JUNK), min_size=1, max_size=3),
    cuts=CUTS,
)
@example(document=b'{"model":"x"}', damage=[(0, 0, b"\xef\xbb\xbf")], cuts=[1])
def test_it_refuses_what_the_standard_library_refuses(document, damage, cuts):
    for at, size, junk in damage:
        document = document[:at] + junk + document[at + size :]
    assert scanned(document, cuts, "model") == plainly(document, "model")


WORDS = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b" ", b"1", b'"a"', b'"model"', b'"a":']
)


@given(document=st.one_of(st.binary(max_size=40), st.lists(WORDS, max_size=16).map(b"".join)), cuts=CUTS)
def test_whatever_comes_either_the_same_is_found_or_it_is_refused(document, cuts):
    assert scanned(document, cuts, optional=("model",)) == plainly(document, optional=("model",))


# What other decoders would read otherwise


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(
    "document",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","model":"a"}',
        b'{"model":"a","Model":"b"}',
        b'{"MODEL":"a"}',
        b'{"model":"a","\\u006dodel":"b"}',
        b'{"model":"a","\\u004Dodel":"b"}',
        b'{"model":"a","mode\\u006c\\u0000":"b"}',
        b'{"model":"a","model\\ud800":"b"}',
        b'{"model":"a\\u0000"}',
        b'{"model":"a\\n"}',
        b'{"model":["a"]}',
        b'{"model":null}',
        b'{"model":1}',
        b'{"model":""}',
        b'{"model":{"model":"a"}}',
        b'{"messages":[{"model":"a"}]}',
        b'{"messages":["model","a"]}',
        b"{}",
        b"",
        b" ",
        b'[{"model":"a"}]',
        b'"model"',
        b'{"model":"a"',
        b'{"model":"a"}{"model":"b"}',
        b'{"model":"a"}]',
        b'{"model":"a"} x',
        b'{"model":"a"},',
        b'{"model":"a"}\0',
        b'\xef\xbb\xbf{"model":"a"}',
        '{"model":"a"}'.encode("utf-16"),
        '{"model":"a"}'.encode("utf-16-le"),
        '{"model":"a"}'.encode("utf-32"),
        b"{'model':'a'}",
        b'{model:"a"}',
        b'{"model":"a",}',
        b'{,"model":"a"}',
        b'{"model" "a"}',
        b'{"model"="a"}',
        b'{"x":/*"*/1,"model":"a"}',
        b'{"x":1//"\n,"model":"a"}',
        b'{"x":NaN,"model":"a"}',
        b'{"x":-Infinity,"model":"a"}',
        b'{"x":01,"model":"a"}',
        b'{"x":1.,"model":"a"}',
        b'{"x":0x1,"model":"a"}',
        b'{"x":"\\x41","model":"a"}',
        b'{"x":"\\u12","model":"a"}',
        b'{"x":"\\\'","model":"a"}',
        b'{"x":"a\nb","model":"a"}',
        b'{"x":"a\tb","model":"a"}',
        b'{"x":"a\x00b","model":"a"}',
        b'{"x":"\xc0\xa2,\xc0\xa2model\xc0\xa2:\xc0\xa2b","model":"a"}',
        b'{"x":"\xed\xa0\x80","model":"a"}',
        b'{"x":[1,2},"model":"a"}',
        b'{"x":{"y":[}],"model":"a"}',
        b'{"x":[1 2],"model":"a"}',
        b'{"x":["a":1],"model":"a"}',
        b'{"x":{"a","b"},"model":"a"}',
        b'{"x":{1:2},"model":"a"}',
        b'{"x":[,],"model":"a"}',
        b'{"x":[1,],"model":"a"}',
        b'{"x":"a""b","model":"a"}',
        b'{"x":\\"a\\","model":"a"}',
        b'{"x":truefalse,"model":"a"}',
        b'{"x":\xa01,"model":"a"}',
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(document, step):
    assert scanned(document, range(0, len(document), step), "model") == REFUSED


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("document", "model"),
    [
        (b' \r\n\t{ "model" :\n"a" } \n', "a"),
        (b'{"mod\\u0065l":"\\u0061"}', "a"),
        ('{"model":"模型-é"}'.encode(), "模型-é"),
        (b'{"x":"\\"model\\":\\"b\\"","model":"a"}', "a"),
        (b'{"x":"{\\"model","y":"}","model":"a","z":[]}', "a"),
        (b'{"x":{"model":"b","y":[{"model":"c"}]},"model":"a"}', "a"),
        (b'{"x":"\\ud83d","model":"a"}', "a"),  # as clients send it that cut text by UTF-16 units
        (b'{"models":"b","model_":"c","model":"a"}', "a"),
        (b'{"":"","model":"a"}', "a"),
        (b'{"x":[-0.5e+10,true,false,null,[],{},""],"model":"a"}', "a"),
        (b'{"x":"' + b"q" * 50_000 + b'","model":"a","' + b"k" * 256 + b'":"' + b"\\n" * 20_000 + b'"}', "a"),
        (b'{"x":' + b" " * 50_000 + b'1,"model"' + b"\n" * 50_000 + b":" + b" " * 9000 + b'"a"}', "a"),
        (b'{"x":[' + b"1," * 20_000 + b'1],"model":"a"}', "a"),
        (b'{"x":' + b"[" * 499 + b"]" * 499 + b',"model":"a"}', "a"),
        (b'{"x":{"' + b"k" * 20_000 + b'":1},"model":"a"}', "a"),
        (b'{"model":"a"' + b',"x":1' * 999 + b"}", "a"),
    ],
)
def test_what_can_be_read_in_one_way_is_read(document, model, step):
    assert scanned(document, range(0, len(document), step), "model") == {"model": model}


@pytest.mark.parametrize("step", [7, 1000, 100_000])
@pytest.mark.parametrize(
    "document",
    [
        b'{"model":"a","' + b"k" * 257 + b'":1}',
        b'{"model":"a","' + b"k" * 20_000 + b'":1}',
        b'{"model":"' + b"a" * 257 + b'"}',
        b'{"model":"' + b"a" * 20_000 + b'"}',
        b'{"x":' + b"[" * 500 + b"]" * 500 + b',"model":"a"}',
        b'{"x":' + b"[" * 100_000,
        b'{"x":' + b'{"a":' * 100_000,
        b'{"x":' + b"1" * 20_000 + b',"model":"a"}',
        b'{"x":"' + b"q" * 20_000 + b'\\x","model":"a"}',
        b'{"x":"' + b"q" * 20_000 + b'\\u00","model":"a"}',
        b'{"x":"' + b"q" * 20_000 + b'\n","model":"a"}',
        b'{"x":"' + b"q" * 20_000 + b'\xe6","model":"a"}',
        b'{"x":"' + b"q" * 20_000,
        b'{"x":"' + b"q" * 20_000 + b'" 1,"model":"a"}',
        b'{"model":"a","x":[' + b"[]," * 500_000 + b"[]]}",
        b'{"model":"a"' + b',"x":1' * 1000 + b"}",
    ],
    ids=range(16),
)
def test_what_is_too_long_or_broken_in_something_long_is_refused_however_it_comes(document, step):
    assert scanned(document, range(0, len(document), step), "model") == REFUSED
    assert scanned(document, [document.rfind(b',"model"')], "model") == REFUSED


@pytest.mark.parametrize(
    ("tail", "answer"),
    [
        (b'\\u00e9\\n","model":"a"}', {"model": "a"}),
        ('é","model":"a"}'.encode(), {"model": "a"}),
        (b'\\\\","model":"a"}', {"model": "a"}),
        (b'\\\\\\","model":"a"}', REFUSED),
        (b'\\"}', REFUSED),
    ],
)
def test_a_long_string_may_be_cut_in_any_of_its_characters(tail, answer):
    head = b'{"x":"' + b"q" * 20_000
    for cut in range(len(tail)):
        assert scanned(head + tail, [len(head), len(head) + cut], "model") == answer
        assert scanned(head + tail, [len(head) + cut], "model") == answer


def test_a_refusal_says_why_and_nothing_of_the_document():
    for document, reason in [
        (b'{"model":"secret","model":"secret"}', '"model" is in it twice'),
        (b'{"MODEL":"secret"}', '"model" is not written in these letters'),
        (b'{"model":7}', 'its "model" is not a name'),
        (b'{"secret":"secret"}', 'there is no "model" where one must be'),
        (b'{"secret\\u0000":1}', "one of its keys could be read in two ways"),
        (b'{"secret":secret,', "it is not valid JSON"),
        (b'{"a":"\xff",', "it is not UTF-8"),
        (b"secret", "it is not a JSON object in UTF-8"),
        (b'{"model":"secret"} secret', "something follows the JSON object"),
        (b'{"model":"secret"', "it is not one whole JSON object"),
    ]:
        scanner = TopLevelStrings("model")
        with pytest.raises(JsonRefused) as refused:
            scanner.feed(document)
            scanner.finish()
        assert refused.value.reason == reason
        assert "secret" not in str(refused.value)


# In an array


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize(
    ("document", "listed"),
    [
        (b'{"tools":[{"type":"a","model":"x"},{"model":"y","z":[{"model":"n"}]}]}', ["x", "y"]),
        (b'{"tools":[{"z":{"model":"n"},"z":["model","n"],"Mod\\u0065l":"x","model":"y"}]}', ["x", "y"]),
        (b'{"a":[{"model":"n"}],"Tools":[1,"model",[],{},{"model":"x"}],"b":[{"model":"n"}]}', ["x"]),
        (b'{"tools":[],"tools":[{"model":"x"}],"a":{"tools":[{"model":"n"}]}}', ["x"]),
        (b'{"tools":[{"a":"' + b"q" * 20_000 + b'","model":"x"}],"a":[[[{"model":"n"}]]]}', ["x"]),
        (b'{"tools":{"model":"n"},"model":"n"}', []),
        (b'{"tools":[{"model":null}]}', []),
        (b'{"tools":[{"model":{"x":1}}]}', REFUSED),
        (b'{"tools":[{"model":["x"]}]}', REFUSED),
        (b'{"tools":[{"model":"' + b"q" * 20_000 + b'"}]}', REFUSED),
    ],
    ids=range(10),
)
def test_strings_of_an_arrays_objects_are_found_and_no_deeper_ones(document, listed, step):
    scanner = TopLevelStrings(array=("tools", "model"))
    try:
        for at in range(0, len(document), step):
            scanner.feed(document[at : at + step])
        scanner.finish()
    except JsonRefused:
        assert listed == REFUSED
    else:
        assert scanner.listed == listed


# When it is known


def test_a_string_is_known_as_soon_as_something_follows_it():
    scanner = TopLevelStrings("model")
    scanner.feed(b'{"a":[1,2],"model":"x"')
    assert scanner.found == {}
    scanner.feed(b",")
    assert scanner.found == {"model": "x"}


@pytest.mark.parametrize("step", [1, 10, 1000])
@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_it_must_be_known_within_so_many_bytes(step, spare):
    document = b'{"a":"' + b"x" * 50 + b'","model":"a","b":"' + b"x" * 100 + b'"}'
    known = document.index(b',"b"') + 1
    answer = scanned(document, range(0, len(document), step), "model", within=known + spare)
    assert answer == ({"model": "a"} if spare >= 0 else REFUSED)


def test_a_document_shorter_than_that_may_have_it_at_its_very_end():
    document = b'{"a":1,"model":"a"}'
    assert scanned(document, [], "model", within=len(document)) == {"model": "a"}


# What it costs


@pytest.mark.parametrize(
    "document",
    [
        b'{"model":"a","x":["' + b"QUJD" * 5_000_000 + b'"]}',
        b'{"model":"a","x":' + b" " * 20_000_000 + b"1}",
        b'{"model":"a","x":[' + b"12345678," * 2_000_000 + b"1]}",
        b'{"model":"a","x":["' + b"\\n" * 10_000_000 + b'"]}',
    ],
    ids=["a string", "blanks", "numbers", "escapes"],
)
def test_20_mb_are_not_held(document):
    scanner = TopLevelStrings("model")
    tracemalloc.start()
    for at in range(0, len(document), 65_536):
        scanner.feed(document[at : at + 65_536])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    scanner.finish()
    assert peak < 4_000_000
