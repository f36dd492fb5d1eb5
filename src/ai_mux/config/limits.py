"""The ``limits`` of a configuration: how much of something, within how long.

A user's key replaces the same key of the default and is not added to it, so that
what a user may do can be read in one place.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from ai_mux.config import values
from ai_mux.config.report import Fields, Report, Wrong
from ai_mux.config.tree import Kind, Node, Scalar
from ai_mux.limits import Limits, Quantity, Rule

KEYS: Final = ("concurrent", *(quantity.value for quantity in Quantity))

# What takes a default away. A key without a value does not: it is most likely unfinished.
_UNLIMITED: Final = "unlimited"

_FORMS: Final = {
    Quantity.REQUESTS: 'write it like "60/min" or "1k/5h"',
    Quantity.TOKENS: 'write it like "5M/day" or "100k/h"',
    Quantity.COST: 'write it like "$20/week" or "$0.50/h"',
}
_UNITS: Final = "s, min, h, day, week or month"
_RULE: Final = re.compile(r"(\$?)([0-9]{1,15}(?:\.[0-9]{1,9})?)([kKMGB]?)/([0-9]{0,7})([A-Za-z]{1,16})")
_SMALL_M: Final = re.compile(r"\$?[0-9.]{1,32}m/[0-9A-Za-z]{1,32}")
_FACTORS: Final = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}
# A month has 30 days: the window slides, so no calendar knows where it begins.
_WINDOWS_S: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86_400),
    **dict.fromkeys(("month", "months"), 30 * 86_400),
}
# After a restart a window is filled from the ledger, which sums up so far back quickly.
_LONGEST_WINDOW_S: Final = 31 * 86_400
_MICROUSD: Final = 10**6
# A billion dollars, or what all the world's models do not say in a year: sums stay far below 2**63.
_MOST: Final = 10**15


def read_limits(node: Node, *, at: str, default: Limits, report: Report) -> Limits:
    """Return what holds in the end; what is wrong goes to ``report``.

    Args:
        node: The mapping.
        at: Where it stands: ``limits``, or ``users[0].limits``.
        default: What holds for the keys that it does not have.
        report: Where problems go.
    """
    fields = Fields(node, at=at, known=KEYS, report=report)
    rules: list[Rule] = []
    for quantity in Quantity:
        key = quantity.value
        inherited = tuple(rule for rule in default.rules if rule.quantity is quantity)
        rules += fields.get(key, _reader(quantity, fields.path(key), report), inherited)
    return Limits(
        concurrent=fields.get("concurrent", _concurrent, default.concurrent),
        rules=tuple(rules),
    )


def _concurrent(node: Node) -> int | None:
    return None if _is_unlimited(node) else values.count(node)


def _reader(quantity: Quantity, at: str, report: Report) -> Callable[[Node], tuple[Rule, ...]]:
    """Return a reader of the rules of one quantity."""
    lines: dict[int, int] = {}

    def read_one(node: Node) -> Rule:
        if isinstance(node, Scalar) and node.kind in {Kind.INTEGER, Kind.FLOAT}:
            raise Wrong(f"says how much, and not within how long; {_FORMS[quantity]}")
        rule = _rule(values.text(node), quantity)
        if (first := lines.get(rule.window_s)) is not None:
            raise Wrong(f"has the same window as another one, in line {first}; remove one of them")
        lines[rule.window_s] = node.line
        return rule

    def read(node: Node) -> tuple[Rule, ...]:
        if _is_unlimited(node):
            return ()
        return tuple(values.several(node, read_one, at=at, report=report))

    return read


def _is_unlimited(node: Node) -> bool:
    return isinstance(node, Scalar) and node.kind is Kind.STRING and node.text == _UNLIMITED


def _rule(written: str, quantity: Quantity) -> Rule:
    """Return what a text like ``5M/day`` means.

    Raises:
        Wrong: Nothing, or not for this quantity.
    """
    form = _FORMS[quantity]
    if (parts := _RULE.fullmatch(written)) is None:
        if _SMALL_M.fullmatch(written):
            raise Wrong(f"has a small 'm' in its amount; a million is a capital 'M'; {form}")
        raise Wrong(f"is not an amount and a window; {form}")
    dollar, number, suffix, times, unit = parts.groups()
    if dollar and quantity is not Quantity.COST:
        raise Wrong(f"has a '$', which only a cost has; {form}")
    if not dollar and quantity is Quantity.COST:
        raise Wrong(f"must be in dollars, with a '$' in front; {form}")
    return Rule(
        quantity=quantity,
        amount=_amount(Fraction(number) * _FACTORS[suffix], quantity),
        window_s=_window_s(times, unit),
        text=written,
    )


def _amount(written: Fraction, quantity: Quantity) -> int:
    amount = written * _MICROUSD if quantity is Quantity.COST else written
    if amount <= 0:
        raise Wrong("must be more than nothing; to keep a user out, remove the user")
    if amount.denominator != 1:
        whole = "whole millionths of a dollar" if quantity is Quantity.COST else "a whole number"
        raise Wrong(f"must be {whole}; {_FORMS[quantity]}")
    if amount > _MOST:
        raise Wrong(f"is more than anyone can use; write less, or '{_UNLIMITED}'")
    return int(amount)


def _window_s(times: str, unit: str) -> int:
    if unit in {"m", "M"}:
        raise Wrong("has a window in 'm', which may be minutes or months; write 'min' or 'month'")
    if unit not in _WINDOWS_S:
        raise Wrong(f"has a window in no known unit; use {_UNITS}, with a number before it or not")
    window_s = int(times or 1) * _WINDOWS_S[unit]
    if not 0 < window_s <= _LONGEST_WINDOW_S:
        raise Wrong("has a window that is not between a second and 31 days; write another")
    return window_s
