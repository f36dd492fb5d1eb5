"""Which groups a report shows, and in which order; over ledgers in real files."""

from contextlib import closing

import pytest
from fakes.rows import DAY_S, HOUR_S, NOON, refused, row, unmetered, write
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.storage.sqlite import open_for_reading
from ai_mux.usage.store import Group, Sums, together
from ai_mux.usage.tally import MicroUsd, Tokens
from ai_mux.usage_report import Asked, gather
from ai_mux.usage_report.layout import cost_of
from ai_mux.usage_report.rows import ordered, shortened, table


@pytest.fixture
def report(tmp_path):
    """Make a report of these rows."""

    def made(rows, now_s=NOON, **asked):
        with closing(open_for_reading(write(tmp_path, rows))) as ledger:
            return gather(ledger, Asked(**asked), now_s=now_s)

    return made


def keys(table):
    return [group.key for group in table.rows]


# A survey


def test_a_survey_tells_who_what_and_when_in_the_last_seven_days(report):
    made = report([row(), row("bob", ago_s=6 * DAY_S), row("carol", ago_s=7 * DAY_S)])
    assert [one.by for one in made.tables] == [("user",), ("model",), ("day",)]
    assert keys(made.tables[0]) == [("alice",), ("bob",)]
    assert made.is_survey
    assert made.until_now


def test_a_survey_of_two_days_shows_hours(report):
    made = report([row()], since_s=NOON - 2 * DAY_S)
    assert made.tables[2].by == ("hour",)
    made = report([row()], since_s=NOON - 2 * DAY_S - 1)
    assert made.tables[2].by == ("day",)


def test_a_survey_of_one_user_shows_the_providers(report):
    rows = [row(), row("bob"), row(provider="chatgpt", model="gpt-5.1")]
    made = report(rows, user="alice")
    assert made.tables[0].by == ("provider",)
    assert sorted(keys(made.tables[0])) == [("chatgpt",), ("claude",)]
    assert all(one.total.requests == 2 for one in made.tables)


def test_all_tables_of_a_survey_have_the_same_total(report):
    rows = [
        row("bob", "gpt-5.1", ago_s=DAY_S),
        *(row(ago_s=number * HOUR_S) for number in range(50)),
        unmetered("carol"),
        refused("bob"),
        row("dave", "unknown-1", cost=None),
    ]
    made = report(rows)
    total = made.tables[0].total
    assert (total.requests, total.errors, total.unmetered, total.unpriced) == (54, 1, 1, 1)
    assert all(one.total == total for one in made.tables)
    assert all(together(group.sums for group in one.rows) == total for one in made.tables)


# The time asked about


def test_what_ends_at_the_end_of_the_time_asked_about_does_not_belong_to_it(report):
    made = report([row(ago_s=2 * HOUR_S), row("bob", ago_s=HOUR_S)], by=("user",), until_s=NOON - HOUR_S)
    assert keys(made.tables[0]) == [("alice",)]


def test_what_a_wrong_clock_put_into_the_future_is_shown_unless_an_end_was_asked_for(report):
    rows = [row(), row("bob", ago_s=-40 * DAY_S)]
    assert keys(report(rows, by=("user",)).tables[0]) == [("alice",), ("bob",)]
    assert keys(report(rows, by=("user",), until_s=NOON).tables[0]) == [("alice",)]


def test_where_nothing_is_found_the_users_of_other_times_are_known(report):
    made = report([row(ago_s=30 * DAY_S), row("bob", ago_s=60 * DAY_S)])
    assert made.is_empty
    assert made.known_users == ("alice", "bob")
    assert report([row()]).known_users == ()


# Order


def test_the_costliest_comes_first_then_tokens_then_requests_then_the_name(report):
    few, many = Tokens(1, 0, 0, 0, 1), Tokens(9, 0, 0, 0, 9)
    rows = [
        row("d", cost=None, tokens=few),
        row("e", cost=None, tokens=many),
        row("a", cost=5),
        row("b", cost=7),
        refused("c2"),
        refused("c1"),
        refused("c0"),
        refused("c0"),
    ]
    made = report(rows, by=("user",))
    assert [key for (key,) in keys(made.tables[0])] == ["b", "a", "e", "d", "c0", "c1", "c2"]


def test_groups_stand_together_and_the_costliest_group_comes_first(report):
    rows = [
        row("alice", "small", cost=1),
        row("alice", "large", cost=9),
        row("bob", "large", cost=11),
        row("alice", "middle", cost=3),
    ]
    made = report(rows, by=("user", "model"))
    assert keys(made.tables[0]) == [
        ("alice", "large"), ("alice", "middle"), ("alice", "small"), ("bob", "large"),
    ]  # fmt: skip


