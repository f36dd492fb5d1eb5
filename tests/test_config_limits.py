"""Limits: how they are written, what a user's own replace, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.config import Config, load
from ai_mux.errors import ConfigError
from ai_mux.limits import NO_LIMITS, Limits, Quantity, Rule

HOUR, DAY = 3600, 86_400
ALICE = {"name": "alice", "token": "a-token-for-this-test-only"}


@pytest.fixture
def loaded(tmp_path):
    """Load limits, and those of one user, given as JSON can write them."""

    def read(limits: object = None, own: object = None, **settings: object) -> Config:
        whole: dict[str, object] = {"providers": ["claude"], **settings}
        if limits is not None:
            whole["limits"] = limits
        if own is not None:
            whole["users"] = [ALICE | {"limits": own}]
        file = tmp_path / "limits.json"
        file.write_text(json.dumps(whole, indent=1))
        file.chmod(0o600)
        return load(file, known_providers=["claude"])

    return read


@pytest.fixture
def wrong(loaded):
    """Load limits that must be refused, and return why, without the file's name."""

    def read(*arguments: object, **settings: object) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loaded(*arguments, **settings)
        return [line.partition("limits.json:")[2] for line in caught.value.lines]

    return read


def rule(key: str, amount: int, window_s: int, text: str) -> Rule:
    return Rule(quantity=Quantity(key), amount=amount, window_s=window_s, text=text)


# How they are written


def test_all_four_kinds_at_once(loaded):
    limits = {"concurrent": 8, "requests": ["60/min"], "tokens": ["5M/day"], "cost": ["$20/week"]}
    assert loaded(limits).limits == Limits(
        concurrent=8,
        rules=(
            rule("requests", 60, 60, "60/min"),
            rule("tokens", 5_000_000, DAY, "5M/day"),
            rule("cost", 20_000_000, 7 * DAY, "$20/week"),
        ),
    )


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("1/h", 1),
        ("1k/h", 1000),
        ("1K/h", 1000),
        ("5M/h", 5_000_000),
        ("2G/h", 2 * 10**9),
        ("2B/h", 2 * 10**9),
        ("1.5M/h", 1_500_000),
        ("0.5k/h", 500),
        ("007/h", 7),
        ("1000000B/h", 10**15),
    ],
)
def test_an_amount_is_whole_and_may_have_a_suffix(loaded, written, amount):
    assert loaded({"tokens": written}).limits.rules == (rule("tokens", amount, HOUR, written),)


@pytest.mark.parametrize(
    ("written", "micro_usd"),
    [
        ("$20/h", 20_000_000),
        ("$0.50/h", 500_000),
        ("$0.000001/h", 1),
        ("$1.5k/h", 1_500_000_000),
        ("$0.1/h", 100_000),
        ("$1000000000/h", 10**15),
    ],
)
def test_a_cost_is_dollars_to_the_millionth(loaded, written, micro_usd):
    assert loaded({"cost": written}).limits.rules == (rule("cost", micro_usd, HOUR, written),)


@given(micro_usd=st.integers(1, 10**15))
def test_no_cost_is_rounded(tmp_path_factory, micro_usd):
    file = tmp_path_factory.getbasetemp() / "cost.json"
    file.write_text(json.dumps({"limits": {"cost": f"${micro_usd // 10**6}.{micro_usd % 10**6:06}/day"}}))
    assert load(file, known_providers=[]).limits.rules[0].amount == micro_usd


@pytest.mark.parametrize(
    ("window", "seconds"),
    [
        ("s", 1),
        ("sec", 1),
        ("second", 1),
        ("10seconds", 10),
        ("min", 60),
        ("minute", 60),
        ("15minutes", 900),
        ("h", HOUR),
        ("hour", HOUR),
        ("5h", 5 * HOUR),
        ("24hours", DAY),
        ("d", DAY),
        ("day", DAY),
        ("7d", 7 * DAY),
        ("31days", 31 * DAY),
        ("w", 7 * DAY),
        ("week", 7 * DAY),
        ("2weeks", 14 * DAY),
        ("month", 30 * DAY),
    ],
)
def test_a_window_is_a_unit_with_a_number_or_without(loaded, window, seconds):
    assert loaded({"requests": f"9/{window}"}).limits.rules[0].window_s == seconds


