"""What holds of limits whatever happens: random histories, clocks that jump, processes that start anew."""

import asyncio
from copy import deepcopy
from math import ceil

from fakes.clock import FakeClock
from fakes.remembered import Remembered
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ai_mux.errors import LimitReached
from ai_mux.limits import Limits, Quantity, Rule
from ai_mux.usage.limiter import Limiter

WINDOWS_S = [1, 7, 60, 61, 3600]


def rule(quantity, amount, window_s):
    return Rule(quantity=quantity, amount=amount, window_s=window_s, text="so much")


def gaps_ms(window_s=60):
    """Pauses between requests, most of them where something could go wrong: at steps' and windows' edges."""
    step_ms = window_s * 1000 // 60
    edges = [0, 1, step_ms - 1, step_ms, step_ms + 1, window_s * 1000 - 1, window_s * 1000, window_s * 1001]
    return st.one_of(st.sampled_from(edges), st.integers(0, 2 * step_ms), st.integers(0, window_s * 1100))


@st.composite
def visits(draw):
    """A window, an amount, and what happens: requests after pauses, jumps of the clock, restarts."""
    window_s = draw(st.sampled_from(WINDOWS_S))
    happens = st.one_of(
        st.tuples(st.just("pause"), gaps_ms(window_s)),
        st.tuples(st.just("requests"), st.integers(1, 5)),
        st.tuples(st.just("back"), st.integers(1, 3 * window_s * 1000)),
        st.tuples(st.just("sleep"), gaps_ms(window_s)),
        st.tuples(st.just("restart"), st.just(0)),
    )
    return window_s, draw(st.integers(1, 6)), draw(st.lists(happens, max_size=60))


@settings(max_examples=300)
@given(visits())
def test_no_stretch_as_long_as_the_window_has_more_requests_than_allowed(visits):
    window_s, amount, happenings = visits
    limits = Limits(rules=(rule(Quantity.REQUESTS, amount, window_s),))
    clock = FakeClock()
    limiter, ledger = Limiter(clock), Remembered(clock)
    real_ms, admitted = 0, []
    for what, how_much in happenings:
        if what == "pause":
            clock.pass_s(how_much / 1000)
            real_ms += how_much
        elif what == "sleep":
            clock.wall += how_much / 1000
            real_ms += how_much
        elif what == "back":
            clock.wall -= how_much / 1000
        elif what == "restart":
            limiter = Limiter(clock)
            asyncio.run(limiter.restore({"ann": limits}, ledger.spent))
        else:
            for _ in range(how_much):
                try:
                    limiter.begin("ann", limits).settle(0, 0)
                except LimitReached:
                    event("refused")
                    break
                ledger.put("ann")
                admitted.append(real_ms)
    for earlier, later in zip(admitted, admitted[amount:], strict=False):
        assert later - earlier >= window_s * 1000


QUANTITIES = st.sampled_from(Quantity)
RULES = st.lists(
    st.builds(rule, QUANTITIES, st.integers(1, 12), st.sampled_from(WINDOWS_S)),
    min_size=1,
    max_size=5,
    unique_by=lambda one: (one.quantity, one.window_s),
)
REQUEST = st.tuples(gaps_ms(), st.integers(0, 6), st.integers(0, 6), st.booleans())


@given(RULES, st.lists(REQUEST, max_size=40))
def test_after_retry_after_there_is_room_and_a_second_earlier_there_is_none(rules, requests):
    limits = Limits(rules=tuple(rules))
    clock = FakeClock()
    limiter = Limiter(clock)
    running = []
    for gap_ms, tokens, cost, ends_later in requests:
        clock.pass_s(gap_ms / 1000)
        try:
            lease = limiter.begin("ann", limits)
        except LimitReached as refused:
            if refused.resets_at is None:
                assert running
                assert refused.retry_after_s == 1
                continue
            event("refused while others run" if running else "refused")
            assert refused.resets_at == ceil(clock.wall + _wait_ms(limiter, limits, clock, running) / 1000)
            assert not _admitted_after(refused.retry_after_s - 1, limiter, limits, clock, running)
            assert _admitted_after(refused.retry_after_s, limiter, limits, clock, running)
            continue
        if ends_later:
            running.append(lease)
        else:
            lease.settle(tokens, cost)
        if len(running) > 3:
            running.pop(0).settle(tokens, cost)


def _admitted_after(seconds, limiter, limits, clock, running):
    """Tell whether the same request is admitted then, if nobody comes and what runs uses nothing more."""
    limiter, limits, clock, running = deepcopy((limiter, limits, clock, running))
    for lease in running:
        lease.settle(0, 0)
    clock.pass_s(seconds)
    try:
        limiter.begin("ann", limits)
    except LimitReached:
        return False
    return True


