"""What was counted outlasts reloads and restarts, and what is idle is forgotten."""

import gc
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fakes.clock import FakeClock
from fakes.remembered import Remembered
from fakes.rows import row
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_mux.errors import LedgerError, LimitReached
from ai_mux.limits import NO_LIMITS, Limits, Quantity, Rule
from ai_mux.storage.sqlite import SqliteStore
from ai_mux.usage.limiter import Limiter
from ai_mux.usage.tally import Tokens

REQUESTS, TOKENS, COST = Quantity.REQUESTS, Quantity.TOKENS, Quantity.COST
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 604800
LENGTHS_S = (MINUTE, HOUR, 5 * HOUR, DAY, WEEK)
LOTS = 2**70


def limits(*rules, concurrent=None):
    return Limits(
        concurrent=concurrent,
        rules=tuple(
            Rule(quantity=quantity, amount=amount, window_s=window_s, text="so much")
            for quantity, amount, window_s in rules
        ),
    )


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(clock):
    return Remembered(clock)


def used(limiter, under, name="ann"):
    with suppress(LimitReached):
        limiter.check(name, under)  # these limits hold from now on
    return [one.used for one in limiter.standing(name, under)[1:]]


def room(limiter, under, name="ann"):
    """Return how many requests may begin; they do."""
    count = 0
    with suppress(LimitReached):
        while True:
            limiter.begin(name, under)
            count += 1
    return count


def serve(limiter, ledger, under, tokens=0, cost=0, name="ann"):
    """Serve a whole request, and write it down."""
    limiter.begin(name, under).settle(tokens, cost)
    ledger.put(name, tokens, cost)


# Reloads


def test_a_rule_with_another_amount_keeps_what_was_counted(clock):
    limiter, before = Limiter(clock), limits((REQUESTS, 10, HOUR), (TOKENS, 10, DAY))
    limiter.begin("ann", before).settle(7, 0)
    after = limits((TOKENS, 5, DAY), (REQUESTS, 1, HOUR))
    assert used(limiter, after) == [7, 1]
    with pytest.raises(LimitReached):
        limiter.begin("ann", after)


def test_a_rule_that_stays_is_not_filled_anew_from_a_longer_one(clock):
    limiter, before = Limiter(clock), limits((REQUESTS, 10, MINUTE), (REQUESTS, 100, DAY))
    limiter.begin("ann", before)
    clock.pass_s(10)
    limiter.begin("ann", before)
    clock.pass_s(50)
    assert used(limiter, limits((REQUESTS, 20, MINUTE), (REQUESTS, 100, DAY))) == [1, 2]


def test_what_runs_counts_on_after_a_reload(clock):
    limiter = Limiter(clock)
    leases = [limiter.begin("ann", NO_LIMITS) for _ in range(3)]
    after = limits((REQUESTS, 10, HOUR), (TOKENS, 100, HOUR), concurrent=3)
    with pytest.raises(LimitReached):
        limiter.begin("ann", after)
    leases[0].settle(4, 0)
    assert used(limiter, after) == [3, 4]
    limiter.begin("ann", after)


@pytest.mark.parametrize(("old_s", "new_s"), [(MINUTE, HOUR), (HOUR, MINUTE), (HOUR, 2 * HOUR)])
def test_a_window_of_another_length_begins_with_what_is_known(clock, old_s, new_s):
    limiter, before, after = Limiter(clock), limits((REQUESTS, 10, old_s)), limits((REQUESTS, 3, new_s))
    limiter.begin("ann", before)
    clock.pass_s(30)
    limiter.begin("ann", before)
    assert used(limiter, after) == [2]
    limiter.begin("ann", after)
    with pytest.raises(LimitReached) as refused:
        limiter.begin("ann", after)
    assert refused.value.retry_after_s <= new_s


def test_a_shorter_window_begins_without_what_is_too_old_for_it(clock):
    limiter = Limiter(clock)
    limiter.begin("ann", limits((TOKENS, 1000, DAY))).settle(700, 0)
    clock.pass_s(HOUR)
    limiter.begin("ann", limits((TOKENS, 1000, DAY))).settle(5, 0)
    after = limits((TOKENS, 100, MINUTE))
    assert used(limiter, after) == [5]
    limiter.begin("ann", after)
    limiter.begin("ann", after)  # the 700 are not expected of what runs


def test_a_tunnel_that_asks_by_the_former_limits_does_not_make_the_later_ones_forget(clock):
    limiter, former, later = Limiter(clock), NO_LIMITS, limits((TOKENS, 10, DAY))
    for _ in range(5):
        limiter.begin("ann", later).settle(1, 0)
        limiter.begin("ann", former).settle(1, 0)
    assert used(limiter, later) == [10]
    with pytest.raises(LimitReached):
        limiter.begin("ann", later)


