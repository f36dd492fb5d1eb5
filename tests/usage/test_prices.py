"""What requests cost: exact, by their time, tier and length, and nothing where something has no price."""

import gc
import math
import subprocess
import sys
import tracemalloc
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.usage.price_table import STANDARD, table
from ai_mux.usage.prices import Prices
from ai_mux.usage.tally import NO_TOKENS, Tokens

NOVEMBER_S = 1_795_305_600.0  # 2026-11-22 00:00 UTC
OCTOBER_7_S = 1_791_331_200.0  # 2026-10-07 00:00 UTC
EVERY_KIND = Tokens(1_000, 1_000, 1_000, 1_000, 1_000)
PRICED = [(model.provider, model.name) for model in table().models if model.prices]


def cost(model, tokens=EVERY_KIND, *, provider="claude", tier=None, at_s=NOVEMBER_S, prices=None):
    return (prices or Prices()).cost(provider=provider, model=model, tokens=tokens, tier=tier, at_s=at_s)


# Rounding


def own(**per_million):
    return Prices([("m", {kind: Decimal(rate) for kind, rate in per_million.items()})])


@pytest.mark.parametrize(
    ("rate", "count", "micro"),
    [
        ("0.5", 1, 1),  # half upwards
        ("0.5", 3, 2),
        ("0.499999", 1, 0),
        ("0.000001", 499_999, 0),
        ("0.000001", 500_000, 1),
        ("2.5", 1, 3),  # Python's round would say 2
        ("3", 7, 21),
        ("0", 10**9, 0),
    ],
)
def test_a_cost_is_rounded_half_up_to_a_millionth_of_a_dollar(rate, count, micro):
    assert cost("m", Tokens(input=count), prices=own(input=rate)) == micro


def test_a_request_is_rounded_once_and_not_by_kind():
    prices = own(input="0.4", cache_read="0.4", output="0.4")
    assert cost("m", Tokens(input=1), prices=prices) == 0
    assert cost("m", Tokens(input=1, cache_read=1, output=1), prices=prices) == 1


# Up to a million dollars, with six digits behind the point, as the configuration takes them.
RATE = st.decimals(min_value=0, max_value=10**6, places=6)
COUNT = st.integers(min_value=0, max_value=2**53)


@given(rates=st.tuples(*[RATE] * 5), counts=st.tuples(*[COUNT] * 5))
def test_a_cost_is_exact_for_any_rates_and_any_counts(rates, counts):
    prices = Prices([("m", dict(zip(Tokens._fields, rates, strict=True)))])
    exact = sum(Fraction(rate) * count for rate, count in zip(rates, counts, strict=True))
    assert cost("m", Tokens(*counts), prices=prices) == math.floor(exact + Fraction(1, 2))


@given(counts=st.tuples(*[st.integers(min_value=0, max_value=200_000)] * 5), which=st.sampled_from(PRICED))
def test_the_table_costs_what_its_rates_say(counts, which):
    provider, name = which
    tokens = Tokens(*counts)
    price = table().named[which].prices[0 if len(table().named[which].prices) == 1 else -1]
    at_s = NOVEMBER_S if price.first_day is None or price.first_day.year < 2027 else 2_000_000_000.0
    prompt = tokens.total - tokens.output
    short = price.long_above is None or prompt <= price.long_above
    rates = (price.short if short else price.long).get(STANDARD)
    if rates is None or any(count and rate is None for count, rate in zip(counts, rates, strict=True)):
        expected = None
    else:
        exact = sum((rate or 0) * count for count, rate in zip(counts, rates, strict=True))
        expected = int(Decimal(exact).quantize(Decimal(1), ROUND_HALF_UP))
    assert cost(name, tokens, provider=provider, at_s=at_s) == expected


# Nothing rather than something wrong


