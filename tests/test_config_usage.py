"""``usage``: what is kept, and the operator's own prices, exact to the millionth of a dollar."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.config import PriceConfig, UsageConfig, load
from ai_mux.config.usage import PRICE_KEYS
from ai_mux.errors import ConfigError
from ai_mux.usage.tally import Tokens

DAY = 86_400


@pytest.fixture
def loaded(tmp_path):
    """Load what stands below ``usage``, as YAML has it."""

    def read(text: str) -> UsageConfig:
        file = tmp_path / "u.yaml"
        file.write_text(f"usage: {text}\n")
        return load(file, known_providers=[]).usage

    return read


@pytest.fixture
def wrong(loaded):
    """Return why this may not stand below ``usage``."""

    def read(text: str) -> str:
        with pytest.raises(ConfigError) as caught:
            loaded(text)
        [line] = caught.value.lines
        return line.partition("u.yaml:")[2]

    return read


def test_without_a_word_everything_is_kept_for_400_days_and_no_window_shown(loaded):
    assert loaded("{}") == UsageConfig(enabled=True, keep_s=400 * DAY, show_windows=False, prices=())


def test_every_key_is_read(loaded):
    text = "{enabled: no, keep: 30d, show_windows: yes, prices: {a: {input: 1}}}"
    assert loaded(text) == UsageConfig(
        enabled=False,
        keep_s=30 * DAY,
        show_windows=True,
        prices=(PriceConfig(model="a", per_million={"input": Decimal(1)}),),
    )


# How long


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("400d", 400 * DAY),
        ('"1d"', DAY),
        ("24h", DAY),
        ("36h", 1.5 * DAY),
        ("86400", DAY),
        ("100000d", 100_000 * DAY),
        ("24h0m0.5s", DAY + 0.5),
    ],
)
def test_what_is_kept_is_kept_for_days(loaded, written, seconds):
    assert loaded(f"{{keep: {written}}}").keep_s == seconds


@pytest.mark.parametrize(
    "written", ["0d", "0", "400", "23h59m", "-1d", "1.5d", "1d12h", "1y", "2w", "d", "400 d", "forever", "1M"]
)
def test_what_is_no_duration_of_a_day_or_more_is_refused(wrong, written):
    line = wrong(f"{{keep: {written}}}")
    assert line.startswith("1: usage.keep: ")
    assert 'write it like "400d" or "36h"' in line


@pytest.mark.parametrize("written", ["999999d", "9999999h"])
def test_a_duration_without_end_is_refused(wrong, written):
    assert "is longer than 292 years" in wrong(f"{{keep: {written}}}")


# Prices


def test_prices_are_for_the_kinds_that_are_counted():
    assert set(PRICE_KEYS) == set(Tokens._fields)


def test_prices_keep_their_order_and_their_digits(loaded):
    text = """
  prices:
    my-model-*: {input: 3, output: "15.00", cache_read: 0.3, cache_write_5m: 3.75, cache_write_1h: 6}
    A-Model: {output: 0.1}
    "*": {input: 0}