# Restarts


async def test_a_restart_forgets_nothing_that_the_ledger_has(clock, ledger):
    under = limits((REQUESTS, 3, MINUTE), (TOKENS, 1000, DAY), (COST, 1000, WEEK))
    limiter = Limiter(clock)
    for _ in range(3):
        serve(limiter, ledger, under, tokens=100, cost=50)
        clock.pass_s(10)
    limiter = Limiter(clock)
    await limiter.restore({"ann": under}, ledger.spent)
    assert used(limiter, under) == [3, 300, 150]
    with pytest.raises(LimitReached) as refused:
        limiter.begin("ann", under)
    assert refused.value.retry_after_s == 30
    clock.pass_s(30)
    limiter.begin("ann", under)
    with pytest.raises(LimitReached) as refused:
        limiter.begin("ann", under)
    assert refused.value.retry_after_s == 10


async def test_each_length_of_window_is_asked_for_by_itself(clock, ledger):
    everyone = {"ann": limits((REQUESTS, 3, MINUTE), (TOKENS, 9, WEEK)), "bob": limits((COST, 3, MINUTE))}
    await Limiter(clock).restore(everyone, ledger.spent)
    assert ledger.asked == [MINUTE, WEEK]


async def test_what_was_used_before_the_window_is_not_remembered(clock, ledger):
    under = limits((REQUESTS, 3, MINUTE), (TOKENS, 9, HOUR))
    ledger.put("ann", tokens=5)
    clock.pass_s(MINUTE)
    ledger.put("ann", tokens=2)
    limiter = Limiter(clock)
    await limiter.restore({"ann": under}, ledger.spent)
    assert used(limiter, under) == [1, 7]


async def test_what_the_ledger_tells_late_is_added_to_what_was_counted_meanwhile(clock, ledger):
    under = limits((REQUESTS, 30, HOUR), (TOKENS, 900, HOUR))
    for _ in range(4):
        ledger.put("ann", tokens=10)
        clock.pass_s(100)
    limiter = Limiter(clock)
    ended, running = limiter.begin("ann", under), limiter.begin("ann", under)
    clock.pass_s(5)
    ended.settle(7, 0)
    ledger.put("ann", tokens=7)
    clock.pass_s(5)
    await limiter.restore({"ann": under}, ledger.spent)
    assert used(limiter, under) == [4 + 2, 40 + 7]
    running.settle(1, 0)
    ledger.put("ann", tokens=1)
    assert used(limiter, under) == [4 + 2, 40 + 8]
    assert room(limiter, limits((REQUESTS, 10, HOUR))) == 4


async def test_what_the_ledger_tells_late_leaves_no_room_that_was_seen_before(clock, ledger):
    under = limits((REQUESTS, 10, HOUR))
    for _ in range(7):
        ledger.put("ann")
    limiter = Limiter(clock)
    limiter.begin("ann", under)
    limiter.begin("ann", under)
    await limiter.restore({"ann": under}, ledger.spent)
    assert room(limiter, under) == 1


async def test_what_was_restored_is_not_restored_again(clock, ledger):
    under = limits((REQUESTS, 30, HOUR))
    ledger.put("ann")
    limiter = Limiter(clock)
    for _ in range(3):
        await limiter.restore({"ann": under}, ledger.spent)
        serve(limiter, ledger, under)
        clock.pass_s(1)
    assert used(limiter, under) == [4]


async def test_a_rule_that_came_with_a_reload_is_restored_without_counting_twice(clock, ledger):
    before, after = limits((REQUESTS, 30, MINUTE)), limits((REQUESTS, 30, DAY), (TOKENS, 900, DAY))
    ledger.put("ann", tokens=1)
    clock.pass_s(HOUR)
    ledger.put("ann", tokens=1)
    clock.pass_s(10)
    limiter = Limiter(clock)
    await limiter.restore({"ann": before}, ledger.spent)
    for _ in range(3):
        serve(limiter, ledger, before, tokens=1)
        clock.pass_s(50)
    running = limiter.begin("ann", before)
    await limiter.restore({"ann": after}, ledger.spent)
    running.settle(1, 0)
    ledger.put("ann", tokens=1)
    serve(limiter, ledger, after, tokens=1)
    await limiter.restore({"ann": after}, ledger.spent)
    assert used(limiter, after) == [2 + 3 + 1 + 1, 2 + 3 + 1 + 1]