@pytest.mark.parametrize(
    ("model", "tier"),
    [
        ("claude-opus-9", None),  # unknown
        ("claude-opus-4-5-preview", None),
        ("claude-opus-5-5-20270101", None),  # it has no dated snapshots
        ("claude-mythos-preview", None),  # known, and without a price
        ("claude-opus-5-5", "priority"),  # sold by contract
        ("claude-opus-5-5", "flex"),  # another provider's
        ("claude-sonnet-5-5", "fast"),  # not offered
        ("claude-opus-5-5", "no-such-tier"),
        ("", None),
        ("gpt-5.1", None),  # another provider's
    ],
)
def test_what_has_no_price_has_no_cost(model, tier):
    assert cost(model, tier=tier) is None
    assert cost(model, NO_TOKENS, tier=tier) is None


def test_an_unknown_provider_has_no_prices():
    assert cost("claude-opus-5-5", provider="elsewhere") is None
    assert cost("claude-opus-5-5", provider="elsewhere", tier="standard") is None


def test_a_kind_of_token_without_a_rate_has_no_cost_and_the_others_have_one():
    # OpenAI names no price for reading from gpt-5-pro's cache.
    assert cost("gpt-5-pro", Tokens(input=1_000, output=10), provider="chatgpt") == 16_200
    assert cost("gpt-5-pro", Tokens(input=1_000, cache_read=1, output=10), provider="chatgpt") is None


def test_no_tokens_of_a_known_model_cost_nothing():
    assert cost("claude-opus-5-5", NO_TOKENS) == 0


@pytest.mark.parametrize("at_s", [float("nan"), -1e300, 0.0])
def test_a_clock_that_is_wrong_has_no_dated_prices(at_s):
    assert cost("claude-haiku-5-5", at_s=at_s) is None


# Names


