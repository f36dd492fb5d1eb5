"""What could not be read counts against limits by an estimate; the ledger keeps what is known."""

import pytest
from fakes.books import KeptRows, books
from fakes.clock import FakeClock

from ai_mux.errors import LimitReached
from ai_mux.limits import Limits, Quantity, Rule
from ai_mux.logs import Log
from ai_mux.usage.accounting import Accounting
from ai_mux.usage.reading import UNMETERED
from ai_mux.usage.tally import NO_TOKENS, NOTHING_READ, Reading, Tokens
from ai_mux.users import User

TOKENS = Rule(quantity=Quantity.TOKENS, amount=10_000, window_s=3600, text="10k/h")
COST = Rule(quantity=Quantity.COST, amount=1_000_000, window_s=3600, text="$1/h")
REQUESTS = Rule(quantity=Quantity.REQUESTS, amount=3, window_s=3600, text="3/h")
ALICE = User(name="alice", limits=Limits(rules=(TOKENS, COST, REQUESTS)))
MODEL = "claude-sonnet-4-5"


@pytest.fixture
def rows() -> KeptRows:
    return KeptRows()


@pytest.fixture
def lines() -> list[bytes]:
    return []


@pytest.fixture
def accounting(rows: KeptRows, lines: list[bytes]) -> Accounting:
    clock = FakeClock()
    return books(rows, clock=clock, log=Log(level="debug", write=lines.append, clock=clock))  # type: ignore[arg-type, return-value]


def used(accounting: Accounting, of: str) -> int:
    standing = accounting.limiter.standing(ALICE.name, ALICE.limits)
    return next(one.used for one in standing if one.limit == of)


def ask(accounting: Accounting, reading: Reading, *, user: User = ALICE, **more: object) -> None:
    """Begin and end a request that was answered like this."""
    facts: dict[str, object] = {
        "lease": accounting.begin(user),
        "user": user.name,
        "request_id": "amx_made_up",
        "credential": "claude:login",
        "provider": "claude",
        "path": "/claude/v1/messages",
        "model": MODEL,
        "status": 200,
        "reading": reading,
        "bytes_in": 400,
        "bytes_out": 3200,
        "head_ms": 1.0,
        "total_ms": 2.0,
        "end": "done",
        "remote": "127.0.0.1",
        "method": b"POST",
    }
    accounting.enter(**(facts | more))  # type: ignore[arg-type]


def test_what_was_read_whole_counts_as_it_is(accounting, rows):
    ask(accounting, Reading(Tokens(input=7, output=5), "whole", MODEL))
    assert used(accounting, "tokens") == 12
    assert used(accounting, "cost") == rows.records[0].cost == 96  # $3 and $15 for a million


def test_a_cut_answer_counts_by_its_bytes_where_those_say_more(accounting, rows):
    ask(accounting, Reading(Tokens(input=7, output=1), "partial", MODEL))
    assert used(accounting, "tokens") == 7 + 3200 // 32
    assert rows.records[0].tokens == Tokens(input=7, output=1)
    assert used(accounting, "cost") == 7 * 3 + 100 * 15


def test_a_cut_answer_counts_by_its_words_where_those_say_more(accounting):
    ask(accounting, Reading(Tokens(cache_read=70, output=900), "partial", MODEL))
    assert used(accounting, "tokens") == 970


def test_an_unread_answer_counts_by_the_bytes_of_both(accounting, rows):
    ask(accounting, UNMETERED)
    assert used(accounting, "tokens") == 400 // 4 + 3200 // 32
    assert used(accounting, "cost") == 100 * 3 + 100 * 15
    assert (rows.records[0].tokens, rows.records[0].cost) == (NO_TOKENS, None)


def test_what_came_packed_counts_unpacked(accounting):
    ask(accounting, UNMETERED, bytes_out=320, answer_bytes=6400)
    assert used(accounting, "tokens") == 100 + 200


def test_an_unread_answer_counts_no_less_than_the_largest_before(accounting):
    ask(accounting, Reading(Tokens(input=5000), "whole", MODEL))
    ask(accounting, UNMETERED, bytes_out=0)
    assert used(accounting, "tokens") == 10_000
    with pytest.raises(LimitReached):
        accounting.begin(ALICE)


def test_an_unread_answer_costs_no_less_than_the_dearest_before(accounting):
    ask(accounting, Reading(Tokens(output=5000), "whole", MODEL))
    ask(accounting, UNMETERED, bytes_out=0)
    assert used(accounting, "cost") == 2 * 5000 * 15


def test_a_path_is_kept_as_far_as_it_may_be_long(accounting, rows):
    ask(accounting, NOTHING_READ, path="/claude/" + "x" * 247)
    ask(accounting, NOTHING_READ, path="/claude/" + "x" * 248)
    ask(accounting, NOTHING_READ, path="/claude/" + "x" * 249)
    assert [len(one.path) for one in rows.records] == [255, 256, 256]


def test_an_error_counts_for_nothing(accounting):
    ask(accounting, NOTHING_READ, status=529)
    assert used(accounting, "tokens") == used(accounting, "cost") == 0
    assert used(accounting, "requests") == 1


def test_a_request_that_reached_nobody_is_taken_back(accounting):
    for _ in range(5):
        lease = accounting.begin(ALICE)
        lease.withdraw()
        lease.settle(9999, 9999)  # too late to count
    assert used(accounting, "requests") == used(accounting, "tokens") == accounting.limiter.running == 0
    for _ in range(3):
        accounting.begin(ALICE)
    with pytest.raises(LimitReached):
        accounting.begin(ALICE)


def test_field_note_16_who_is_refused_without_end_fills_no_disk(accounting, rows, lines):
    bob = User(name="bob")
    for _ in range(1000):
        ask(accounting, NOTHING_READ, user=bob, status=429, end="refused", lease=None)
    ask(accounting, NOTHING_READ, user=User(name="carol"), status=429, end="refused", lease=None)
    ask(accounting, NOTHING_READ, user=bob, status=429, end="done", lease=None)  # the provider's own
    assert [one.user for one in rows.records] == ["bob"] * 10 + ["carol", "bob"]
    assert sum(ended[-1] for ended in accounting.totals.ends()) == 1002
    assert not lines
