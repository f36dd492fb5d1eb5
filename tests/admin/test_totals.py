"""What requests came to: sums that are right, and never more labels than so many."""

from admin.parts import add, record
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.usage.prices import Prices, listed_name
from ai_mux.usage.tally import NO_TOKENS, MicroUsd, Tokens
from ai_mux.usage.totals import (
    HEAD_BOUNDS_MS,
    MOST_OTHER_MODELS,
    MOST_USERS,
    OTHER,
    TOTAL_BOUNDS_MS,
    UNKNOWN,
    Totals,
)


def models(totals):
    return {used.model for used in totals.models()}


def test_what_a_request_used_is_added_where_it_belongs():
    totals = Totals()
    add(totals, record(), "done")
    add(totals, record(provider="chatgpt", model="gpt-x", tokens=Tokens(output=7), cost=None), "left")
    assert set(totals.ends()) == {("claude", 200, "done", 1), ("chatgpt", 200, "left", 1)}
    assert list(totals.models()) == [
        ("claude", "claude-sonnet-5", Tokens(10, 200, 3, 4, 50), 1_250_000),
        ("chatgpt", "gpt-x", Tokens(output=7), 0),
    ]
    assert list(totals.users()) == [("alice", 2, 274)]
    rows = dict(totals.providers())
    assert (rows["claude"].bytes_in, rows["claude"].bytes_out) == (1000, 5000)
    assert (rows["claude"].unpriced, rows["chatgpt"].unpriced) == (0, 1)


def test_what_could_not_be_read_counts_as_such():
    totals = Totals()
    for metering in ("whole", "none", "partial", "unmetered", "unmetered"):
        add(totals, record(metering=metering, tokens=NO_TOKENS, cost=None), "done")
    row = dict(totals.providers())["claude"]
    assert (row.unmetered, row.partial, row.unpriced) == (2, 1, 0)


def test_only_our_own_429_is_a_refusal_by_a_limit():
    totals = Totals()
    add(totals, record(status=429), "refused")
    add(totals, record(status=429), "done")
    add(totals, record(status=403), "refused")
    assert dict(totals.providers())["claude"].limited == 1


def test_strangers_are_counted_by_their_answer_alone():
    totals = Totals()
    for status in (401, 401, 400, 0):
        totals.stranger(status)
    assert totals.strangers == {401: 2, 400: 1, 0: 1}
    assert not list(totals.users())


@given(st.lists(st.floats(0, 1e7) | st.sampled_from(TOTAL_BOUNDS_MS), max_size=40))
def test_a_bucket_counts_what_took_at_most_so_long(durations_ms):
    totals = Totals()
    for ms in durations_ms:
        add(totals, record(head_ms=ms, total_ms=ms), "done")
    for _, row in totals.providers():
        for durations, bounds_ms in ((row.head, HEAD_BOUNDS_MS), (row.total, TOTAL_BOUNDS_MS)):
            buckets, sum_s = durations.cumulative()
            expected = [sum(ms <= bound for ms in durations_ms) for bound in bounds_ms]
            assert [count for _, count in buckets] == [*expected, len(durations_ms)]
            assert [le for le, _ in buckets] == [*(bound / 1000 for bound in bounds_ms), float("inf")]
            assert abs(sum_s - sum(durations_ms) / 1000) < 1e-6 * max(1.0, sum_s)


def test_thousands_of_durations_fall_into_their_buckets_whenever_somebody_looks():
    totals, durations_ms = Totals(), []
    for number in range(3000):
        durations_ms.append(number * 401 % 1000 * 700.0)
        add(totals, record(head_ms=durations_ms[-1], total_ms=durations_ms[-1]), "done")
        if number % 700 == 0:
            row = dict(totals.providers())["claude"]
            for durations, bounds_ms in ((row.head, HEAD_BOUNDS_MS), (row.total, TOTAL_BOUNDS_MS)):
                counts = [count for _, count in durations.cumulative()[0]]
                assert counts == [sum(ms <= bound for ms in durations_ms) for bound in (*bounds_ms, 1e9)]


