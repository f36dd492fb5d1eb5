"""Who may begin a request, and until when not: by example."""

import pytest
from fakes.clock import FakeClock

from ai_mux.errors import LimitReached
from ai_mux.limits import NO_LIMITS, Limits, Quantity, Rule
from ai_mux.usage.limiter import IMPLIED_CONCURRENT, Limiter

REQUESTS, TOKENS, COST = Quantity.REQUESTS, Quantity.TOKENS, Quantity.COST
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 604800


def rule(quantity, amount, window_s, text="so much"):
    return Rule(quantity=quantity, amount=amount, window_s=window_s, text=text)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def limiter(clock):
    return Limiter(clock)


def refusal(limiter, limits, name="ann"):
    """Return why a request may not begin, or None; count nothing."""
    try:
        limiter.check(name, limits)
    except LimitReached as error:
        return error
    return None


def use(limiter, limits, tokens=0, cost=0, name="ann"):
    """Make a whole request."""
    limiter.begin(name, limits).settle(tokens, cost)


def test_a_user_without_limits_may_do_anything_and_is_counted_while_running(limiter):
    leases = [limiter.begin("ann", NO_LIMITS) for _ in range(1000)]
    assert limiter.running == 1000
    assert limiter.standing("ann", NO_LIMITS)[0].used == 1000
    for lease in leases:
        lease.settle(10**9, 10**9)
    assert limiter.running == 0
    assert limiter.standing("ann", NO_LIMITS)[0].used == 0


def test_as_many_begin_at_once_as_may_and_another_when_one_has_ended(limiter):
    limits = Limits(concurrent=2)
    first, _ = limiter.begin("ann", limits), limiter.begin("ann", limits)
    with pytest.raises(LimitReached) as refused:
        limiter.begin("ann", limits)
    assert (refused.value.retry_after_s, refused.value.resets_at) == (1, None)
    assert limiter.running == 2
    limiter.begin("bob", limits)
    first.settle(0, 0)
    limiter.begin("ann", limits)


def test_a_lease_is_settled_once(limiter):
    limits = Limits(concurrent=1, rules=(rule(TOKENS, 100, MINUTE),))
    lease = limiter.begin("ann", limits)
    lease.settle(10, 0)
    lease.settle(10, 0)
    assert limiter.running == 0
    assert [one.used for one in limiter.standing("ann", limits)] == [0, 10]


def test_looking_counts_nothing(limiter):
    limits = Limits(concurrent=1, rules=(rule(REQUESTS, 1, MINUTE),))
    for _ in range(5):
        limiter.check("ann", limits)
    limiter.begin("ann", limits)
    assert refusal(limiter, limits)


def test_who_is_refused_is_not_counted(clock, limiter):
    limits = Limits(rules=(rule(REQUESTS, 1, MINUTE), rule(REQUESTS, 3, HOUR)))
    use(limiter, limits)
    for _ in range(10):
        with pytest.raises(LimitReached):
            limiter.begin("ann", limits)
    assert limiter.running == 0
    assert [one.used for one in limiter.standing("ann", limits)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("gaps_ms", "wait_ms"),
    [
        ([0, 0], 60_000),  # all in one step: they leave together
        ([0, 999], 60_000),  # still the same step, kept until its last is old enough
        ([0, 1000], 59_000),  # the next step: the first leaves by itself
        ([0, 1001], 58_999),
        ([0, 59_999], 1),  # just about to leave
        ([0, 60_000], 60_000),  # has left: the two are not within one window
        ([0, 999, 2], 59_998),  # the third begins another step; the first two are as old as their last
    ],
)
def test_what_comes_within_a_sixtieth_of_a_window_leaves_it_together(clock, limiter, gaps_ms, wait_ms):
    limits = Limits(rules=(rule(REQUESTS, 1000, MINUTE),))
    for gap_ms in gaps_ms:
        clock.pass_s(gap_ms / 1000)
        use(limiter, limits)
    standing = limiter.standing("ann", limits)[1]
    assert round((standing.frees_at - clock.wall) * 1000) == wait_ms


def test_each_step_leaves_by_itself(clock, limiter):
    limits = Limits(rules=(rule(REQUESTS, 3, 1),))
    for _ in range(3):
        use(limiter, limits)
        clock.pass_s(0.25)
    for _ in range(10):
        clock.pass_s(0.249)
        assert refusal(limiter, limits)
        clock.pass_s(0.001)
        use(limiter, limits)
        assert refusal(limiter, limits)
        clock.pass_s(0.25)
        use(limiter, limits)
        clock.pass_s(0.25)
        use(limiter, limits)
        assert refusal(limiter, limits)
        clock.pass_s(0.25)


def test_the_wait_is_exact_to_the_second(clock, limiter):
    limits = Limits(rules=(rule(REQUESTS, 3, MINUTE),))
    for _ in range(3):
        use(limiter, limits)
        clock.pass_s(7.25)
    refused = refusal(limiter, limits)
    assert refused.retry_after_s == 39  # 60 - 3 * 7.25 = 38.25
    assert refused.resets_at == 1_800_000_060
    clock.pass_s(38.249)
    assert refusal(limiter, limits).retry_after_s == 1
    clock.pass_s(0.001)
    assert refusal(limiter, limits) is None
    use(limiter, limits)
    assert refusal(limiter, limits).retry_after_s == 8  # the second one leaves


