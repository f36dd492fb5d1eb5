"""Which columns a terminal has room for, and how wide they are.

Of several ways to show a group's figures the most detailed that fits is taken, and the bars
get what is left. All tables of a survey are laid out together, so that they are read as one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len

from ai_mux.usage.store import Sums
from ai_mux.usage_report.figures import compact, cost_of, counted

GAP: Final = 2
# The second is as long as models' names are with a date: what is longer is cut before bars are given up.
_LONGEST_NAMES: Final = (40, 26)
_SHORTEST_NAME: Final = 6
_WIDEST_BAR: Final = 24
_NARROWEST_BAR: Final = 8


class Figure(NamedTuple):
    """A column of figures: its head, on two lines where that saves room, its cells, and their style."""

    head: str
    cell: Callable[[Sums], str]
    style: str = ""


_REQUESTS: Final = Figure("requests", lambda sums: counted(sums.requests))
_COST: Final = Figure("cost", cost_of, "bold")
_ERRORS: Final = Figure("errors", lambda sums: counted(sums.errors), "red")
_UNMETERED: Final = Figure("un-\nmetered", lambda sums: counted(sums.unmetered), "yellow")
_UNPRICED: Final = Figure("un-\npriced", lambda sums: counted(sums.unpriced), "yellow")
# No request is both: what could not be read has no tokens to price.
_GAPS: Final = Figure("gaps", lambda sums: counted(sums.unmetered + sums.unpriced), "yellow")
_OUTPUT: Final = Figure("output", lambda sums: compact(sums.tokens.output))
_TOKENS: Final = Figure("tokens", lambda sums: compact(sums.tokens.total))
_KINDS: Final = (
    Figure("input", lambda sums: compact(sums.tokens.input)),
    Figure("cache\nread", lambda sums: compact(sums.tokens.cache_read)),
    Figure("cache\nwrite", lambda sums: compact(sums.tokens.cache_write_5m + sums.tokens.cache_write_1h)),
    _OUTPUT,
)
# The most detailed first.
_WAYS: Final = (
    (_REQUESTS, _ERRORS, _UNMETERED, _UNPRICED, *_KINDS, _COST),
    (_REQUESTS, _ERRORS, _GAPS, *_KINDS, _COST),
    (_REQUESTS, _ERRORS, _GAPS, _TOKENS, _OUTPUT, _COST),
    (_REQUESTS, _ERRORS, _GAPS, _TOKENS, _COST),
)
# Shown only where there are any: on most days there are none.
_TROUBLE: Final = (_ERRORS, _UNMETERED, _UNPRICED, _GAPS)


class Line(NamedTuple):
    """One line of a table: its names, its sums, and whether it is of one group or of the rest."""

    names: tuple[str, ...]
    sums: Sums
    is_group: bool = True


class Layout(NamedTuple):
    """What fits: the figures and names with their widths, and how wide the bars may be; 0 for none."""

    figures: dict[Figure, int]
    names: tuple[int, ...]
    bar: int


def fitted(lines: Sequence[Line], width: int) -> Layout:
    """Return the most detailed layout that fits, with bars; without them only where nothing else helps.

    Args:
        lines: All that is to be shown in it, heads and totals included.
        width: The terminal's, in columns.
    """
    several = [line.sums for line in lines]
    ways = [
        {
            one: _width(one, several)
            for one in way
            if one not in _TROUBLE or any(one.cell(sums) != "0" for sums in several)
        }
        for way in _WAYS
    ]
    levels = max(len(line.names) for line in lines)
    wanted = [max(cell_len(line.names[at]) for line in lines if at < len(line.names)) for at in range(levels)]
    for longest in _LONGEST_NAMES:
        names = [min(longest, one) for one in wanted]
        for figures in ways:
            if (bar := _left(width, figures, names) - GAP) >= _NARROWEST_BAR:
                return Layout(figures, tuple(names), min(bar, _WIDEST_BAR))
    names = [min(_LONGEST_NAMES[0], one) for one in wanted]
    while _left(width, ways[-1], names) < 0 and max(names) > _SHORTEST_NAME:
        names[names.index(max(names))] -= 1
    return Layout(ways[-1], tuple(names), 0)


def _left(width: int, figures: Mapping[Figure, int], names: Sequence[int]) -> int:
    """Return how many columns of the terminal are left beside these."""
    return width - sum(figures.values()) - sum(names) - GAP * (len(figures) + len(names) - 1)


def _width(figure: Figure, several: Sequence[Sums]) -> int:
    words = [*figure.head.split("\n"), *(figure.cell(one) for one in several)]
    return max(len(word) for word in words)
