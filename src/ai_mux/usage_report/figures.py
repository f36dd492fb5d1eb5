"""Figures as a person reads them: three digits that count and a unit. Programs get them exact."""

from typing import Final

from ai_mux.usage.store import Sums
from ai_mux.usage.tally import MicroUsd

# Thousand, million, billion, trillion, and 10^15: as amounts of limits are written.
_UNITS: Final = ("", "k", "M", "B", "T", "P")
_MICRO: Final = 10**6


def counted(number: int) -> str:
    """Return a number of requests: exact where it fits into seven characters."""
    return f"{number:,}" if number < 1_000_000 else compact(number)


def compact(number: int) -> str:
    """Return a number of tokens in at most five characters, such as ``812``, ``1.23k``, ``88.4M``."""
    if number < 1000:
        return str(number)
    value = float(number)
    for unit in _UNITS:
        if value < 999.5:
            # 9.995 would be rounded to 10.00, one digit too many.
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
        value /= 1000
    return f"{float(number):.0e}"


def dollars(cost: MicroUsd) -> str:
    """Return a sum of money, to the cent where it is not large."""
    if 0 < cost < _MICRO / 100:
        return "<$0.01"
    cents = (cost + _MICRO // 200) // (_MICRO // 100)
    if cents < 100_000_00:
        return f"${cents // 100:,}.{cents % 100:02d}"
    return f"${compact(cents // 100)}"


def cost_of(sums: Sums) -> str:
    """Return what a group's tokens cost, or a dash where no price is known for any of them."""
    return "-" if sums.unpriced and not sums.cost else dollars(sums.cost)
