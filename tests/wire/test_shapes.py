"""Shapes: a head that is recognised reads as one that is met for the first time."""

from hypothesis import given
from hypothesis import strategies as st

from ai_mux.wire.shapes import FieldNames

NOTABLE = {b"host", b"connection", b"accept", b"cf-*"}
NAMES = st.sampled_from(
    [b"Host", b"host", b"A", b"a.b", b"axb", b"Connection", b"Accept", b"Accept-X", b"CF-Ray"]
)
VALUES = st.sampled_from([b"", b" ", b" v", b"\tv ", b" a: b", b" A: b", b" \xff", b" keep-alive"])
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def raw(fields, line=b"GET / HTTP/1.1"):
    return b"\r\n".join([line, *(name + b":" + value for name, value in fields), b"", b""])


def knowing(*heads):
    names = FieldNames(NOTABLE)
    for _ in range(2):
        for head in heads:
            names.learn(names.read(head)[0])
    return names


@given(FIELDS, st.data())
def test_a_learnt_shape_reads_a_head_as_the_loop_does(fields, data):
    names = knowing(raw(fields))
    again = raw([(name, data.draw(VALUES)) for name, _ in fields], line=b"POST /x HTTP/1.1")
    shape, parts = names.read(again)
    fresh, as_cut = FieldNames(NOTABLE).read(again)
    assert shape.is_learnt
    assert not fresh.is_learnt
    assert list(parts) == list(as_cut)
    assert (shape.layout, shape.repeated) == (fresh.layout, fresh.repeated)
    assert shape.values(parts) == fresh.values(as_cut)


@given(FIELDS, FIELDS)
def test_a_shape_is_never_taken_for_another(learnt, met):
    shape, parts = knowing(raw(learnt)).read(raw(met))
    assert shape.spelled == tuple(name for name, _ in met)
    fresh, as_cut = FieldNames(NOTABLE).read(raw(met))
    assert list(parts) == list(as_cut)
    assert shape.values(parts) == fresh.values(as_cut)


@given(FIELDS, FIELDS, st.binary(max_size=8) | st.just(raw([])))
def test_a_head_of_a_learnt_shape_is_found_with_its_end(learnt, met, behind):
    names = knowing(raw(learnt))
    found = names.find(raw(met) + behind)
    if [name for name, _ in learnt] == [name for name, _ in met]:
        assert found is not None
        head, shape, parts = found
        assert head == raw(met)
        assert (shape, list(parts)) == (names.read(head)[0], list(names.read(head)[1]))
    else:
        assert found is None


def test_a_head_that_was_sought_is_not_sought_again():
    head = raw([(b"Host", b" a")])
    names = knowing(head)
    assert names.read(head)[0].is_learnt
    assert not names.read(head, sought=True)[0].is_learnt


@given(FIELDS, st.data())
def test_a_head_that_is_not_there_whole_is_not_found(fields, data):
    head = raw(fields)
    names = knowing(head)
    assert names.find(head[: data.draw(st.integers(0, len(head) - 1))]) is None
    assert names.find(head[len(b"GET / HTTP/1.1") :]) is None


@given(FIELDS)
def test_nothing_is_lost_between_the_parts(fields):
    shape, parts = FieldNames(NOTABLE).read(raw(fields))
    rebuilt = parts[0] + b"\r\n"
    for (name, beginnings), part in zip(shape.layout[1:], parts[1:], strict=True):
        rebuilt += part if name is None else beginnings[0] + part + b"\r\n"
    assert rebuilt + b"\r\n" == raw(fields)


def test_a_shape_is_learnt_when_it_is_met_again():
    head = raw([(b"Host", b" a")])
    names = FieldNames(NOTABLE)
    names.learn(names.read(head)[0])
    assert not names.read(head)[0].is_learnt
    names.learn(names.read(head)[0])
    assert names.read(head)[0].is_learnt


def test_what_is_remembered_has_an_end():
    heads = [raw([(b"Name-%d" % n, b" v")]) for n in range(600)]
    names = knowing(*heads)
    assert names.known <= 16 + 256
    huge = raw([(b"N" * 3000, b" v")])
    assert not knowing(huge).read(huge)[0].is_learnt


def test_the_shapes_that_were_met_last_are_kept():
    heads = [raw([(b"Name-%d" % n, b" v")]) for n in range(17)]
    names = knowing(*heads[:16])
    assert names.read(heads[0])[0].is_learnt
    for _ in range(2):
        names.learn(names.read(heads[16])[0])
    assert [names.read(head)[0].is_learnt for head in heads] == [True, False, *[True] * 15]


def test_shapes_that_are_met_once_do_not_keep_others_from_being_learnt():
    names = knowing(*[raw([(b"Once-%d" % n, b" v")]) for n in range(16)])
    for n in range(5000):
        names.learn(names.read(raw([(b"Name-%d" % n, b" v")]))[0])
    head = raw([(b"Host", b" a")])
    for _ in range(2):
        names.learn(names.read(head)[0])
    assert names.read(head)[0].is_learnt


def test_a_shape_that_many_requests_have_at_once_is_learnt_once():
    head = raw([(b"Host", b" a")])
    names = FieldNames(NOTABLE)
    for shape in [names.read(head)[0] for _ in range(32)]:
        names.learn(shape)
    assert names.known == 1


def test_a_large_head_is_read_by_the_loop():
    names = knowing(raw([(b"Host", b" a")]))
    shape, parts = names.read(raw([(b"Host", b" " + b"a" * 20_000)]))
    assert not shape.is_learnt
    assert shape.values(parts) == {b"host": b"a" * 20_000}
    assert names.find(raw([(b"Host", b" a")]) + b"a" * 20_000) is not None


def test_only_what_somebody_vouched_for_is_remembered():
    names = FieldNames(NOTABLE)
    for n in range(10):
        names.read(raw([(b"Name-%d" % n, b" v")]))
    assert names.known == 0


def test_another_spelling_is_another_shape():
    names = knowing(raw([(b"Host", b" a"), (b"X", b" b")]))
    shape, parts = names.read(raw([(b"host", b" a"), (b"x", b" b")]))
    assert shape.spelled == (b"host", b"x")
    assert parts[-1] == b"x: b\r\n"
