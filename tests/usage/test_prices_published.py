"""What the providers publish, typed off their pages once more, comes out of ``Prices``.

The pages: platform.claude.com/docs/en/about-claude/pricing (copies of September and October 2026) and
developers.openai.com/api/docs/pricing (copies of September and October 2026), beside those that a test
names itself.
"""

from decimal import Decimal

import pytest

from ai_mux.usage.prices import Prices
from ai_mux.usage.tally import Tokens

MILLION = 1_000_000
NOVEMBER_S = 1_795_305_600.0  # 2026-11-22 00:00 UTC
KINDS = Tokens._fields


def dollars(model, tokens, *, tier=None, at_s=NOVEMBER_S):
    provider = "claude" if model.startswith("claude-") else "chatgpt"
    cost = Prices().cost(provider=provider, model=model, tokens=tokens, tier=tier, at_s=at_s)
    return None if cost is None else Decimal(cost) / MILLION


def rates(model, *, prompt=0, tier=None, at_s=NOVEMBER_S):
    """Return what a million tokens of each kind cost, in a request with a prompt of this length.

    A single request of a million tokens would be a long one, so a short one's cost is taken apart.
    """
    share = 10_000
    filling = Tokens(input=prompt)
    base = dollars(model, filling, tier=tier, at_s=at_s)
    found = []
    for kind in KINDS:
        more = filling._replace(**{kind: getattr(filling, kind) + share})
        cost = dollars(model, more, tier=tier, at_s=at_s)
        found.append(None if cost is None else (cost - base) * (MILLION // share))
    return tuple(found)


def published(row, order):
    """Return the model of a row and its rates, in the order of ``KINDS``; ``-`` is no rate."""
    model, *cells = (cell.strip().removesuffix(" / MTok") for cell in row.strip("| ").split("|"))
    found = [None if cell == "-" else Decimal(cell.removeprefix("$")) for cell in cells]
    by_kind = dict(zip(order, found, strict=True))
    return model, tuple(by_kind.get(kind) for kind in KINDS)


ANTHROPIC = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output")


@pytest.mark.parametrize(
    "row",
    """
    | claude-fable-5-1 | $10 / MTok | $12.50 / MTok | $20 / MTok | $0.25 / MTok | $50 / MTok |
    | claude-mythos-5-1 | $10 / MTok | $12.50 / MTok | $20 / MTok | $0.25 / MTok | $50 / MTok |
    | claude-fable-5 | $10 / MTok | $12.50 / MTok | $20 / MTok | $1 / MTok | $50 / MTok |
    | claude-mythos-5 | $10 / MTok | $12.50 / MTok | $20 / MTok | $1 / MTok | $50 / MTok |
    | claude-opus-5-5 | $4 / MTok | $5 / MTok | $8 / MTok | $0.20 / MTok | $20 / MTok |
    | claude-opus-5 | $5 / MTok | $6.25 / MTok | $10 / MTok | $0.50 / MTok | $25 / MTok |
    | claude-opus-4-8 | $5 / MTok | $6.25 / MTok | $10 / MTok | $0.50 / MTok | $25 / MTok |
    | claude-opus-4-7 | $5 / MTok | $6.25 / MTok | $10 / MTok | $0.50 / MTok | $25 / MTok |
    | claude-opus-4-6 | $5 / MTok | $6.25 / MTok | $10 / MTok | $0.50 / MTok | $25 / MTok |
    | claude-opus-4-5-20251101 | $5 / MTok | $6.25 / MTok | $10 / MTok | $0.50 / MTok | $25 / MTok |
    | claude-opus-4-1@20250805 | $15 / MTok | $18.75 / MTok | $30 / MTok | $1.50 / MTok | $75 / MTok |
    | claude-opus-4-20250514 | $15 / MTok | $18.75 / MTok | $30 / MTok | $1.50 / MTok | $75 / MTok |
    | claude-sonnet-5-5 | $2 / MTok | $2.50 / MTok | $4 / MTok | $0.10 / MTok | $10 / MTok |
    | claude-sonnet-5 | $2 / MTok | $2.50 / MTok | $4 / MTok | $0.20 / MTok | $10 / MTok |
    | claude-sonnet-4-6 | $3 / MTok | $3.75 / MTok | $6 / MTok | $0.30 / MTok | $15 / MTok |
    | claude-sonnet-4-5-20250929 | $3 / MTok | $3.75 / MTok | $6 / MTok | $0.30 / MTok | $15 / MTok |
    | claude-sonnet-4-20250514 | $3 / MTok | $3.75 / MTok | $6 / MTok | $0.30 / MTok | $15 / MTok |
    | claude-haiku-5-5 | $0.10 / MTok | $0.125 / MTok | $0.20 / MTok | $0.01 / MTok | $0.50 / MTok |
    | claude-haiku-4-5-20251001 | $1 / MTok | $1.25 / MTok | $2 / MTok | $0.10 / MTok | $5 / MTok |
    | claude-3-5-haiku-20241022 | $0.80 / MTok | $1 / MTok | $1.60 / MTok | $0.08 / MTok | $4 / MTok |
    """.strip().splitlines(),
    ids=lambda row: row.split()[1],
)
def test_anthropics_table_of_prices(row):
    model, expected = published(row.strip(), ANTHROPIC)
    assert rates(model) == expected


def test_anthropics_prices_of_long_prompts():
    row = "| claude-haiku-5-5 | $0.50 / MTok | $0.625 / MTok | $1 / MTok | $0.05 / MTok | $2.50 / MTok |"
    model, expected = published(row, ANTHROPIC)
    assert rates(model, prompt=100_001) == expected


@pytest.mark.parametrize(
    ("model", "batch_input", "batch_output"),
    [
        ("claude-fable-5-1", "5", "25"),
        ("claude-opus-5-5", "2", "10"),
        ("claude-opus-4-8", "2.50", "12.50"),
        ("claude-opus-4-1", "7.50", "37.50"),
        ("claude-sonnet-5", "1", "5"),
        ("claude-sonnet-4-5", "1.50", "7.50"),
        ("claude-haiku-4-5", "0.50", "2.50"),
        ("claude-3-5-haiku-latest", "0.40", "2"),
    ],
)
def test_anthropics_table_of_batch_prices(model, batch_input, batch_output):
    found = dict(zip(KINDS, rates(model, tier="batch"), strict=True))
    assert (found["input"], found["output"]) == (Decimal(batch_input), Decimal(batch_output))


@pytest.mark.parametrize(
    ("model", "fast_input", "fast_output"),
    [("claude-opus-5-5", 8, 40), ("claude-opus-5", 10, 50), ("claude-opus-4-8", 10, 50)],
)
def test_anthropics_table_of_fast_prices_with_the_cache_multipliers_on_top(model, fast_input, fast_output):
    fresh, read, written_5m, written_1h, answer = rates(model, tier="fast")
    assert (fresh, answer) == (fast_input, fast_output)
    assert (written_5m, written_1h) == (fresh * Decimal("1.25"), fresh * 2)
    assert read == fresh * Decimal("0.05" if model == "claude-opus-5-5" else "0.1")


# "Worked example", under "Claude Managed Agents pricing". The session's hour, $0.08, is no matter of tokens.
@pytest.mark.parametrize(
    ("tokens", "total"),
    [
        (Tokens(input=50_000, output=15_000), "0.705"),
        (Tokens(input=10_000, cache_read=40_000, output=15_000), "0.525"),
    ],
)
def test_anthropics_worked_example_of_an_hour_of_coding(tokens, total):
    assert dollars("claude-opus-5", tokens, tier="standard") == Decimal(total) - Decimal("0.08")


def test_anthropics_example_of_ten_thousand_support_tickets():
    # 3,700 tokens a conversation with Haiku 4.5, about $37.00 for all of them: the example takes
    # every token at the input's rate.
    assert dollars("claude-haiku-4-5", Tokens(input=3_700)) * 10_000 == Decimal("37.00")


def test_anthropics_long_request_is_billed_by_the_same_rate_as_a_short_one():
    # "Long context pricing": 900k tokens by the rate of 9k tokens.
    for model in ("claude-opus-5-5", "claude-sonnet-4-6", "claude-fable-5-1"):
        assert dollars(model, Tokens(input=900_000)) == 100 * dollars(model, Tokens(input=9_000))


OPENAI = ("input", "cache_read", "cache_write_5m", "output")


def openai(row):
    """Return a row's model and its rates for short and for long prompts."""
    model, *cells = row.strip().strip("|").split("|")
    name, short = published("|".join([model, *cells[:4]]), OPENAI)
    _, long = published("|".join([model, *cells[4:]]), OPENAI)
    return name, _with_writes(short), _with_writes(long)


def _with_writes(rates):
    # Before GPT-5.6 nothing stands in this column: what is written costs as input does.
    fresh, read, written_5m, written_1h, answer = rates
    return fresh, read, fresh if written_5m is None else written_5m, written_1h, answer


@pytest.mark.parametrize(
    ("tier", "row"),
    [
        (tier, row)
        for tier, rows in {
            "default": """
    | gpt-6-astra | $10.00 | $1.00 | $12.50 | $50.00 | $20.00 | $2.00 | $25.00 | $75.00 |
    | gpt-6.1-sol | $2.00 | $0.10 | $2.50 | $10.00 | $4.00 | $0.20 | $5.00 | $15.00 |
    | gpt-6-sol | $2.00 | $0.20 | $2.50 | $10.00 | $4.00 | $0.40 | $5.00 | $15.00 |
    | gpt-6-luna | $0.10 | $0.01 | $0.125 | $0.50 | $0.20 | $0.02 | $0.25 | $0.75 |
    | gpt-5.6-sol | $4.00 | $0.40 | $5.00 | $20.00 | $8.00 | $0.80 | $10.00 | $30.00 |
    | gpt-5.6-terra | $2.00 | $0.20 | $2.50 | $12.00 | $4.00 | $0.40 | $5.00 | $18.00 |
    | gpt-5.6-luna | $0.20 | $0.02 | $0.25 | $1.20 | $0.40 | $0.04 | $0.50 | $1.80 |
    | gpt-5.5-2026-04-23 | $5.00 | $0.50 | - | $30.00 | $10.00 | $1.00 | - | $45.00 |
    | gpt-5.5-pro | $30.00 | - | - | $180.00 | $60.00 | - | - | $270.00 |
    | gpt-5.4 | $2.50 | $0.25 | - | $15.00 | $5.00 | $0.50 | - | $22.50 |""",
            "batch": """
    | gpt-6-sol | $1.00 | $0.10 | $1.25 | $5.00 | $2.00 | $0.20 | $2.50 | $7.50 |
    | gpt-6-luna | $0.05 | $0.005 | $0.0625 | $0.25 | $0.10 | $0.01 | $0.125 | $0.375 |
    | gpt-5.5-pro | $15.00 | - | - | $90.00 | - | - | - | - |
    | gpt-5.4-pro | $15.00 | - | - | $90.00 | $30.00 | - | - | $135.00 |""",
            "flex": """
    | gpt-6-astra | $5.00 | $0.50 | $6.25 | $25.00 | $10.00 | $1.00 | $12.50 | $37.50 |
    | gpt-5.6-luna | $0.10 | $0.01 | $0.125 | $0.60 | $0.20 | $0.02 | $0.25 | $0.90 |
    | gpt-5.4 | $1.25 | $0.13 | - | $7.50 | $2.50 | $0.25 | - | $11.25 |""",
            "priority": """
    | gpt-6-astra | $20.00 | $2.00 | $25.00 | $100.00 | $40.00 | $4.00 | $50.00 | $150.00 |
    | gpt-5.6-sol | $8.00 | $0.80 | $10.00 | $40.00 | $16.00 | $1.60 | $20.00 | $60.00 |
    | gpt-5.5 | $12.50 | $1.25 | - | $75.00 | - | - | - | - |
    | gpt-5.4 | $5.00 | $0.50 | - | $30.00 | - | - | - | - |""",
        }.items()
        for row in rows.strip().splitlines()
    ],
)
def test_openais_tables_of_prices_for_short_and_long_prompts(tier, row):
    model, short, long = openai(row)
    assert rates(model, tier=tier) == short
    assert rates(model, prompt=272_001, tier=tier) == long
    # At the limit itself one more token of the answer is not yet one too many.
    assert rates(model, prompt=272_000, tier=tier)[-1] == short[-1]


@pytest.mark.parametrize(
    ("tier", "row"),
    [
        ("default", "| gpt-5.2 | $1.75 | $0.175 | - | $14.00 | - | - | - | - |"),
        ("default", "| gpt-5.1-2025-11-13 | $1.25 | $0.125 | - | $10.00 | - | - | - | - |"),
        ("default", "| gpt-5-nano | $0.05 | $0.005 | - | $0.40 | - | - | - | - |"),
        ("default", "| gpt-4o-2024-08-06 | $2.50 | $1.25 | - | $10.00 | - | - | - | - |"),
        ("default", "| gpt-4o-2024-05-13 | $5.00 | - | - | $15.00 | - | - | - | - |"),
        ("default", "| o3 | $2.00 | $0.50 | - | $8.00 | - | - | - | - |"),
        ("batch", "| gpt-4.1 | $1.00 | - | - | $4.00 | - | - | - | - |"),
        ("flex", "| o4-mini | $0.55 | $0.138 | - | $2.20 | - | - | - | - |"),
        ("priority", "| gpt-5-mini | $0.45 | $0.045 | - | $3.60 | - | - | - | - |"),
        ("priority", "| gpt-4.1-mini | $0.70 | $0.175 | - | $2.80 | - | - | - | - |"),
        ("priority", "| gpt-4o | $4.25 | $2.125 | - | $17.00 | - | - | - | - |"),
        ("priority", "| gpt-4o-mini | $0.25 | $0.125 | - | $1.00 | - | - | - | - |"),
        ("priority", "| o4-mini | $2.00 | $0.50 | - | $8.00 | - | - | - | - |"),
        ("default", "| gpt-5.3-codex | $1.75 | $0.175 | - | $14.00 | - | - | - | - |"),
    ],
)
def test_openais_models_of_one_length(tier, row):
    model, short, _ = openai(row)
    fresh, read, _, _, answer = rates(model, tier=tier)
    assert (fresh, read, answer) == (short[0], short[1], short[4])


def test_openais_words_on_gpt_6_2_sol():
    # developers.openai.com/api/docs/models/gpt-6.2-sol: 12 hours in the cache cost $5; above 272K input
    # tokens, input and cache rates double and output costs 1.5 times; batch costs half, fast mode twice
    # the rate of the same length; ultrafast three times until 28 February 2027, then six times.
    standard = rates("gpt-6.2-sol")
    assert standard == (2, Decimal("0.10"), Decimal("2.50"), 5, 10)
    long = (*(rate * 2 for rate in standard[:4]), 15)
    assert rates("gpt-6.2-sol", prompt=272_001) == long
    for tier, times in (("batch", Decimal("0.5")), ("fast", 2), ("ultrafast", 3)):
        assert rates("gpt-6.2-sol", tier=tier) == tuple(rate * times for rate in standard)
        assert rates("gpt-6.2-sol", prompt=272_001, tier=tier) == tuple(rate * times for rate in long)
    march_s = 1_803_859_200.0  # 2027-03-01 00:00 UTC
    assert rates("gpt-6.2-sol", tier="ultrafast", at_s=march_s - 1)[0] == 6
    assert rates("gpt-6.2-sol", tier="ultrafast", at_s=march_s)[0] == 12


# Others' examples, which quote the providers' prices: github.com/BerriAI/litellm/pull/39622 and the page
# of the package genai-prices.
@pytest.mark.parametrize(
    ("model", "tokens", "tier", "total"),
    [
        ("gpt-6-astra", Tokens(input=800, cache_read=200, output=100), None, "0.0132"),
        ("gpt-6-astra", Tokens(input=300_000, output=1_000), "default", "6.075"),
        ("o3", Tokens(input=MILLION, output=MILLION), "flex", "5"),
    ],
)
def test_examples_of_others(model, tokens, tier, total):
    assert dollars(model, tokens, tier=tier) == Decimal(total)
