"""What a request costs, notionally: its tokens at the list price of the provider's API.

Rule 1: no price rather than a wrong one. An unknown model, an unknown tier, a time
before the first price, a kind of token without a rate: the cost is None, which is
shown as such, and is not zero.

Rule 2: exact until the end. Dollars for a million tokens are millionths of a dollar
for one, so rates are whole numbers over one denominator, and each request is rounded
once, half up.

Rule 3: what clients invent costs nothing to remember. Names come from outside, and no
more of them are kept than there is room for.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fnmatch import translate
from fractions import Fraction
from math import inf, lcm
from typing import Final

from ai_mux.usage.price_table import STANDARD, Model, Price, Rates, beginning_s, table
from ai_mux.usage.tally import MicroUsd, Tokens

# How many combinations of provider, model and tier are remembered. A server sees a few dozen; with
# more, all are forgotten at once and found anew, some microseconds each.
_REMEMBERED: Final = 512
# Longer than any name of a model or a tier: the longest in the table has 26 characters. What is
# longer has no price, is not remembered, and is not searched by patterns.
_LONGEST_NAME: Final = 256
# The context that a person chose in Claude Code stands behind the model's name, in any case of its
# letters. It has no price of its own: a long prompt may have.
_CONTEXT: Final = "[1m]"
_DATE: Final = re.compile(r"(?<=[-@])(?:[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2})\Z")
_DIGIT: Final = re.compile(r"[0-9]")


# Both are taken apart for every request, hence plain tuples.
#
# Rates in whole numbers: by kind of token, 0 where there is none, each twice ``rate * denominator``, so that
# rounding is one division; twice the denominator, by which their sum is divided; the places of kinds without
# a rate.
_Scale = tuple[tuple[int, int, int, int, int], int, tuple[int, ...]]
# A price as one tier of a model has it: from when and until when it holds, above how many tokens a prompt is
# long, and what short and long prompts cost, None for no rates.
_Period = tuple[float, float, float, _Scale | None, _Scale | None]


class Prices:
    """What tokens cost: the operator's own prices, then those of the table."""

    __slots__ = ("_overrides", "_resolved")

    def __init__(self, overrides: Sequence[tuple[str, Mapping[str, Decimal]]] = ()) -> None:
        """Take the operator's prices; the table is read when it is needed.

        Args:
            overrides: Globs, matched without regard to case, the first that matches wins; with dollars for
                a million tokens by kind (the fields of ``Tokens``). Such a price holds for every
                provider, tier, length and time, and takes the whole price's place: a kind that it
                leaves out has no rate.
        """
        self._overrides = [
            (
                re.compile(translate(glob.lower())),
                (-inf, inf, inf, _scale(Rates(**per_million)), None),
            )
            for glob, per_million in overrides
        ]
        self._resolved: dict[tuple[str, str, str | None], tuple[_Period, ...]] = {}

    def cost(
        self, provider: str, model: str, tokens: Tokens, tier: str | None, at_s: float
    ) -> MicroUsd | None:
        """Return what a request costs, or None where something of it has no known price.

        Args:
            provider: As ai-mux names it.
            model: As the response names it, else the request.
            tokens: What was used; none of them negative.
            tier: As the response names it; None where it names none, which is the standard one.
            at_s: When, in seconds since 1970.
        """
        key = (provider, model, tier)
        periods = self._resolved.get(key)
        if periods is None:
            periods = self._resolve(key)
        for period in periods:
            first_s, end_s, long_above, short, long = period
            if first_s <= at_s < end_s:
                break
        else:
            return None
        fresh, read, written_5m, written_1h, answer = tokens
        # Both providers count what was read from the cache and written to it to a prompt's length.
        is_long = long_above < inf and fresh + read + written_5m + written_1h > long_above
        scale = long if is_long else short
        if scale is None:
            return None
        (of_fresh, of_read, of_5m, of_1h, of_answer), whole, gaps = scale
        if gaps and any(tokens[kind] for kind in gaps):
            return None
        twice = (
            fresh * of_fresh + read * of_read + written_5m * of_5m + written_1h * of_1h + answer * of_answer
        )
        # Every request comes here, and to call a NewType is to call a function that returns its argument.
        return (twice + whole // 2) // whole  # type: ignore[return-value]

    def known(self) -> tuple[Model, ...]:
        """Return the models of the table, those without a price included.

        The first call of this or of ``cost`` reads the table, in about 10 ms: call this in a
        thread at the start, and the first request does not hold up the others.
        """
        return table().models

    # Finding the price of a name

    def _resolve(self, key: tuple[str, str, str | None]) -> tuple[_Period, ...]:
        provider, model, tier = key
        if len(model) > _LONGEST_NAME or len(tier or "") > _LONGEST_NAME:
            return ()
        name = model.lower().removesuffix(_CONTEXT)
        periods = self._own(name) or _listed(provider, name, tier)
        if len(self._resolved) >= _REMEMBERED:
            self._resolved.clear()
        self._resolved[key] = periods
        return periods

    def _own(self, name: str) -> tuple[_Period, ...]:
        return next(((period,) for glob, period in self._overrides if glob.match(name)), ())


def listed_name(provider: str, model: str) -> str | None:
    """Return what the table calls a model, whatever its date and letters; None if it is not there."""
    if len(model) > _LONGEST_NAME:
        return None
    known = _known(provider, model.lower().removesuffix(_CONTEXT))
    return None if known is None else known.name


def _known(provider: str, name: str) -> Model | None:
    """Return the model of this name, in small letters; None where the table has none."""
    if "#" in name:
        return None
    # A snapshot with a price of its own stands in the table by its whole name.
    undated = _DATE.sub(lambda found: _DIGIT.sub("#", found[0]), name)
    named = table().named
    return named.get((provider, name)) or named.get((provider, undated))


def _listed(provider: str, name: str, tier: str | None) -> tuple[_Period, ...]:
    """Return what the table says of a model and tier, the latest first; empty where it says nothing."""
    # Where a response names no tier, it is the one that is used when nobody asks for another.
    ours = STANDARD if tier is None else table().tiers.get(provider, {}).get(tier.lower())
    known = None if ours is None else _known(provider, name)
    if ours is None or known is None:
        return ()
    return tuple(_period(price, ours) for price in reversed(known.prices))


def _period(price: Price, tier: str) -> _Period:
    short, long = price.short.get(tier), price.long.get(tier)
    return (
        -inf if price.first_day is None else beginning_s(price.first_day),
        inf if price.end_day is None else beginning_s(price.end_day),
        inf if price.long_above is None else price.long_above,
        None if short is None else _scale(short),
        None if long is None else _scale(long),
    )


def _scale(rates: Rates) -> _Scale:
    exact = [Fraction(rate or 0) for rate in rates]
    whole = 2 * lcm(*(rate.denominator for rate in exact))
    fresh, read, written_5m, written_1h, answer = (int(rate * whole) for rate in exact)
    gaps = tuple(place for place, rate in enumerate(rates) if rate is None)
    return (fresh, read, written_5m, written_1h, answer), whole, gaps
