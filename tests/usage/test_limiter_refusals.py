"""What users read when a limit refuses them, word for word, and as the documentation has it."""

from datetime import UTC, datetime

import documents
import pytest

from ai_mux.limits import Quantity, Rule
from ai_mux.usage.limiter import IMPLIED_CONCURRENT
from ai_mux.usage.refusal import at_once, spoken_for, used_up

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()
DAY = 86400


def rule(quantity, amount, window_s, text):
    return Rule(quantity=quantity, amount=amount, window_s=window_s, text=text)


SIXTY = rule(Quantity.REQUESTS, 60, 60, "60/min")
MILLIONS = rule(Quantity.TOKENS, 5_000_000, DAY, "5M/day")
DOLLARS = rule(Quantity.COST, 20_000_000, 7 * DAY, "$20/week")


def test_the_documentation_says_what_is_said():
    at = datetime(2026, 11, 22, 14, 3, 8, tzinfo=UTC).timestamp()
    told = [
        used_up(SIXTY, 12_000, at),
        used_up(MILLIONS, 1000 * (11 * 3600 + 27 * 60), at),
        used_up(DOLLARS, 1000 * (2 * DAY + 19 * 3600 + 9 * 60 + 36), at),
        at_once(8, 8, implied=False),
        at_once(32, 32, implied=True),
        spoken_for(MILLIONS, 3),
    ]
    (documented,) = documents.blocks("text", document="docs/reference/limits.md")
    assert [one.public_message for one in told] == documented.splitlines()
    text = (documents.ROOT / "docs/reference/limits.md").read_text()
    assert f"may run {IMPLIED_CONCURRENT} requests at once" in text


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (rule(Quantity.REQUESTS, 1, 1, "1/s"), "1 request per second (1/s)"),
        (rule(Quantity.REQUESTS, 1000, 5 * 3600, "1k/5h"), "1,000 requests per 5 hours (1k/5h)"),
        (rule(Quantity.TOKENS, 1, 90, "1/90s"), "1 token per 90 seconds (1/90s)"),
        (rule(Quantity.TOKENS, 2, 30 * DAY, "2/month"), "2 tokens per 30 days (2/month)"),
        (rule(Quantity.COST, 500_000, 3600, "$0.50/h"), "$0.50 of notional cost per hour ($0.50/h)"),
        (rule(Quantity.COST, 1_234_000_001, DAY, "x"), "$1,234.000001 of notional cost per day (x)"),
    ],
)
def test_a_limit_is_told_as_it_was_written_and_in_words(limit, words):
    assert used_up(limit, 1, NOON).public_message.startswith(f"Your limit of {words} is used up; ")
    assert f"your limit of {words}." in spoken_for(limit, 2).public_message


@pytest.mark.parametrize(
    ("wait_ms", "wall_s", "retry_after_s", "words"),
    [
        (1, NOON, 1, "at 12:00:01 UTC, in 1 s"),
        (1000, NOON, 1, "at 12:00:01 UTC, in 1 s"),
        (1001, NOON, 2, "at 12:00:02 UTC, in 2 s"),
        (1000, NOON + 0.5, 1, "at 12:00:02 UTC, in 1 s"),  # by the clock it is a moment after 12:00:01
        (60_000, NOON, 60, "at 12:01:00 UTC, in 1 min"),
        (3_599_000, NOON, 3599, "at 12:59:59 UTC, in 59 min 59 s"),
        (3_600_000, NOON, 3600, "at 13:00:00 UTC, in 1 h"),
        (43_199_000, NOON, 43_199, "at 23:59:59 UTC, in 11 h 59 min"),
        (43_200_000, NOON, 43_200, "at 2026-11-23 00:00:00 UTC, in 12 h"),
        (90_000_000, NOON, 90_000, "at 2026-11-23 13:00:00 UTC, in 1 d 1 h"),
        (86_460_000, NOON, 86_460, "at 2026-11-23 12:01:00 UTC, in 1 d"),
        (61_000, NOON, 61, "at 12:01:01 UTC, in 1 min 1 s"),
    ],
)
def test_until_when_is_told_by_the_clock_and_as_a_span(wait_ms, wall_s, retry_after_s, words):
    refused = used_up(SIXTY, wait_ms, wall_s)
    assert refused.public_message.endswith(f"; there will be room {words}.")
    assert refused.retry_after_s == retry_after_s
    assert refused.resets_at - 1 < wall_s + wait_ms / 1000 <= refused.resets_at


def test_only_a_short_wait_is_worth_trying_again():
    assert used_up(SIXTY, 60_000, NOON).retry
    assert not used_up(SIXTY, 60_001, NOON).retry
    assert at_once(1, 1, implied=False).retry


def test_one_request_is_one_request():
    assert at_once(1, 1, implied=False).public_message == (
        "A request of yours is running, and your limit is 1 at once. Try again when one has ended."
    )
    assert spoken_for(MILLIONS, 1).public_message.startswith("A request of yours is running and may use ")
