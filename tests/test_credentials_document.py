"""Changing a few values of a JSON document and nothing else."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.credentials.document import changed, parse
from ai_mux.errors import BrokenCredential

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), values, max_size=5)


@given(objects, st.text(), values, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_a_changed_value_is_the_only_difference(document, key, value, indent, ascii_only):
    raw = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert parse(changed(raw, {(key,): value})) == {**document, key: value}


@given(objects, objects, values)
def test_an_inner_value_is_changed_in_its_place(outer, inner, value):
    document = {**outer, "tokens": inner}
    new = parse(changed(json.dumps(document).encode(), {("tokens", "access_token"): value}))
    assert new == {**document, "tokens": {**inner, "access_token": value}}
    assert list(new) == list(document)


def test_every_other_byte_stays():
    raw = b'{ "n": 1e400,\n\t"f" : 0.10 , "a":{"x" :1,"t":"old"}, "u":"\\u00e9\xc3\xa9", "n":2 }\n'
    assert changed(raw, {("a", "t"): "new"}) == raw.replace(b'"old"', b'"new"')


def test_what_is_missing_is_added_at_the_end():
    assert changed(b'{"a": 1 }', {("b", "c"): 2}) == b'{"a": 1,"b":{"c": 2} }'
    assert changed(b"{ }", {("b",): 2}) == b'{"b":2 }'
    assert changed(b'{"b": null}', {("b", "c"): 2}) == b'{"b": {"c": 2}}'


def test_of_repeated_names_the_one_that_readers_take_is_changed():
    assert changed(b'{"a": 1, "a": 2}', {("a",): 3}) == b'{"a": 1, "a": 3}'


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"[]", "a list"),
        (b'"secret-text"', "a string"),
        (b"null", "a value"),
        (b'{"a": "secret-text"', "not JSON"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_object_is_refused_without_quoting_it(raw, why):
    with pytest.raises(BrokenCredential, match=why) as caught:
        parse(raw)
    assert "secret" not in str(caught.value)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_refused(raw):
    with suppress(BrokenCredential):
        assert isinstance(parse(raw), dict)