async def test_what_ends_while_the_ledger_is_read_counts_once(clock, ledger):
    under = limits((TOKENS, 900, HOUR))
    ledger.put("ann", tokens=100)
    clock.pass_s(MINUTE)
    limiter = Limiter(clock)
    running = [limiter.begin("ann", NO_LIMITS) for _ in range(2)]

    async def slowly(since_s, now_s):
        clock.pass_s(1)
        running[0].settle(1, 0)  # before the ledger looks: it tells of it
        ledger.put("ann", tokens=1)
        clock.pass_s(1)
        told = await ledger.spent(since_s, now_s)
        running[1].settle(2, 0)  # after it has looked: it does not
        ledger.put("ann", tokens=2)
        return told

    await limiter.restore({"ann": under}, slowly)
    assert used(limiter, under) == [103]


async def test_rows_from_the_future_count_as_from_now(clock, ledger):
    under = limits((REQUESTS, 2, HOUR), (TOKENS, 900, HOUR))
    clock.wall += 30 * DAY
    ledger.put("ann", tokens=5)
    ledger.put("ann", tokens=5)
    clock.wall -= 30 * DAY
    limiter = Limiter(clock)
    await limiter.restore({"ann": under}, ledger.spent)
    assert used(limiter, under) == [2, 10]
    with pytest.raises(LimitReached) as refused:
        limiter.begin("ann", under)
    assert refused.value.retry_after_s == HOUR
    clock.pass_s(HOUR)
    limiter.begin("ann", under)


async def test_rows_from_the_future_are_told_apart_from_what_was_counted_since(clock, ledger):
    under = limits((TOKENS, 900, HOUR))
    clock.wall += DAY
    for _ in range(3):
        ledger.put("ann", tokens=5)
        clock.pass_s(600)
    clock.wall -= DAY
    limiter = Limiter(clock)
    serve(limiter, ledger, under, tokens=3)
    await limiter.restore({"ann": under}, ledger.spent)
    assert used(limiter, under) == [18]


async def test_a_clock_set_back_since_the_start_does_not_count_anything_twice(clock, ledger):
    under = limits((REQUESTS, 20, HOUR))
    limiter = Limiter(clock)
    serve(limiter, ledger, under)
    clock.pass_s(10)
    clock.wall -= 1000
    serve(limiter, ledger, under)
    clock.pass_s(10)
    await limiter.restore({"ann": under}, ledger.spent)
    assert used(limiter, under) == [2]


async def test_users_of_whom_the_configuration_knows_nothing_are_not_restored(clock, ledger):
    ledger.put("gone", tokens=5)
    ledger.put("free", tokens=5)
    limiter = Limiter(clock)
    await limiter.restore({"ann": limits((TOKENS, 9, DAY)), "free": NO_LIMITS}, ledger.spent)
    assert used(limiter, limits((TOKENS, 9, DAY)), "gone") == [0]
    assert used(limiter, limits((TOKENS, 9, DAY)), "free") == [0]


async def test_a_ledger_that_cannot_be_read_is_asked_again_for_what_is_missing(clock, ledger):
    under = limits((TOKENS, 9, MINUTE), (TOKENS, 99, DAY))
    ledger.put("ann", tokens=5)
    broken = True

    async def sometimes(since_s, now_s):
        if broken and now_s - since_s > HOUR:
            raise LedgerError("It is locked.", passing=True)
        return await ledger.spent(since_s, now_s)

    limiter = Limiter(clock)
    with pytest.raises(LedgerError):
        await limiter.restore({"ann": under}, sometimes)
    assert used(limiter, under) == [5, 0]
    broken = False
    await limiter.restore({"ann": under}, sometimes)
    assert used(limiter, under) == [5, 5]


async def test_after_a_restart_as_much_is_expected_as_requests_used_on_average(clock, ledger):
    under = limits((TOKENS, 1000, HOUR))
    ledger.put("ann", tokens=301)
    ledger.put("ann", tokens=98)
    limiter = Limiter(clock)
    await limiter.restore({"ann": under}, ledger.spent)
    for _ in range(4):  # 399 used, 200 expected of each: with three running, 1 is left
        limiter.begin("ann", under)
    with pytest.raises(LimitReached):
        limiter.begin("ann", under)


async def test_a_late_ledger_brings_nothing_that_has_left_its_window(clock, ledger):
    under = limits((REQUESTS, 3, MINUTE), (TOKENS, 9, DAY))
    limiter = Limiter(clock)
    running = limiter.begin("ann", under)
    clock.pass_s(HOUR)
    running.settle(1, 0)
    ledger.put("ann", tokens=1)
    await limiter.restore({"ann": under}, ledger.spent)
    assert used(limiter, under) == [0, 1]