"""
    first, second, third = loaded(text).prices
    assert (first.model, second.model, third.model) == ("my-model-*", "A-Model", "*")
    assert first.per_million == {
        "input": Decimal(3),
        "output": Decimal(15),
        "cache_read": Decimal("0.3"),
        "cache_write_5m": Decimal("3.75"),
        "cache_write_1h": Decimal(6),
    }
    assert second.per_million == {"output": Decimal("0.1")}
    assert third.per_million == {"input": 0}


@pytest.mark.parametrize(
    ("written", "dollars"),
    [
        ("3", "3"),
        ('"3"', "3"),
        ("$3.50", "3.5"),
        ('"$0.25"', "0.25"),
        (".5", "0.5"),
        ("3.", "3"),
        ("+3", "3"),
        ("010", "10"),
        ("2.5e-1", "0.25"),
        ("1e2", "100"),
        ("0", "0"),
        ("0.000001", "0.000001"),
        ("0.1000000", "0.1"),
        ("999999.999999", "999999.999999"),
    ],
)
def test_a_price_is_dollars_as_a_number_or_a_string(loaded, written, dollars):
    [price] = loaded(f"{{prices: {{a: {{input: {written}}}}}}}").prices
    assert price.per_million == {"input": Decimal(dollars)}


@given(micro_usd=st.integers(0, 10**12 - 1))
def test_no_price_is_rounded(tmp_path_factory, micro_usd):
    written = f"{micro_usd // 10**6}.{micro_usd % 10**6:06}"
    file = tmp_path_factory.getbasetemp() / "price.json"
    file.write_text(f'{{"usage": {{"prices": {{"a": {{"input": {written}, "output": "{written}"}}}}}}}}')
    [price] = load(file, known_providers=[]).usage.prices
    assert [exact * 10**6 for exact in price.per_million.values()] == [micro_usd, micro_usd]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("-1", "must not be negative"),
        ('"-0.5"', "must not be negative"),
        ("-.inf", "must not be negative"),
        (".nan", "is not a price"),
        (".inf", "is not a price"),
        ("NaN", "is not a price"),
        ("0x10", "is not a price"),
        ("free", "is not a price"),
        ("$", "is not a price"),
        ("3 USD", "is not a price"),
        ('"3,50"', "is not a price"),
        ("1_000", "is not a price"),
        ("3/M", "is not a price"),
        ("٣", "is not a price"),
        ("9" * 5000, "is not a price"),
        ("1e999", "is not a price"),
        ("1e6", "is a million dollars or more"),
        ("1e99", "is a million dollars or more"),
        ("1000000", "is a million dollars or more"),
        ("0.0000001", "more than six digits"),
        ("1e-7", "more than six digits"),
        ("1e-99", "more than six digits"),
        ('""', "must not be empty"),
        ("null", "has no value"),
        ("true", "put it in quotes"),
        ("[3]", "must be a string, not a list"),
    ],
)
def test_what_is_no_price_is_refused(wrong, written, says):
    line = wrong(f"{{prices: {{a: {{output: 1, input: {written}}}}}}}")
    assert line.startswith("1: usage.prices[0].input: ")
    assert says in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[]", "1: usage.prices: must be a mapping of models to prices, not a list"),
        ("{a: 3}", "1: usage.prices[0]: must be a mapping ('key: value' lines), not a number"),
        ("{a: {}}", "1: usage.prices[0]: has no price; give at least one of input, output, "),
        ("{a: {inptu: 1}}", "1: usage.prices[0].inptu: unknown key; did you mean 'input'?"),
        ("{a: {input: 1, reasoning: 2}}", "1: usage.prices[0].reasoning: unknown key; "),
        ("{a: {input: 1}, b c: {input: 1}}", "1: usage.prices[1]: its key is no name of a model; "),
        ("{'': {input: 1}}", "1: usage.prices[0]: its key is no name of a model; "),
        ("{a: {input: 1},\n b: {input: 1},\n A: {input: 2}}", "3: usage.prices[2]: is the same model as in"),
    ],
)
def test_what_is_no_table_of_prices_is_refused(wrong, text, line):
    assert wrong(f"{{prices: {text}}}").startswith(line)


def test_a_price_list_in_json_of_one_line_is_read_like_any_other(tmp_path):
    file = tmp_path / "u.json"
    text = {"usage": {"prices": {"a": {"input": 1}, "b": {"input": 1e-06}}}}
    file.write_text(json.dumps(text))
    assert [one.per_million["input"] for one in load(file, known_providers=[]).usage.prices] == [
        1,
        Decimal("0.000001"),
    ]
    file.write_text('{"usage": {"prices": {"a": {"input": 1}, "a": {"input": 2}}}}')
    with pytest.raises(ConfigError, match="is the same model as in line 1"):
        load(file, known_providers=[])
