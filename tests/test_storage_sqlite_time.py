"""What the SQLite ledger says users have spent, and how it forgets what is too old."""

import tempfile
from pathlib import Path

import pytest
from fakes.rows import DAY_S, HOUR_S, NOON, SOME, refused, row, unmetered
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_mux.storage.sqlite import SqliteStore
from ai_mux.usage.store import Query
from ai_mux.usage.tally import NO_TOKENS, Tokens

EVER = Query(0.0, 1e18)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "usage.sqlite"


@pytest.fixture
def store(path):
    store = SqliteStore(path)
    yield store
    store.close()


def users(store) -> list[str]:
    return [group.key[0] for group in store.sums(Query(0.0, 1e18, ("user",)))]


# What users have spent


def test_what_was_spent_lately_is_told_in_60ths_of_the_window(store):
    now = NOON + 1234.5
    store.append([row(at_s=now - 60.0), row(at_s=now - 30.5), row(at_s=now - 0.5), row(at_s=now - 60.5)])
    spent = sorted(store.spent(now - 60, now), key=lambda one: one.at_s)
    assert [(one.at_s, one.requests, one.tokens, one.cost) for one in spent] == [
        (pytest.approx(now - 59), 1, SOME.total, 1500),
        (pytest.approx(now - 30), 1, SOME.total, 1500),
        (pytest.approx(now), 1, SOME.total, 1500),
    ]


def test_what_was_spent_long_ago_is_told_in_hours_and_the_first_one_from_when_the_window_begins(store):
    begin = NOON + HOUR_S / 2
    store.append([row(at_s=begin + offset) for offset in (-0.5, 0.5, 1799.5, 1800.5)])
    told = sorted((one.at_s, one.requests) for one in store.spent(begin, begin + 10 * HOUR_S))
    assert told == [(NOON + HOUR_S, 2), (NOON + 2 * HOUR_S, 1)]


def test_what_is_from_the_future_is_from_now_unless_it_is_further_ahead_than_the_window_is_long(store):
    for hours in (0.1, 0.9, 1.1, 1.9, 2.0, 2.1, 2.9, 3.1, 22.5, 24.1, 1000):
        store.append([row(at_s=NOON + hours * HOUR_S)])
    spent = store.spent(NOON - DAY_S, NOON)
    assert {one.at_s for one in spent} == {NOON}
    assert sum(one.requests for one in spent) == 9


def test_what_used_nothing_counts_as_no_request(store):
    store.append([refused(), unmetered(), row(tokens=NO_TOKENS, metering="none", status=200, cost=None)])
    [spent] = store.spent(NOON - HOUR_S, NOON)
    assert (spent.requests, spent.tokens, spent.cost) == (1, 0, 0)


@settings(max_examples=150)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["alice", "bob"]),
            st.floats(-1, 1),
            st.sampled_from([None, -0.5, 0.0, 0.5]),  # at the edge of an hour, or anywhere
        ),
        max_size=40,
    ),
    window_s=st.sampled_from([1, 60, 3600, 5000, DAY_S, 7 * DAY_S, 31 * DAY_S]),
    now=st.floats(NOON, NOON + HOUR_S),
)
def test_what_was_spent_is_never_told_too_early_nor_much_too_late(rows, window_s, now):
    everything = []
    for index, (user, share, edge) in enumerate(rows):
        at = now + share * 1.5 * window_s
        at = at if edge is None else round(at / HOUR_S) * HOUR_S + edge
        everything.append(row(user, at_s=at, tokens=Tokens(input=1 << index), cost=index))
    longest_s = max(window_s / 60, HOUR_S)
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "usage.sqlite")
        store.append(everything)
        spent = store.spent(now - window_s, now)
        store.close()
    left = {one.tokens.input: one for one in everything}
    for stretch in spent:
        of = [one for bit, one in left.items() if stretch.tokens & bit]
        assert stretch.tokens == sum(one.tokens.input for one in of)
        assert stretch.requests == len(of)
        assert stretch.cost == sum(one.cost for one in of)
        assert {one.user for one in of} == {stretch.user}
        assert all(one.ended_at >= now - window_s for one in of)
        assert stretch.at_s <= now
        for one in of:
            del left[one.tokens.input]
            assert min(one.ended_at, now) <= stretch.at_s + 1e-6
            assert stretch.at_s - one.ended_at <= longest_s + 1e-6
            assert one.ended_at <= now + window_s
    # Left out is what was before, and what is further ahead than the window is long.
    for one in left.values():
        assert one.ended_at < now - window_s or one.ended_at > now + window_s - HOUR_S
        assert one.ended_at <= now or one.ended_at >= now + min(window_s, HOUR_S)


def test_a_window_without_length_has_nothing(store):
    store.append([row()])
    assert store.spent(NOON, NOON) == store.spent(NOON + 1, NOON) == []


# What is too old


def forget(store, before_s: float) -> int:
    """Forget all that is to be forgotten; return in how many steps."""
    steps = 1
    while store.forget_before(before_s).more:
        steps += 1
    return steps


def test_rows_and_sums_of_hours_that_are_too_old_go_in_small_steps(store):
    store.append([row(ago_s=10 * DAY_S + one) for one in range(1600)])
    store.append([row(ago_s=2 * DAY_S), row(ago_s=DAY_S)])
    assert forget(store, NOON - 5 * DAY_S) > 3
    for query in (EVER, Query(NOON - 2 * DAY_S - 60, NOON)):  # by hours, and by rows
        assert [group.sums.requests for group in store.sums(query)] == [2]
    assert forget(store, NOON - 5 * DAY_S) == 1


def test_each_step_of_forgetting_says_how_many_requests_it_took(store):
    store.append([row(ago_s=10 * DAY_S + one) for one in range(1600)] + [row()])
    steps = [store.forget_before(NOON - 5 * DAY_S) for _ in range(5)]
    assert sum(one.rows for one in steps) == 1600
    assert steps[-1] == (0, False)


def test_the_last_request_before_a_time_is_found(store):
    assert store.last_before(NOON) is None
    store.append([row(at_s=NOON), row(at_s=NOON - DAY_S), row(at_s=NOON + DAY_S)])
    assert [store.last_before(NOON + away) for away in (1e9, 1, 0, -DAY_S)] == [
        NOON + DAY_S, NOON, NOON - DAY_S, None,
    ]  # fmt: skip


def test_an_hour_is_kept_or_forgotten_whole(store):
    store.append([row(at_s=NOON + 10), row(at_s=NOON + 3000)])
    forget(store, NOON + 1000)
    assert store.sums(EVER)[0].sums.requests == 2
    assert store.sums(Query(NOON, NOON + 2000))[0].sums.requests == 1  # by its rows
    forget(store, NOON + HOUR_S)
    assert store.sums(EVER) == []


def test_rows_from_the_future_stay_and_keep_nothing_from_being_forgotten(store):
    later = row("later", at_s=NOON + 900 * DAY_S)
    store.append([later, row("old", ago_s=500 * DAY_S), row("new")])
    forget(store, NOON - 400 * DAY_S)
    assert users(store) == ["later", "new"]


def test_a_file_shrinks_when_much_was_forgotten(store, path):
    for _ in range(20):
        store.append([row(ago_s=10 * DAY_S, model="m" * 200)] * 1000)
    store.append([row()])
    store.close()
    large = path.stat().st_size
    forget(store, NOON - DAY_S)
    store.close()
    assert path.stat().st_size < large / 2
    assert store.sums(EVER)[0].sums.requests == 1
