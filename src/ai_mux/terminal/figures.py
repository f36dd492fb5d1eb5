"""Figures as a person reads them: three digits that count and a unit. Programs get them exact."""

from itertools import pairwise
from typing import Final

NOTHING: Final = "-"
"""What stands where there is no figure."""

# Thousand, million, billion, trillion, and 10^15: as amounts of limits are written.
_UNITS: Final = ("", "k", "M", "B", "T", "P")
_MICRO: Final = 10**6
_CENT: Final = _MICRO // 100
# From here on cents tell nothing, and take room.
_LARGE: Final = 100_000 * _MICRO
# The units of a duration; two of them are as exact as anybody reads.
_DURATIONS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


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


def dollars(micro_usd: int, *, beside: int = 0) -> str:
    """Return a sum of money: to the cent, or in three digits where it, or one beside it, is large.

    Args:
        micro_usd: The sum, in millionths of a dollar.
        beside: The largest sum that stands in the same column, so that all are written in one way.
    """
    is_large = _in(_CENT, max(micro_usd, beside)) * _CENT >= _LARGE
    unit = _MICRO if is_large else _CENT
    if 0 < micro_usd < unit:
        return "<$1" if is_large else "<$0.01"
    if is_large:
        return f"${compact(_in(_MICRO, micro_usd))}"
    cents = _in(_CENT, micro_usd)
    return f"${cents // 100:,}.{cents % 100:02d}"


def _in(unit: int, micro_usd: int) -> int:
    """Return a sum in whole units, to the nearest."""
    return (micro_usd + unit // 2) // unit


def duration(seconds: float | None) -> str:
    """Return a duration as one word, such as ``45s``, ``6h12m``, ``3d``; what is over has a minus."""
    if seconds is None:
        return NOTHING
    left = int(abs(seconds))
    words = f"{left}s"
    for (unit, size), (next_unit, next_size) in pairwise(_DURATIONS):
        if left >= size:
            rest = left % size // next_size
            words = f"{left // size}{unit}" + (f"{rest}{next_unit}" if rest and next_unit != "s" else "")
            break
    return f"-{words}" if seconds < 0 else words
