"""Both ends of a JSON object read as a parser of the whole reads them, or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.wire.json_ends import members_from, way_to

KEY = b'"usage"'
TO_KEY = way_to(KEY).match
TO_INNER = way_to(KEY, inside=b'"answer"').match

names = st.sampled_from(["usage", "answer", 'not "usage', "usage\\", "a", "", '","usage":1,"', "é\u2028"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    names,
    st.text(max_size=8),
    st.sampled_from(['{"usage":{"a":1}}', '\\"usage\\":', '}},"usage":1}', "\\", '"']),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=5)
written = st.sampled_from(
    [
        {"separators": (",", ":")},
        {},
        {"indent": 1},
        {"ensure_ascii": False, "separators": (" ,\t", " :\r\n")},
    ]
)


def dumped(document: object, how: dict[str, object]) -> bytes:
    return json.dumps(document, **how).encode("utf-8", errors="replace")


@given(objects, written, st.sampled_from([b"", b"\n", b" \r\n\t"]))
def test_members_from_a_key_on_are_the_outermost_objects(document, how, blank):
    raw = dumped(document, how) + blank
    document = json.loads(raw)
    for at in range(-1, len(raw)):
        if at < 0 or raw.startswith(KEY, at):
            found = members_from(raw, at)
            if found is not None:
                assert list(found.items()) == list(document.items())[-len(found) :]
                assert next(iter(found)) == "usage"


plain = st.dictionaries(
    st.sampled_from(["a", "b", 'not "usage', "", "\\"]),
    st.recursive(
        st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=6
    ),
    max_size=4,
)


@given(plain, values, plain, written)
def test_a_key_of_the_outermost_object_is_found(before, value, after, how):
    after = {f"{name}!": inner for name, inner in after.items()}
    raw = dumped({**before, "usage": value, **after}, how)
    places = [at for at in range(len(raw)) if raw.startswith(KEY, at)]
    assert json.loads(dumped({"usage": value, **after}, how)) in [members_from(raw, at) for at in places]


@given(objects, written)
def test_a_member_that_is_a_string_is_found_behind_others_that_are_no_objects(document, how):
    raw = dumped(document, how)
    document = json.loads(raw)
    found = TO_KEY(raw)
    before = list(document)[: list(document).index("usage")] if "usage" in document else []
    flat = not any(isinstance(document[name], (dict, list)) for name in before)
    value = document.get("usage")
    if isinstance(value, str) and flat and '"' not in value and "\\" not in value and value.isprintable():
        if how.get("ensure_ascii") is False or value.isascii():
            assert found[1].decode() == value
    elif not isinstance(value, str):
        assert found is None
    if found is not None:
        assert json.loads(b'"' + found[1] + b'"') == value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"usage":"x","a":1}', b"x"),
        (b' { "a" : null , "b":"\\"","c":-1.5e9,\n"usage" : "x"', b"x"),
        (b'{"usage":"","usage":"y"}', b""),
        (b'{"usage":"\\u0078"}', None),
        (b'{"usage":1,"a":"x"}', None),
        (b'{"a":{"usage":"x"}}', None),
        (b'{"a":["usage","x"],"usage":"x"}', None),
        (b'{"a":"usage","usage":"x"}', b"x"),
        (b'["usage","x"]', None),
    ],
)
def test_a_string_is_the_outermost_objects_or_none(raw, value):
    found = TO_KEY(raw)
    assert (found and found[1]) == value


@given(objects, objects, written)
def test_a_string_inside_another_member_is_found(outer, inner, how):
    document = {**{name: value for name, value in outer.items() if name != "answer"}, "answer": inner}
    raw = dumped(document, how)
    found = TO_INNER(raw)
    if found is not None:
        assert json.loads(b'"' + found[1] + b'"') == json.loads(raw)["answer"]["usage"]
    elif "usage" in inner and next(iter(inner)) == "usage" and inner["usage"] in ("a", "usage", "answer"):
        assert any(isinstance(value, (dict, list)) for value in outer.values())


@pytest.mark.parametrize(
    "raw",
    [
        b'"usage":1}',  # at the very beginning nothing tells what stood before
        b'{"a":"x","usage":1',
        b'{"a":1,"usage":1}}',
        b'{"a":1,"usage":1},',
        b'{"a":1,"usage":1}]',
        b'{"a":1,"usage"}',
        b'{"a":1,"usage":}',
        b'[1,"usage"]',
        b'{"a":"usage"}',
        b'{"a\\"usage":1}',
        b'{"a":1,"usage":' + b"[" * 100_000,
        b'{"a":1,"usage":"\xff"}',
        b'{"a":1,"usage":' + b"9" * 5000 + b"}",
    ],
)
def test_what_proves_nothing_is_not_found(raw):
    assert members_from(raw, raw.rfind(KEY)) is None
    assert members_from(raw, -1) is None


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":' * 50_000 + b'"usage":"x"',
        b'{"a":"' + b'\\"' * 100_000,
        b'{"a":' + b"1" * 200_000,
        b"{" + b'"a":1,' * 50_000,
        b" " * 200_000,
        b"{" + b" " * 200_000 + b'"a"',
    ],
    ids=["nested", "escapes", "digits", "members", "blanks", "more blanks"],
)
def test_a_beginning_is_read_once_and_not_again_and_again(raw):
    """In time that grows with its length: backtracking would take minutes."""
    assert TO_KEY(raw) is None
    assert TO_INNER(raw) is None