async def test_what_was_used_before_the_process_leaves_before_what_was_used_since(clock, ledger):
    under = limits((TOKENS, 900, HOUR))
    ledger.put("ann", tokens=100)
    clock.pass_s(5)
    limiter = Limiter(clock)
    for _ in range(2):
        serve(limiter, ledger, under, tokens=20)
        clock.pass_s(1700)
    await limiter.restore({"ann": under}, ledger.spent)
    assert used(limiter, under) == [140]
    clock.pass_s(200)
    assert used(limiter, under) == [20]


async def test_an_hour_that_began_before_the_process_is_told_apart_from_what_was_counted_since(clock):
    ledger, under = Remembered(clock, whole_hours=True), limits((REQUESTS, 99, DAY), (TOKENS, 999, DAY))
    ledger.put("ann", tokens=100)
    clock.pass_s(MINUTE)
    limiter = Limiter(clock)
    serve(limiter, ledger, under, tokens=20)
    limiter.begin("ann", under)
    clock.pass_s(MINUTE)
    await limiter.restore({"ann": under}, ledger.spent)
    assert used(limiter, under) == [3, 120]


STRETCH = st.tuples(st.integers(0, 4000), st.integers(1, 9))


@given(st.lists(STRETCH), st.lists(STRETCH), st.sampled_from([60, 600, 3600, 86400]), st.booleans())
async def test_nothing_is_lost_or_counted_twice_wherever_the_process_started_anew(
    before, after, window_s, whole_hours
):
    clock = FakeClock()
    ledger = Remembered(clock, whole_hours=whole_hours)
    under = limits((TOKENS, 10**6, window_s), (REQUESTS, 10**6, window_s))
    uses = []
    for gap_s, tokens in before:
        clock.pass_s(gap_s / 10)
        ledger.put("ann", tokens)
        uses.append((clock.wall, tokens))
    limiter = Limiter(clock)
    for gap_s, tokens in after:
        clock.pass_s(gap_s / 10)
        serve(limiter, ledger, under, tokens)
        uses.append((clock.wall, tokens))
    await limiter.restore({"ann": under}, ledger.spent)
    # A stretch of the ledger's is kept until the last of it is old enough, and so is one of the window's.
    late_s = window_s * 3 / 60 + whole_hours * HOUR
    least = [tokens for at, tokens in uses if at > clock.wall - window_s]
    most = [tokens for at, tokens in uses if at > clock.wall - window_s - late_s]
    tokens, requests = used(limiter, under)
    assert sum(least) <= tokens <= sum(most)
    assert len(least) <= requests <= len(most)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 99))), st.lists(STRETCH, max_size=20))
async def test_a_real_ledger_is_remembered_to_the_step(before, after):
    """``before`` are powers of ten of the seconds since the one before it, and tokens."""
    clock = FakeClock()
    under = limits(*((quantity, LOTS, window_s) for quantity in Quantity for window_s in LENGTHS_S))
    with TemporaryDirectory() as directory, closing(SqliteStore(Path(directory) / "usage.sqlite")) as store:

        async def spent(since_s, now_s):
            return store.spent(since_s, now_s)

        uses = []
        for power, tokens in before:
            clock.pass_s(10**power / 5)
            uses.append((clock.wall, tokens))
        limiter = Limiter(clock)
        for gap_s, tokens in after:
            clock.pass_s(gap_s / 10)
            limiter.begin("ann", under).settle(tokens, 2 * tokens)
            uses.append((clock.wall, tokens))
        store.append(
            [row("ann", at_s=at, tokens=Tokens(output=tokens), cost=2 * tokens) for at, tokens in uses]
        )
        await limiter.restore({"ann": under}, spent)
    for seen in limiter.standing("ann", under)[1:]:
        window_s = seen.rule.window_s
        late_s = window_s * 3 / 60 + HOUR * (window_s > HOUR)
        factor = {"requests": lambda _: 1, "tokens": lambda use: use, "cost": lambda use: 2 * use}[seen.limit]
        least = sum(factor(use) for at, use in uses if at > clock.wall - window_s)
        most = sum(factor(use) for at, use in uses if at > clock.wall - window_s - late_s)
        assert least <= seen.used <= most


async def test_a_ledger_without_tokens_leaves_nothing_that_could_come_back(clock, ledger):
    under = limits((TOKENS, 9, HOUR))
    ledger.put("ann", tokens=0)
    limiter = Limiter(clock)
    await limiter.restore({"ann": under}, ledger.spent)
    assert limiter.standing("ann", under)[1].whole_at is None