def test_the_limit_that_is_for_longest_is_named(clock, limiter):
    limits = Limits(
        concurrent=1,
        rules=(
            rule(REQUESTS, 1, MINUTE, "1/min"),
            rule(TOKENS, 100, DAY, "100/day"),
            rule(COST, 5_000_000, HOUR, "$5/h"),
        ),
    )
    running = limiter.begin("ann", limits)
    assert "1/min" in refusal(limiter, limits).public_message  # rather than what is running
    running.settle(100, 5_000_000)
    refused = refusal(limiter, limits)
    assert "100/day" in refused.public_message
    assert refused.retry_after_s == DAY
    clock.pass_s(DAY)
    assert refusal(limiter, limits) is None


def test_tokens_and_cost_are_used_up_when_nothing_is_left(clock, limiter):
    limits = Limits(rules=(rule(TOKENS, 1000, HOUR, "1k/h"), rule(COST, 2_000_000, WEEK, "$2/week")))
    use(limiter, limits, tokens=999, cost=1_000_000)
    use(limiter, limits, tokens=500)
    assert refusal(limiter, limits).retry_after_s == HOUR
    clock.pass_s(HOUR)
    clock.pass_s(DAY)
    use(limiter, limits, cost=1_000_000)
    assert refusal(limiter, limits).retry_after_s == WEEK - HOUR - DAY


def test_what_runs_is_expected_to_use_as_much_as_the_largest_so_far(limiter):
    limits = Limits(rules=(rule(TOKENS, 1000, HOUR),))
    use(limiter, limits, tokens=300)
    use(limiter, limits, tokens=100)
    first = limiter.begin("ann", limits)
    second = limiter.begin("ann", limits)  # 400 used, 300 expected: 300 are left
    refused = refusal(limiter, limits)  # 400 used, 600 expected: nothing is
    assert (refused.retry_after_s, refused.resets_at, refused.retry) == (1, None, True)
    first.settle(10, 0)
    third = limiter.begin("ann", limits)
    second.settle(10, 0)
    third.settle(10, 0)
    assert limiter.standing("ann", limits)[1].used == 430


def test_the_largest_is_forgotten_when_it_leaves_the_window(clock, limiter):
    limits = Limits(rules=(rule(TOKENS, 1000, HOUR),))
    use(limiter, limits, tokens=900)
    clock.pass_s(HOUR / 2)
    use(limiter, limits, tokens=50)
    running = limiter.begin("ann", limits)
    assert refusal(limiter, limits)
    clock.pass_s(HOUR / 2)
    assert refusal(limiter, limits) is None
    running.settle(0, 0)


def test_what_has_left_the_window_is_no_measure_of_what_could_not_be_read(clock, limiter):
    limits = Limits(rules=(rule(TOKENS, 1000, MINUTE),))
    for tokens in (400, 1):
        use(limiter, limits, tokens=tokens)
    clock.pass_s(MINUTE)
    limiter.begin("ann", limits).settle(3, 0, at_least_largest=True)
    assert limiter.standing("ann", limits)[1].used == 3


def test_the_largest_is_known_however_close_to_others_it_was(clock, limiter):
    limits = Limits(rules=(rule(TOKENS, 1000, HOUR),))
    use(limiter, limits, tokens=400)
    clock.pass_s(MINUTE)
    for tokens in (100, 300, 200):
        use(limiter, limits, tokens=tokens)
    clock.pass_s(HOUR - MINUTE)
    limiter.begin("ann", limits)  # 600 used, and 300 expected
    limiter.begin("ann", limits)
    assert refusal(limiter, limits)


@pytest.mark.parametrize("quantity", [TOKENS, COST])
def test_a_limit_on_tokens_or_cost_limits_how_many_run_at_once(limiter, quantity):
    limits = Limits(rules=(rule(quantity, 10**9, DAY),))
    for _ in range(IMPLIED_CONCURRENT):
        limiter.begin("ann", limits)
    assert refusal(limiter, limits).resets_at is None
    assert "a limit on tokens or cost" in refusal(limiter, limits).public_message
    assert limiter.standing("ann", limits)[0].left == 0
    assert limiter.standing("ann", Limits(concurrent=5))[0].left == 0


def test_a_limit_of_ones_own_on_how_many_run_at_once_takes_the_place_of_the_implied_one(limiter):
    limits = Limits(concurrent=50, rules=(rule(TOKENS, 10**9, DAY),))
    for _ in range(50):
        limiter.begin("ann", limits)
    assert "your limit is 50 at once" in refusal(limiter, limits).public_message


def test_a_limit_on_requests_alone_does_not_limit_how_many_run_at_once(limiter):
    limits = Limits(rules=(rule(REQUESTS, 1000, DAY),))
    for _ in range(1000):
        limiter.begin("ann", limits)
    assert refusal(limiter, limits).resets_at is not None


