"""Figures as a person reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.terminal.figures import compact, counted, dollars, duration


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1.00k"), (1234, "1.23k"), (9994, "9.99k"), (9995, "10.0k"),
     (99_949, "99.9k"), (99_950, "100k"), (999_499, "999k"), (999_500, "1.00M"), (88_400_000, "88.4M"),
     (3 * 10**9, "3.00B"), (2 * 10**12, "2.00T"), (2**53, "9.01P"), (10**19, "1e+19")],
)  # fmt: skip
def test_tokens_are_shown_in_three_digits(number, shown):
    assert compact(number) == shown


@given(st.integers(0, 2**80))
def test_a_figure_is_near_and_short(number):
    shown = compact(number)
    assert len(shown) <= 5
    unit = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "P": 1e15}.get(shown[-1])
    value = float(shown) if unit is None else float(shown[:-1]) * unit
    assert abs(value - number) <= 0.5 * number if "e" in shown else abs(value - number) <= 0.006 * number


@pytest.mark.parametrize(
    ("number", "shown"), [(12_345, "12,345"), (999_999, "999,999"), (1_000_000, "1.00M")]
)
def test_requests_are_exact_as_long_as_there_is_room(number, shown):
    assert counted(number) == shown


@pytest.mark.parametrize(
    ("cost", "shown"),
    [(0, "$0.00"), (1, "<$0.01"), (9_999, "<$0.01"), (10_000, "$0.01"), (14_999, "$0.01"), (15_000, "$0.02"),
     (3_410_000, "$3.41"), (1_234_567_890, "$1,234.57"), (99_999_994_999, "$99,999.99"),
     (99_999_995_000, "$100k"), (2_500_000 * 10**6, "$2.50M")],
)  # fmt: skip
def test_money_is_shown_to_the_cent(cost, shown):
    assert dollars(cost) == shown


@pytest.mark.parametrize(
    ("cost", "shown"),
    [(0, "$0"), (1, "<$1"), (999_999, "<$1"), (10**6, "$1"), (1_499_999, "$1"), (812_500_000, "$813"),
     (80_000 * 10**6, "$80.0k"), (160_000 * 10**6, "$160k")],
)  # fmt: skip
def test_money_beside_a_large_sum_is_written_as_that_is(cost, shown):
    assert dollars(cost, beside=160_000 * 10**6) == shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (3660, "1h1m"),
        (86_400, "1d"), (90_000, "1d1h"), (-40_000, "-11h6m"),
    ],
)  # fmt: skip
def test_a_duration_is_one_word(seconds, words):
    assert duration(seconds) == words