@pytest.mark.parametrize(
    ("provider", "written", "name"),
    [
        ("claude", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude", "claude-opus-4-1@20250805", "claude-opus-4-1"),
        ("claude", "claude-opus-4-8[1m]", "claude-opus-4-8"),
        ("claude", "claude-sonnet-4-5-20250929[1m]", "claude-sonnet-4-5"),
        ("claude", "Claude-Opus-4-8[1M]", "claude-opus-4-8"),
        ("claude", "claude-opus-4-0", "claude-opus-4"),
        ("claude", "claude-opus-4-20250514", "claude-opus-4"),
        ("chatgpt", "GPT-5.1-Codex", "gpt-5.1-codex"),
        ("chatgpt", "gpt-5.1-2025-11-13", "gpt-5.1"),
        ("chatgpt", "gpt-5.6", "gpt-5.6-sol"),
    ],
)
def test_a_model_is_known_by_all_of_its_names(provider, written, name):
    tokens = Tokens(input=1_000, cache_read=1_000, cache_write_5m=1_000, output=1_000)
    assert cost(written, tokens, provider=provider) == cost(name, tokens, provider=provider) is not None


def test_a_snapshot_with_a_price_of_its_own_is_not_taken_for_its_model():
    tokens = Tokens(input=1_000)
    assert cost("gpt-4o-2024-05-13", tokens, provider="chatgpt") == 5_000
    assert cost("gpt-4o-2024-11-20", tokens, provider="chatgpt") == 2_500


@pytest.mark.parametrize(
    "name",
    [
        "claude-opus-4-5-########",
        "claude-opus-4-5-2025",
        "claude-opus-4-5-20251101-v2",
        "claude-opus-4-5-２０２５１１０１",
        "claude-opus-4-5-20251101\n",
        "xclaude-opus-4-5",
    ],
)
def test_a_name_that_merely_looks_like_a_model_is_unknown(name):
    assert cost(name) is None


# Time


def test_a_request_is_priced_by_its_time():
    read = Tokens(cache_read=1_000_000)
    assert cost("claude-sonnet-5-5", read, at_s=OCTOBER_7_S - 0.001) == 200_000
    assert cost("claude-sonnet-5-5", read, at_s=OCTOBER_7_S) == 100_000
    prices = Prices()  # one that remembers the model, and hears of times in any order
    for at_s, expected in ((OCTOBER_7_S, 100_000), (OCTOBER_7_S - 1, 200_000), (NOVEMBER_S, 100_000)):
        assert cost("claude-sonnet-5-5", read, at_s=at_s, prices=prices) == expected


def test_before_its_first_price_a_model_has_none():
    assert cost("claude-haiku-5-5", at_s=OCTOBER_7_S - 1) is None
    assert cost("claude-haiku-5-5", at_s=OCTOBER_7_S) is not None


# Length


@pytest.mark.parametrize("kind", ["input", "cache_read", "cache_write_5m", "cache_write_1h"])
def test_every_token_of_the_prompt_counts_to_its_length_and_none_of_the_answer(kind):
    answer = Tokens(output=1_000_000)
    at_the_limit = answer._replace(**{kind: 100_000})
    above_it = answer._replace(**{kind: 100_001})
    short, long = cost("claude-haiku-5-5", at_the_limit), cost("claude-haiku-5-5", above_it)
    assert short >= 500_000
    assert short < 2_500_000 < long


def test_a_long_prompt_has_other_rates_from_its_first_token_on():
    assert cost("gpt-6-luna", Tokens(input=272_000), provider="chatgpt") == 27_200
    assert cost("gpt-6-luna", Tokens(input=272_001), provider="chatgpt") == 54_400
    mixed = Tokens(input=100_000, cache_read=172_001, output=1_000)
    assert cost("gpt-6-luna", mixed, provider="chatgpt") == 20_000 + 3_440 + 750


def test_a_long_prompt_without_a_rate_has_no_cost():
    assert cost("gpt-6.2-astra", Tokens(input=272_000), provider="chatgpt") is not None
    assert cost("gpt-6.2-astra", Tokens(input=272_001), provider="chatgpt") is None
    assert cost("gpt-5.5", Tokens(input=272_001), provider="chatgpt", tier="priority") is None


# Tiers


@pytest.mark.parametrize(
    ("provider", "model", "said", "factor"),
    [
        ("claude", "claude-opus-5-5", None, "1"),
        ("claude", "claude-opus-5-5", "standard", "1"),
        ("claude", "claude-opus-5-5", "batch", "0.5"),
        ("claude", "claude-opus-5-5", "fast", "2"),
        ("chatgpt", "gpt-5.6-sol", None, "1"),
        ("chatgpt", "gpt-5.6-sol", "default", "1"),
        ("chatgpt", "gpt-5.6-sol", "auto", "1"),
        ("chatgpt", "gpt-5.6-sol", "flex", "0.5"),
        ("chatgpt", "gpt-5.6-sol", "priority", "2"),
        ("chatgpt", "gpt-5.6-sol", "fast", "2"),
        ("chatgpt", "gpt-6-astra", "ultrafast", "6"),
    ],
)
def test_a_tier_has_its_own_rates(provider, model, said, factor):
    tokens = Tokens(input=1_000, cache_read=1_000, cache_write_5m=1_000, output=1_000)
    assert cost(model, tokens, provider=provider, tier=said) == Decimal(factor) * cost(
        model, tokens, provider=provider
    )


def test_a_tier_that_is_sold_by_contract_has_no_cost():
    assert cost("gpt-5.6-sol", Tokens(input=1), provider="chatgpt", tier="scale") is None


# The operator's own prices


def test_the_operators_price_comes_before_ours():
    prices = Prices([("claude-opus-*", {"input": Decimal(1)})])
    assert cost("claude-opus-5-5", Tokens(input=1_000), prices=prices) == 1_000
    assert cost("claude-sonnet-5-5", Tokens(input=1_000), prices=prices) == 2_000


def test_the_first_of_the_operators_prices_that_matches_wins():
    prices = Prices([("my-*-large", {"input": Decimal(9)}), ("my-*", {"input": Decimal(1)})])
    assert cost("my-own-large", Tokens(input=1_000), prices=prices) == 9_000
    assert cost("my-own-small", Tokens(input=1_000), prices=prices) == 1_000


@pytest.mark.parametrize("written", ["MY-model-7", "my-model-7[1m]", "My-Model-7[1M]"])
@pytest.mark.parametrize("glob", ["My-Model-?", "my-model-7"])
def test_the_operators_globs_do_not_mind_capitals_or_a_chosen_context(glob, written):
    prices = Prices([(glob, {"input": Decimal(1)})])
    assert cost(written, Tokens(input=1_000), prices=prices) == 1_000


def test_a_glob_stands_for_the_whole_name():
    prices = Prices([("model", {"input": Decimal(1)}), ("m[ox]de?", {"input": Decimal(2)})])
    assert cost("models", Tokens(input=1_000), prices=prices) is None
    assert cost("a-model", Tokens(input=1_000), prices=prices) is None
    assert cost("mxdel", Tokens(input=1_000), prices=prices) == 2_000


def test_the_operators_price_holds_for_every_provider_tier_length_and_time():
    prices = Prices([("claude-haiku-5-5", {"input": Decimal(1)})])
    tokens = Tokens(input=500_000)
    for provider in ("claude", "chatgpt", "elsewhere"):
        for tier in (None, "standard", "priority", "batch", "anything"):
            for at_s in (0.0, NOVEMBER_S, 4e9):
                assert (
                    cost("claude-haiku-5-5", tokens, provider=provider, tier=tier, at_s=at_s, prices=prices)
                    == 500_000
                )


def test_a_kind_that_the_operator_left_out_has_no_cost():
    prices = Prices([("claude-opus-5-5", {"input": Decimal(1), "output": Decimal(2)})])
    assert cost("claude-opus-5-5", Tokens(input=1_000, output=1_000), prices=prices) == 3_000
    assert cost("claude-opus-5-5", Tokens(input=1_000, cache_read=1), prices=prices) is None


def test_a_price_of_nothing_is_a_price():
    prices = Prices([("local-*", {kind: Decimal(0) for kind in Tokens._fields})])
    assert cost("local-llama", prices=prices) == 0


# Names from outside


def test_ten_thousand_invented_names_take_no_more_room_than_a_few():
    prices = Prices([("my-*", {"input": Decimal(1)})])
    filled = ("x" * 200).__add__
    for number in range(1_000):
        cost(filled(str(number)), prices=prices)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1_000, 10_000):
            cost(filled(str(number)), tier=str(number), prices=prices)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 512 * 1024
    assert cost("claude-opus-5-5", Tokens(input=1_000), prices=prices) == 4_000


