"""The table of prices: complete, consistent, and documented line by line."""

import re
from collections import Counter
from datetime import date
from decimal import Decimal

import pytest
from documents import ROOT

from ai_mux.usage.price_table import STANDARD, Model, Price, Rates, Source, read, table
from ai_mux.usage.tally import Tokens

MODELS = table().models
PRICES = [(model, price) for model in MODELS for price in model.prices]
DOCUMENT = (ROOT / "docs/reference/prices.md").read_text(encoding="utf-8")


def shown(rate: Decimal | None) -> str:
    return "—" if rate is None else f"{rate.normalize():f}"


def factor(rates: Rates, base: Rates) -> Decimal | None:
    """Return by what all of ``base`` was multiplied; None where it was not that, or by no plain number."""
    multiple = (rates.input / base.input).quantize(Decimal("0.01"))
    return multiple if rates == base.times(multiple, multiple) else None


def described(rates: Rates, base: Rates) -> str:
    multiple = factor(rates, base)
    return " / ".join(shown(rate) for rate in rates) if multiple is None else f"{shown(multiple)}×"


def longer(price: Price) -> str:
    """Return what the document says of longer prompts."""
    if price.long_above is None:
        return "—"
    above = f"> {price.long_above:,}: "
    if STANDARD not in price.long:
        return above + "no rates"
    short, long = price.short[STANDARD], price.long[STANDARD]
    assert None not in {long.input, short.input, long.output, short.output}
    of_prompt, of_output = long.input / short.input, long.output / short.output
    assert long == short.times(of_prompt, of_output)
    same = of_prompt == of_output
    return above + (f"{shown(of_prompt)}×" if same else f"{shown(of_prompt)}×, output {shown(of_output)}×")


def tiers(price: Price) -> str:
    """Return what the document says of the tiers."""
    told = []
    for tier, rates in price.short.items():
        if tier == STANDARD:
            continue
        text = f"{tier} {described(rates, price.short[STANDARD])}"
        long = price.long.get(tier)
        if price.long and long is None:
            text += ", no longer prompts"
        elif long is not None and factor(long, price.long[STANDARD]) != factor(rates, price.short[STANDARD]):
            text += ", longer " + " / ".join(shown(rate) for rate in long)
        told.append(text)
    return "; ".join(told) or "—"


def row(model: Model, price: Price) -> str:
    names = ", ".join(f"`{name}`" for name in (model.name, *model.names))
    days = "—" if price.first_day is None else str(price.first_day)
    days += "" if price.end_day is None else f" to {price.end_day}"
    rates = [shown(rate) for rate in price.short[STANDARD]]
    sources = ", ".join(source.name for source in price.sources)
    note = f" ({price.note})" if price.note else ""
    return f"| {' | '.join([names, days, *rates, longer(price), tiers(price), sources + note])} |"


def source_row(source: Source) -> str:
    told = source.remark or ""
    if source.third_party:
        told = f"**{source.third_party}**" + (f", {told}" if told else "")
    return f"| {source.name} | <{source.url}> | {source.read} | {told} |"


def test_there_are_prices_for_both_providers():
    assert (
        Counter(model.provider for model, _ in PRICES).keys() == {"claude", "chatgpt"} == table().tiers.keys()
    )
    assert len(PRICES) > 60


@pytest.mark.parametrize(("model", "price"), PRICES, ids=lambda one: getattr(one, "name", None))
def test_a_price_is_complete(model, price):
    assert price.sources
    assert model.provider in table().tiers
    standard = price.short[STANDARD]
    assert standard.input is not None
    assert standard.output is not None or model.name.startswith("text-embedding-")
    for rates in (*price.short.values(), *price.long.values()):
        assert all(rate is None or rate > 0 for rate in rates)
        # More decimals than providers publish would be a slip of the finger.
        assert all(rate is None or rate.normalize().as_tuple().exponent >= -5 for rate in rates)
    assert price.short.keys() >= price.long.keys()
    assert price.short.keys() <= set(table().tiers[model.provider].values())
    assert price.long_above is None or price.long_above >= 100_000
    if model.provider == "claude":
        # By Anthropic's general rule, whatever row the figures were taken from.
        assert standard.cache_write_5m == standard.input * Decimal("1.25")
        assert standard.cache_write_1h == standard.input * 2
        assert price.short["batch"] == standard.times(Decimal("0.5"), Decimal("0.5"))