def test_users_do_not_use_up_each_others_limits(limiter):
    limits = Limits(concurrent=1, rules=(rule(REQUESTS, 1, MINUTE), rule(TOKENS, 5, MINUTE)))
    use(limiter, limits, tokens=5, name="ann")
    assert refusal(limiter, limits, "ann")
    assert refusal(limiter, limits, "bob") is None


@pytest.mark.parametrize(("tokens", "cost"), [(-5, -5), (2**80, 2**80), (0, 0)])
def test_nonsense_from_a_response_breaks_nothing(clock, limiter, tokens, cost):
    limits = Limits(rules=(rule(TOKENS, 100, MINUTE), rule(COST, 100, MINUTE)))
    for _ in range(3):
        limiter.begin("ann", NO_LIMITS)
        leases = [limiter.begin("bob", limits) for _ in range(3)]
        for lease in leases:
            lease.settle(tokens, cost)
        assert min(one.used for one in limiter.standing("bob", limits)) >= 0
        assert (refusal(limiter, limits, "bob") is None) == (tokens <= 0)
        clock.pass_s(MINUTE)
        assert [one.used for one in limiter.standing("bob", limits)] == [0, 0, 0]


def test_what_is_left_and_when_it_comes_back(clock, limiter):
    limits = Limits(concurrent=8, rules=(rule(REQUESTS, 60, MINUTE), rule(TOKENS, 1000, 5 * MINUTE)))
    assert [(one.limit, one.amount, one.used, one.left) for one in limiter.standing("ann", limits)] == [
        ("concurrent", 8, 0, 8),
        ("requests", 60, 0, 60),
        ("tokens", 1000, 0, 1000),
    ]
    use(limiter, limits, tokens=400)
    clock.pass_s(20)
    use(limiter, limits, tokens=700)
    limiter.begin("bob", limits)
    places, requests, tokens = limiter.standing("ann", limits)
    start = clock.wall - 20
    assert (places.used, places.left, places.frees_at, places.whole_at) == (0, 8, None, None)
    assert (requests.used, requests.left) == (2, 58)
    assert (requests.frees_at, requests.whole_at) == (start + 60, start + 80)
    assert (tokens.used, tokens.left) == (1100, 0)
    assert (tokens.frees_at, tokens.whole_at) == (start + 300, start + 320)
    clock.pass_s(40)
    assert [one.used for one in limiter.standing("ann", limits)] == [0, 1, 1100]
    assert limiter.standing("ann", limits)[1].frees_at == start + 80
    clock.pass_s(20)
    assert limiter.standing("ann", limits)[1].whole_at is None


def test_without_limits_there_is_no_end_of_what_is_left(limiter):
    limiter.begin("ann", NO_LIMITS)
    assert [(one.amount, one.used, one.left) for one in limiter.standing("ann", NO_LIMITS)] == [
        (None, 1, None)
    ]


# Clocks


def test_a_clock_set_back_changes_nothing(clock, limiter):
    limits = Limits(rules=(rule(REQUESTS, 1, MINUTE),))
    use(limiter, limits)
    clock.pass_s(20)
    clock.wall -= 30 * DAY
    refused = refusal(limiter, limits)
    assert refused.retry_after_s == 40
    assert refused.resets_at == clock.wall + 40, "people are told by the clock that they see"
    assert limiter.standing("ann", limits)[1].frees_at == clock.wall + 40
    clock.pass_s(40)
    assert refusal(limiter, limits) is None


def test_a_machine_that_slept_has_let_time_pass(clock, limiter):
    limits = Limits(rules=(rule(REQUESTS, 1, HOUR),))
    use(limiter, limits)
    clock.wall += HOUR - 10  # the monotonic clock stood still
    assert refusal(limiter, limits).retry_after_s == 10
    clock.pass_s(10)
    assert refusal(limiter, limits) is None


def test_a_clock_that_goes_to_and_fro_gains_no_time(clock, limiter):
    limits = Limits(rules=(rule(REQUESTS, 1, HOUR),))
    clock.wall += 10
    use(limiter, limits)
    for _ in range(1000):
        clock.wall -= 10
        limiter.standing("ann", limits)
        clock.wall += 10
        limiter.standing("ann", limits)
    assert refusal(limiter, limits).retry_after_s == HOUR


def test_a_clock_set_forward_and_back_leaves_windows_that_work(clock, limiter):
    limits = Limits(rules=(rule(REQUESTS, 1, HOUR),))
    clock.wall += 365 * DAY
    use(limiter, limits)
    clock.wall -= 365 * DAY
    assert refusal(limiter, limits).retry_after_s == HOUR
    clock.pass_s(HOUR)
    use(limiter, limits)
    assert refusal(limiter, limits).retry_after_s == HOUR


def test_looking_at_a_clock_that_is_wrong_for_a_moment_lets_no_time_pass(clock, limiter):
    limits = Limits(rules=(rule(REQUESTS, 1, HOUR),))
    use(limiter, limits)
    clock.wall += DAY
    limiter.standing("ann", limits)
    clock.wall -= DAY
    assert refusal(limiter, limits).retry_after_s == HOUR