def _wait_ms(limiter, limits, clock, running):
    """Return for how many milliseconds a request is refused, by trying."""
    refused_ms, admitted_ms = 0, 10**7
    while admitted_ms - refused_ms > 1:
        middle_ms = (refused_ms + admitted_ms) // 2
        if _admitted_after(middle_ms / 1000, limiter, limits, clock, running):
            admitted_ms = middle_ms
        else:
            refused_ms = middle_ms
    return admitted_ms


class Truth:
    """What was really used within a window, to the millisecond."""

    def __init__(self, window_s):
        self.window_ms = window_s * 1000
        self.uses = []

    def used(self, now_ms):
        return sum(use for at_ms, use in self.uses if at_ms > now_ms - self.window_ms)

    def largest(self, now_ms):
        return max((use for at_ms, use in self.uses if at_ms > now_ms - self.window_ms), default=0)


STEP = st.tuples(gaps_ms(), st.booleans(), st.integers(0, 10), st.integers(0, 40))


@given(st.integers(1, 60), st.one_of(st.none(), st.integers(1, 8)), st.lists(STEP, max_size=80))
def test_beyond_a_limit_is_at_most_what_ran_when_it_was_reached(amount, concurrent, steps):
    limits = Limits(concurrent=concurrent, rules=(rule(Quantity.TOKENS, amount, 60),))
    clock = FakeClock()
    limiter, truth = Limiter(clock), Truth(60)
    running, now_ms, beyond = [], 0, 0
    for gap_ms, begins, which, tokens in steps:
        clock.pass_s(gap_ms / 1000)
        now_ms += gap_ms
        if begins:
            before = truth.used(now_ms)
            try:
                lease = limiter.begin("ann", limits)
            except LimitReached:
                continue
            assert before < amount, "none begins when the limit is reached"
            running.append((lease, tokens))
            assert len(running) <= (concurrent or 32)
        elif running:
            if truth.used(now_ms) < amount:  # it may be this one that reaches the limit
                beyond = sum(use for _, use in running)
            lease, use = running.pop(which % len(running))
            lease.settle(use, 0)
            truth.uses.append((now_ms, use))
            if truth.used(now_ms) >= amount:
                event("reached")
                assert truth.used(now_ms) - amount < max(1, beyond)


@given(st.integers(1, 60), st.integers(1, 20), st.lists(STEP, max_size=80))
def test_if_none_is_larger_than_those_before_it_no_more_than_one_goes_beyond(amount, size, steps):
    limits = Limits(rules=(rule(Quantity.COST, amount, 60),))
    clock = FakeClock()
    limiter, truth = Limiter(clock), Truth(60)
    limiter.begin("ann", limits).settle(0, size)
    truth.uses.append((0, size))
    running, now_ms = [], 0
    for gap_ms, begins, which, cost in steps:
        clock.pass_s(gap_ms / 1000)
        now_ms += gap_ms
        if begins:
            try:
                running.append(limiter.begin("ann", limits))
            except LimitReached:
                continue
            # What may follow is bounded by the largest that the window knows when it begins.
            size = min(size, truth.largest(now_ms))
        elif running:
            use = min(cost, size)
            running.pop(which % len(running)).settle(0, use)
            truth.uses.append((now_ms, use))
            assert truth.used(now_ms) < amount + max(1, size, truth.largest(now_ms))


@settings(max_examples=300)
@given(RULES, st.one_of(st.none(), st.integers(1, 8)), st.lists(REQUEST, max_size=60), st.data())
def test_a_request_begins_exactly_if_somebody_who_looks_sees_room(rules, concurrent, requests, data):
    limits = Limits(concurrent=concurrent, rules=tuple(rules))
    clock = FakeClock()
    limiter, running = Limiter(clock), []
    for gap_ms, tokens, cost, ends_later in requests:
        clock.pass_s(gap_ms / 1000)
        onlooker = deepcopy(limiter)
        is_room = True
        try:
            onlooker.check("ann", limits)
        except LimitReached:
            is_room = False
        try:
            lease = limiter.begin("ann", limits)
        except LimitReached:
            assert not is_room
            event("refused")
        else:
            assert is_room
            running.append(lease)
        if running and not ends_later:
            ended = running.pop(data.draw(st.integers(0, len(running) - 1)))
            end = data.draw(st.sampled_from(["settled", "unknown", "withdrawn"]))
            if end == "withdrawn":
                ended.withdraw()
            else:
                ended.settle(tokens, cost, at_least_largest=end == "unknown")