def test_a_request_that_got_no_head_has_a_duration_all_the_same():
    totals = Totals()
    add(totals, record(status=0, head_ms=None, total_ms=70.0), "left")
    row = dict(totals.providers())["claude"]
    assert row.head.cumulative()[0][-1][1] == 0
    assert row.total.cumulative()[0][-1][1] == 1


# Labels


def test_a_thousand_invented_models_have_fifty_labels_and_those_of_the_price_table_their_own():
    totals = Totals(lambda provider, model: "known" if model.startswith("known-2") else None)
    for number in range(1000):
        add(totals, record(model=f"invented-{number}"), "done")
    add(totals, record(model="known-20260101"), "done")
    add(totals, record(model="known-20260202"), "done")
    found = models(totals)
    assert len(found) == MOST_OTHER_MODELS + 2
    assert {OTHER, "known", "invented-0"} < found
    assert sum(used.tokens.output for used in totals.models()) == 1002 * 50


def test_a_model_of_the_price_table_has_one_label_on_whatever_day_it_was_made():
    totals = Totals(listed_name)
    dated = [(model, name) for model in Prices().known() for name in model.names if "#" in name]
    assert dated
    for model, name in dated:
        for digit in "12":
            made = name.replace("#", digit)
            add(totals, record(provider=model.provider, model=made), "done")
            add(totals, record(provider=model.provider, model=made.upper()), "done")
    assert models(totals) == {model.name for model, _ in dated}


def test_ten_thousand_spellings_are_not_remembered():
    totals = Totals()
    for number in range(10_000):
        add(totals, record(model=f"invented-{number}"), "done")
    assert len(totals._spelled) <= 1024
    assert len(totals._models) <= MOST_OTHER_MODELS + 1


def test_a_model_that_used_nothing_takes_no_label():
    totals = Totals()
    for number in range(100):
        add(totals, record(model=f"no-such-{number}", status=404, tokens=NO_TOKENS, cost=None), "done")
    add(totals, record(model="real"), "done")
    assert models(totals) == {"real"}


def test_a_model_without_a_name_and_one_with_too_much_of_it_have_a_label_in_common_with_others():
    totals = Totals()
    add(totals, record(model=""), "done")
    add(totals, record(model="x" * 65), "done")
    assert models(totals) == {UNKNOWN, OTHER}


def test_the_first_users_have_their_own_label_and_the_others_share_one():
    totals = Totals()
    for number in range(10_000):
        add(totals, record(user=f"user-{number}"), "done")
        add(totals, record(user="user-0"), "done")
    users = {name: requests for name, requests, _ in totals.users()}
    assert len(users) == MOST_USERS + 1
    assert users["user-0"] == 10_001
    assert users[OTHER] == 10_000 - MOST_USERS


def test_statuses_and_providers_without_end_do_not_grow_anything():
    totals = Totals()
    for status in range(100, 1000):
        for provider in range(40):
            add(totals, record(status=status, provider=f"provider-{provider}"), "done")
    assert len(list(totals.ends())) <= 201
    assert sum(count for *_, count in totals.ends()) == 900 * 40
    assert len(list(totals.providers())) <= 17


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.sampled_from("mno"), st.tuples(*[st.integers(0, 2**53)] * 5),
            st.none() | st.integers(0, 10**12),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_the_sums_are_the_sums_of_what_was_added(requests):
    totals = Totals()
    for user, model, tokens, cost in requests:
        add(
            totals,
            record(user=user, model=model, tokens=Tokens(*tokens), cost=cost and MicroUsd(cost)),
            "done",
        )
    assert sum(used.tokens.total for used in totals.models()) == sum(sum(one[2]) for one in requests)
    assert sum(tokens for *_, tokens in totals.users()) == sum(sum(one[2]) for one in requests)
    assert sum(used.cost_microusd for used in totals.models()) == sum(
        one[3] or 0 for one in requests if any(one[2])
    )
