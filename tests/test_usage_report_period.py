"""Times as people type them. Noon of Sunday, 22 November 2026, everywhere."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.usage_report.period import DAY_S, stretch

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


def at(*moment):
    return datetime(*moment, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("written", "begins", "ends"),
    [
        ("2026-11-20", at(2026, 11, 20), at(2026, 11, 21)),
        ("2024-02-29", at(2024, 2, 29), at(2024, 3, 1)),
        ("today", at(2026, 11, 22), at(2026, 11, 23)),
        ("yesterday", at(2026, 11, 21), at(2026, 11, 22)),
    ],
)
def test_a_date_is_a_whole_day_in_utc(written, begins, ends):
    assert stretch(written, NOON) == (begins, ends)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-11-20T14:00:00Z", at(2026, 11, 20, 14)),
        ("2026-11-20t14:00:00z", at(2026, 11, 20, 14)),
        ("2026-11-20 14:00:00Z", at(2026, 11, 20, 14)),
        ("2026-11-20T14:00:30.5Z", at(2026, 11, 20, 14, 0, 30, 500_000)),
        ("2026-11-20T14:00:00+01:00", at(2026, 11, 20, 13)),
        ("2026-11-20T00:30:00-05:00", at(2026, 11, 20, 5, 30)),
        ("2026-11-20T14:00", at(2026, 11, 20, 14)),
        ("2026-11-20T14", at(2026, 11, 20, 14)),
        ("90s", NOON - 90),
        ("30m", NOON - 1800),
        ("24h", NOON - DAY_S),
        ("7d", NOON - 7 * DAY_S),
        ("2w", NOON - 14 * DAY_S),
        ("0d", NOON),
    ],
)
def test_a_time_or_an_age_is_a_moment(written, moment):
    assert stretch(written, NOON) == (moment, moment)


@pytest.fixture
def tokyo(monkeypatch):
    """Be in another zone, as the machine sees it."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_field_note_24_a_day_is_the_same_wherever_one_is():
    test_a_date_is_a_whole_day_in_utc("2026-11-20", at(2026, 11, 20), at(2026, 11, 21))
    test_a_date_is_a_whole_day_in_utc("today", at(2026, 11, 22), at(2026, 11, 23))
    test_a_time_or_an_age_is_a_moment("2026-11-20T14:00", at(2026, 11, 20, 14))


@pytest.mark.parametrize("written", ["999999999w", "1969-12-31", "0001-01-01T00:00:00+14:00"])
def test_nothing_began_before_1970(written):
    assert stretch(written, NOON)[0] == 0.0


@pytest.mark.parametrize(
    "written",
    ["", "7", "d7", "7 d", "-7d", "7.5d", "1d12h", "tomorrow", "last week", "2026-11", "20261122", "2026-W47",
     "22.11.2026", "2026-11-22Z", "2026-11-22T", "2026-11-22T14:00 +01:00", "٢d", "9999999999d"],
)  # fmt: skip
def test_what_is_not_a_time_is_answered_with_what_is(written):
    with pytest.raises(ValueError, match=r"write a date \(2026-11-22\), .* today or yesterday"):
        stretch(written, NOON)


@pytest.mark.parametrize(
    "written", ["2026-02-30", "2026-13-01", "2026-11-22T25:00Z", "2026-11-22T10:00+99:00"]
)
def test_a_time_that_never_is_is_told_as_such(written):
    with pytest.raises(ValueError, match="there is no such time"):
        stretch(written, NOON)


@given(st.text(max_size=30))
def test_no_text_is_too_strange(written):
    try:
        begins, ends = stretch(written, NOON)
    except ValueError:
        return
    assert 0 <= begins <= ends


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 12, 30)))
def test_every_time_is_read_as_it_is_printed(moment):
    moment = moment.replace(tzinfo=UTC)
    assert stretch(moment.isoformat(), NOON) == (moment.timestamp(), moment.timestamp())
    day = datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp()
    assert stretch(f"{moment:%Y-%m-%d}", NOON) == (day, day + DAY_S)