def test_several_at_once_keep_their_order(loaded):
    written = ["60/min", "1000/5h", "5k/day"]
    assert [one.text for one in loaded({"requests": written}).limits.rules] == written


def test_one_may_stand_without_a_list(loaded):
    assert loaded({"requests": "60/min"}) == loaded({"requests": ["60/min"]})


def test_without_any_there_are_none(loaded):
    assert loaded().limits == loaded({}).limits == NO_LIMITS


# A user's own


DEFAULT = {"concurrent": 8, "requests": ["60/min", "1k/day"], "cost": ["$20/week"]}


def test_a_user_without_limits_has_the_default(loaded):
    config = loaded(DEFAULT, users=[ALICE])
    assert config.users[0].limits is config.limits


def test_a_key_of_a_user_replaces_that_key_of_the_default_and_no_other(loaded):
    assert loaded(DEFAULT, {"requests": "5/min", "tokens": "1M/day"}).users[0].limits == Limits(
        concurrent=8,
        rules=(
            rule("requests", 5, 60, "5/min"),
            rule("tokens", 1_000_000, DAY, "1M/day"),
            rule("cost", 20_000_000, 7 * DAY, "$20/week"),
        ),
    )


@pytest.mark.parametrize("nothing", [[], "unlimited"])
def test_a_user_can_be_freed_from_what_the_default_says(loaded, nothing):
    own = loaded(DEFAULT, {"concurrent": "unlimited", "requests": nothing}).users[0].limits
    assert own == Limits(concurrent=None, rules=(rule("cost", 20_000_000, 7 * DAY, "$20/week"),))


def test_a_user_has_limits_where_the_default_has_none(loaded):
    config = loaded(None, {"concurrent": 1})
    assert (config.limits, config.users[0].limits) == (NO_LIMITS, Limits(concurrent=1))


def test_where_the_default_stands_in_the_file_makes_no_difference(tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"users": [ALICE], "limits": {"concurrent": 3}}))
    assert load(file, known_providers=[]).users[0].limits.concurrent == 3


# What is refused


@pytest.mark.parametrize(
    ("key", "written", "says"),
    [
        *[
            (key, written, "is not an amount and a window; write it like")
            for key, written in [
                ("requests", "60"),
                ("requests", "/min"),
                ("requests", "60/"),
                ("requests", "60 per minute"),
                ("requests", "60 / min"),
                ("requests", "-1/min"),
                ("requests", "1_000/min"),
                ("tokens", "1,000/min"),
                ("tokens", "5 M/day"),
                ("tokens", "1e6/day"),
                ("tokens", "5T/day"),
                ("tokens", "٣/day"),
                ("tokens", "9" * 5000 + "/day"),
                ("cost", "20$/day"),
                ("cost", "€20/day"),
                ("cost", "20 USD/day"),
                ("cost", "$/day"),
                ("cost", "$.5/day"),
                ("requests", "1/-5h"),
                ("requests", "1/1.5h"),
                ("requests", "1/5h30min"),
            ]
        ],
        ("requests", "", "must not be empty"),
        ("requests", 60, "says how much, and not within how long"),
        ("tokens", 1.5, "says how much, and not within how long"),
        ("requests", True, "put it in quotes"),
        ("requests", None, "has no value"),
        ("requests", {"min": 60}, "must be a string, not a mapping"),
        ("requests", "$5/day", "has a '$', which only a cost has"),
        ("tokens", "$5/day", "has a '$', which only a cost has"),
        ("cost", "5/day", "must be in dollars, with a '$' in front"),
        ("requests", "0/min", "must be more than nothing"),
        ("cost", "$0.00/min", "must be more than nothing"),
        ("requests", "1.5/min", "must be a whole number"),
        ("tokens", "1.0005k/min", "must be a whole number"),
        ("cost", "$0.0000001/min", "must be whole millionths of a dollar"),
        ("tokens", "1000001B/day", "is more than anyone can use"),
        ("cost", "$1000000001/day", "is more than anyone can use"),
        ("requests", "9/m", "'m', which may be minutes or months"),
        ("requests", "9/5m", "'m', which may be minutes or months"),
        ("tokens", "5m/day", "has a small 'm' in its amount; a million is a capital 'M'"),
        ("cost", "$1.5m/2week", "has a small 'm' in its amount; a million is a capital 'M'"),
        ("requests", "9/fortnight", "in no known unit"),
        ("requests", "9/Day", "in no known unit"),
        ("requests", "9/year", "in no known unit"),
        ("requests", "9/0min", "between a second and 31 days"),
        ("requests", "9/32d", "between a second and 31 days"),
        ("requests", "9/2months", "between a second and 31 days"),
    ],
)
def test_nonsense_is_refused_in_a_list_and_alone(wrong, key, written, says):
    says = says.replace("in no known unit", "in no known unit")
    [line] = wrong({key: written})
    assert line.startswith(f"3: limits.{key}: ".replace("3", line.partition(":")[0], 1))
    assert says in line
    if written is not None and not isinstance(written, (int, float)):
        [line] = wrong({key: ["7/s" if key != "cost" else "$7/s", written]})
        assert f" limits.{key}[1]: " in line
        assert says in line