def test_the_prices_of_a_model_follow_upon_each_other():
    for model in MODELS:
        for price, later in zip(model.prices, model.prices[1:], strict=False):
            assert later.first_day is not None
            assert price.first_day is None or price.first_day < later.first_day
            assert price.end_day is not None
            assert price.end_day <= later.first_day
        for price in model.prices:
            assert None in {price.first_day, price.end_day} or price.first_day < price.end_day


def test_every_source_is_a_page_that_was_read_and_is_used():
    used = {source.name for _, price in PRICES for source in price.sources}
    assert used == table().sources.keys()
    own = re.compile(r"https://(platform\.claude\.com|developers\.openai\.com|openai\.com)/")
    for source in table().sources.values():
        assert re.fullmatch(r"https://\S+", source.url)
        assert date(2025, 1, 1) < source.read <= date(2026, 11, 22)
        # Whoever is not the provider is named.
        assert bool(own.match(source.url)) == (source.third_party is None)


def test_names_are_lower_case_and_their_digits_open_only_in_a_date():
    open_digits = re.compile(r"[-@](########|####-##-##)$")
    for (_, name), _ in table().named.items():
        assert re.fullmatch(r"[a-z0-9.@-]{2,64}", open_digits.sub("", name))


SOURCE = 'tiers = {}\n[sources.a]\nurl = "https://example.test/"\nread = 2026-01-01\n'
ONE = '[[models]]\nprovider = "claude"\nname = "one"\n'
PRICE = '[[models.prices]]\nsources = ["a"]\nrates = {input = 1}\n'


def test_a_name_cannot_stand_for_two_models():
    read(SOURCE + ONE + ONE.replace("claude", "chatgpt"))
    with pytest.raises(ValueError, match="one stands for two models"):
        read(SOURCE + ONE + ONE.replace('"one"', '"two"\nnames = ["one"]'))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('sources = ["a"]', ""),
        ('sources = ["a"]', 'sources = ["nobody"]'),
        ("rates = {input = 1}", ""),
        ("{input = 1}", "{inputs = 1}"),
        ("rates", "rate = 2\nrates"),
        ("rates", "long = {over = 2}\nrates"),
        ("from = 2026-02-01", ""),
    ],
)
def test_what_is_missing_or_unknown_in_the_table_is_an_error(right, wrong):
    text = SOURCE + ONE + PRICE + PRICE.replace("sources", "from = 2026-02-01\nsources")
    assert len(read(text).models[0].prices) == 2
    with pytest.raises((KeyError, TypeError, ValueError)):
        read(text.replace(right, wrong))


def test_the_document_lists_every_price_and_nothing_else():
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| `") and line.count("|") > 10]
    assert rows == [row(model, price) for model, price in PRICES]


def test_the_document_lists_every_model_without_a_price():
    (line,) = (line for line in DOCUMENT.splitlines() if line.startswith("Without a price: "))
    assert re.findall("`([^`]+)`", line) == [model.name for model in MODELS if not model.prices]


def test_the_document_lists_every_source_and_nothing_else():
    rows = [line for line in DOCUMENT.splitlines() if re.match(r"\| [\w-]+ \| <", line)]
    assert rows == [source_row(source) for source in table().sources.values()]


def test_the_document_names_every_kind_and_every_tier():
    for kind in Tokens._fields:
        assert f"`{kind}`" in DOCUMENT
    for names in table().tiers.values():
        for said, tier in names.items():
            assert f"`{said}`" in DOCUMENT
            assert f"`{tier}`" in DOCUMENT