def test_times_stand_in_their_own_order(report):
    rows = [row("bob", ago_s=2 * DAY_S, cost=1), row("bob", ago_s=0.5, cost=99), row("alice", cost=50)]
    assert keys(report(rows, by=("user", "day")).tables[0]) == [
        ("bob", "2026-11-20"), ("bob", "2026-11-22"), ("alice", "2026-11-22"),
    ]  # fmt: skip
    assert keys(report(rows, by=("day", "user")).tables[0]) == [
        ("2026-11-20", "bob"), ("2026-11-22", "bob"), ("2026-11-22", "alice"),
    ]  # fmt: skip


# Silence


def test_days_without_requests_are_shown_from_the_first_that_has_any_to_the_end(report):
    rows = [row(ago_s=4 * DAY_S), row(ago_s=2 * DAY_S)]
    made = report(rows, by=("day",)).tables[0]
    assert [key[0][-2:] for key in keys(made)] == ["18", "19", "20", "21", "22"]
    assert [group.sums.requests for group in made.rows] == [1, 0, 1, 0, 0]
    assert made.total.requests == 2


def test_a_day_that_had_not_begun_at_the_end_is_not_shown(report):
    midnight = NOON - 12 * HOUR_S
    made = report([row(ago_s=2 * DAY_S)], by=("day",), until_s=midnight).tables[0]
    assert keys(made) == [("2026-11-20",), ("2026-11-21",)]


def test_hours_of_the_future_are_not_shown(report):
    made = report([row(ago_s=HOUR_S)], by=("hour",), since_s=NOON - HOUR_S, until_s=NOON + DAY_S).tables[0]
    assert keys(made) == [("2026-11-22T11",)]


def test_gaps_are_not_filled_where_that_would_be_a_list_without_end(report):
    rows = [row(at_s=5.0), row()]
    made = report(rows, by=("hour",), since_s=0.0).tables[0]
    assert keys(made) == [("1970-01-01T00",), ("2026-11-22T11",)]


def test_gaps_are_filled_up_to_the_last_day_there_is(report):
    made = report([row(at_s=253_402_300_000.0)], by=("day",)).tables[0]
    assert keys(made) == [("9999-12-31",)]


# Rows that do not fit


def groups():
    sums = st.builds(
        Sums,
        *(st.integers(0, 1000) for _ in range(4)),
        st.builds(Tokens, *(st.integers(0, 10**9) for _ in range(5))),
        st.integers(0, 10**12).map(MicroUsd),
        *(st.integers(0, 10**12) for _ in range(2)),
    )
    names = st.text("abc", max_size=3)
    return st.dictionaries(st.tuples(names, names), sums, max_size=30).map(
        lambda found: [Group(key, sums) for key, sums in found.items()]
    )


@given(groups(), st.integers(1, 12))
def test_what_is_left_out_is_summed_up(several, most):
    whole = table(("user", "model"), several, until_s=NOON)
    cut = shortened(whole, most)
    assert len(cut.rows) + cut.left_out == len(several)
    assert together([*(group.sums for group in cut.rows), cut.rest]) == whole.total == cut.total
    assert len(cut.rows) + (cut.left_out > 0) <= most + 1
    assert whole.rows[: len(cut.rows)] == cut.rows


def test_of_days_the_earlier_are_left_out(report):
    whole = report([row(ago_s=number * DAY_S) for number in range(5)], by=("day",)).tables[0]
    cut = shortened(whole, 3)
    assert keys(cut) == keys(whole)[2:]
    assert (cut.left_out, cut.rest.requests) == (2, 2)


@given(groups())
def test_every_group_has_a_place_and_groups_stand_together(several):
    found = ordered(("user", "model"), several)
    assert sorted(one.key for one in found) == sorted(one.key for one in several)
    users = [one.key[0] for one in found]
    assert len(set(users)) == sum(users[at : at + 1] != users[at - 1 : at] for at in range(len(users)))


# Figures


def test_what_has_no_price_does_not_look_free(report):
    made = report([row("alice", cost=None), row("bob", cost=0), refused("carol")], by=("user",))
    assert {key: cost_of(sums) for (key,), sums in made.tables[0].rows} == {
        "alice": "-", "bob": "$0.00", "carol": "$0.00",
    }  # fmt: skip