@pytest.mark.parametrize("which", ["model", "tier"])
def test_a_name_of_a_megabyte_is_unknown_and_not_kept(which):
    prices = Prices([("*", {"input": Decimal(1)})])
    tokens = Tokens(input=1)
    asked = {"model": "m", "tier": "t", which: "x" * 2**20}
    tracemalloc.start()
    try:
        assert prices.cost(provider="claude", tokens=tokens, at_s=NOVEMBER_S, **asked) is None
        del asked
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 64 * 1024


def test_what_is_known_names_its_dates_and_its_sources():
    (sonnet,) = (model for model in Prices().known() if model.name == "claude-sonnet-5-5")
    assert [str(price.first_day) for price in sonnet.prices] == ["2026-09-28", "2026-10-07"]
    assert all(source.url.startswith("https://") for price in sonnet.prices for source in price.sources)


def test_the_table_is_read_when_it_is_needed_and_not_before():
    script = (
        "from ai_mux.usage import price_table, prices\n"
        "from ai_mux.usage.tally import Tokens\n"
        "ours = prices.Prices()\n"
        "print(price_table.table.cache_info().currsize)\n"
        "ours.cost(provider='claude', model='m', tokens=Tokens(), tier=None, at_s=0.0)\n"
        "print(price_table.table.cache_info().currsize)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["0", "1"]