def test_another_thread_may_look_while_requests_are_counted(clock):
    limiter, under = Limiter(clock), limits((REQUESTS, 10**6, MINUTE), (TOKENS, 10**6, MINUTE))
    ended = threading.Event()
    seen = []

    def look():
        while not ended.is_set():
            seen.append(limiter.standing("ann", under))

    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(look)
        begun = 0
        while (begun < 5000 or len(seen) < 200) and not looking.done():
            limiter.begin("ann", under).settle(1, 0)
            clock.pass_s(1)
            begun += 1
        ended.set()
        looking.result(timeout=10)
    assert all(one.used <= 61 for standing in seen for one in standing[1:])
    assert used(limiter, under) == [59, 59]


# Memory


def memory():
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


RULES = limits((REQUESTS, LOTS, MINUTE), (REQUESTS, LOTS, HOUR), (TOKENS, LOTS, DAY), (COST, LOTS, WEEK))


def test_a_window_takes_no_more_memory_however_much_happens_in_it(clock, traced):
    limiter = Limiter(clock)
    limiter.begin("ann", RULES).settle(1, 1)
    before = memory()
    for _ in range(2000):
        clock.pass_s(WEEK / 1000)
        limiter.begin("ann", RULES).settle(2**50, 2**50)
    for _ in range(2000):
        limiter.begin("ann", RULES).settle(1, 1)
        clock.pass_s(0.1)
    assert memory() - before < 10_000


def test_a_window_of_former_limits_takes_no_more_memory_either(clock, traced):
    limiter = Limiter(clock)
    limiter.begin("ann", limits((REQUESTS, 10**6, MINUTE))).settle(1, 1)
    later = limits((REQUESTS, 10**6, HOUR))
    limiter.begin("ann", later).settle(1, 1)
    before = memory()
    for _ in range(3000):
        clock.pass_s(10)
        limiter.begin("ann", later).settle(1, 1)
    assert memory() - before < 10_000


def test_ten_thousand_users_take_little_memory_and_idle_ones_none(clock, traced):
    limiter = Limiter(clock)
    before = memory()
    for round_ in range(2):
        for number in range(10_000):
            limiter.begin(f"user-{number}", RULES).settle(round_, 1)
        clock.pass_s(2)
    held = memory() - before
    assert 1_000_000 < held < 40_000_000
    clock.pass_s(WEEK)
    for _ in range(10_000):
        limiter.begin("ann", RULES).settle(1, 1)
        clock.pass_s(0.001)
    assert memory() - before < held / 20


def test_names_that_come_and_go_take_no_memory(clock, traced):
    limiter = Limiter(clock)
    before = memory()
    for number in range(20_000):
        limiter.begin(f"user-{number}", NO_LIMITS).settle(1, 1)
    assert memory() - before < 100_000


def test_who_is_idle_for_a_window_and_comes_back_is_known_as_long_as_needed(clock):
    limiter = Limiter(clock)
    under = limits((REQUESTS, 1, HOUR))
    limiter.begin("ann", under).settle(0, 0)
    for number in range(100):
        limiter.begin(f"user-{number}", under).settle(0, 0)
    clock.pass_s(HOUR - 1)
    for number in range(100, 200):
        limiter.begin(f"user-{number}", under).settle(0, 0)
    with pytest.raises(LimitReached):
        limiter.begin("ann", under)
    clock.pass_s(1)
    limiter.begin("ann", under)


def test_who_used_something_later_too_is_known_as_long_as_needed(clock):
    limiter, under = Limiter(clock), limits((REQUESTS, 2, HOUR))
    limiter.begin("ann", under).settle(0, 0)
    clock.pass_s(HOUR / 2)
    limiter.begin("ann", under).settle(0, 0)
    clock.pass_s(HOUR / 2)
    for number in range(100):
        limiter.begin(f"user-{number}", under).settle(0, 0)
    assert room(limiter, under) == 1


def test_who_still_runs_is_not_forgotten(clock):
    limiter, under = Limiter(clock), limits((TOKENS, 9, MINUTE), concurrent=1)
    lease = limiter.begin("ann", under)
    clock.pass_s(DAY)
    for number in range(500):
        limiter.begin(f"user-{number}", under).settle(1, 0)
    with pytest.raises(LimitReached):
        limiter.begin("ann", under)
    lease.settle(9, 0)
    with pytest.raises(LimitReached):
        limiter.begin("ann", under)