@pytest.mark.parametrize("written", [0, -1, 1.5, "8", "none", None, [8], True])
def test_what_is_not_a_positive_number_at_once_is_refused(wrong, written):
    [line] = wrong({"concurrent": written})
    assert " limits.concurrent: " in line


@pytest.mark.parametrize("written", ["60/min", "unlimited", 5, [], ["60/min"], True])
def test_limits_are_a_mapping(wrong, written):
    assert " limits: must be a mapping" in wrong(written)[0]
    assert " users[0].limits: must be a mapping" in wrong(None, written)[0]


def test_an_unknown_key_is_refused_with_the_nearest_known_one(wrong):
    assert "limits.request: unknown key; did you mean 'requests'?" in wrong({"request": "60/min"})[0]
    assert "users[0].limits.costs: unknown key; did you mean 'cost'?" in wrong(None, {"costs": "$1/h"})[0]


@pytest.mark.parametrize("twice", [["60/min", "100/min"], ["60/min", "100/60s"], ["1/day", "1/24h"]])
def test_two_with_the_same_window_are_refused_and_both_lines_named(wrong, twice):
    [line] = wrong({"requests": twice})
    assert line == (
        "8: limits.requests[1]: has the same window as another one, in line 7; remove one of them"
    )


def test_the_same_window_may_limit_different_things(loaded):
    assert len(loaded({"requests": "1/day", "tokens": "1k/day", "cost": "$1/day"}).limits.rules) == 3


def test_every_problem_is_told_with_its_own_line(wrong):
    lines = wrong({"requests": ["x", "60/min", "y"], "cost": "5/day"}, {"tokens": ["z"]})
    assert [line.split(": ")[:2] for line in lines] == [
        ["7", "limits.requests[0]"],
        ["9", "limits.requests[2]"],
        ["11", "limits.cost"],
        ["19", "users[0].limits.tokens[0]"],
    ]


def test_a_rule_without_quotes_is_a_string_in_yaml(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("limits:\n  requests: 60/min\n  tokens: [5M/day, 1M/h]\n  cost:\n    - $20/week\n")
    assert [one.text for one in load(file, known_providers=[]).limits.rules] == [
        "60/min",
        "5M/day",
        "1M/h",
        "$20/week",
    ]


# What they need


@pytest.mark.parametrize("rules", [{"tokens": "1M/day"}, {"cost": "$1/day"}])
def test_limits_of_tokens_and_cost_need_what_counts_them(wrong, rules):
    off = {"enabled": False}
    assert "usage.enabled: is off, and limits has a limit of tokens or cost" in wrong(rules, usage=off)[0]
    assert "usage.enabled: is off, and users[0] has a limit of" in wrong(None, rules, usage=off)[0]


def test_other_limits_do_without(loaded):
    config = loaded({"concurrent": 1, "requests": "1/h"}, usage={"enabled": False})
    assert (config.limits.concurrent, config.warnings) == (1, ())


def test_a_ledger_shorter_than_a_window_is_warned_about(loaded):
    for limits, own in (({"requests": "9/week"}, None), (None, {"requests": "9/week"})):
        [warning] = loaded(limits, own, usage={"keep": "6d"}).warnings
        assert "usage.keep: is shorter than the longest window" in warning
        assert loaded(limits, own, usage={"keep": "7d"}).warnings == ()
