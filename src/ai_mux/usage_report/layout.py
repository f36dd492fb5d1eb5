"""Which columns a terminal has room for, and how wide they are.

Of several ways to show a group's figures the most detailed that fits is taken, and the bars
get what is left. All tables of a survey are laid out together, so that they are read as one.

Where there is no room for bars, names are cut before figures are left out, and figures are
left out before a day or an hour is cut: half a date says nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len

from ai_mux.terminal.figures import NOTHING, compact, counted, dollars
from ai_mux.terminal.page import GAP
from ai_mux.usage.store import Dimension, Sums
from ai_mux.usage_report.rows import TIMES

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
# The most detailed first. The cost stands behind each of them.
_WAYS: Final[Sequence[tuple[Figure, ...]]] = (
    (_REQUESTS, _ERRORS, _UNMETERED, _UNPRICED, *_KINDS),
    (_REQUESTS, _ERRORS, _GAPS, *_KINDS),
    (_REQUESTS, _ERRORS, _GAPS, _TOKENS, _OUTPUT),
    (_REQUESTS, _ERRORS, _GAPS, _TOKENS),
)
# Only where not even that fits without bars. The sentences below the tables tell of gaps all the same.
_NARROW_WAYS: Final[Sequence[tuple[Figure, ...]]] = (
    (_REQUESTS, _ERRORS, _TOKENS),
    (_REQUESTS, _TOKENS),
    (_TOKENS,),
    (),
)
# Shown only where there are any: on most days there are none.
_TROUBLE: Final = (_ERRORS, _UNMETERED, _UNPRICED, _GAPS)


class Line(NamedTuple):
    """One line of a table.

    Attributes:
        by: What its table tells groups apart by.
        names: Those of its group, one for each of ``by``; of the rest, what it is called.
        sums: What was used.
        is_group: It is of one group, and not of the rest.
    """

    by: tuple[Dimension, ...]
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
    ways = _filled(_WAYS, several)
    levels = max(len(line.names) for line in lines)
    wanted = [_longest(line.names[at] for line in lines if at < len(line.names)) for at in range(levels)]
    for longest in _LONGEST_NAMES:
        names = [min(longest, one) for one in wanted]
        for figures in ways:
            if (bar := _left(width, figures, names) - GAP) >= _NARROWEST_BAR:
                return Layout(figures, tuple(names), min(bar, _WIDEST_BAR))
    least = [max(_SHORTEST_NAME, _longest(_times(lines, at))) for at in range(levels)]
    narrow = _filled(_NARROW_WAYS, several)
    for figures in (ways[-1], *narrow):
        names = _cut(width, figures, [min(_LONGEST_NAMES[0], one) for one in wanted], least)
        if _left(width, figures, names) >= 0:
            return Layout(figures, tuple(names), 0)
    return Layout(narrow[-1], tuple(_cut(width, narrow[-1], names, [_SHORTEST_NAME] * levels)), 0)


def _filled(ways: Sequence[tuple[Figure, ...]], several: Sequence[Sums]) -> list[dict[Figure, int]]:
    """Return the figures of each way that have something to say, with their widths, and the cost."""
    most = max(sums.cost for sums in several)
    cost = Figure("cost", lambda sums: cost_of(sums, beside=most), "bold")
    return [
        {
            one: _width(one, several)
            for one in (*way, cost)
            if one not in _TROUBLE or any(one.cell(sums) != "0" for sums in several)
        }
        for way in ways
    ]


def cost_of(sums: Sums, *, beside: int = 0) -> str:
    """Return what a group's tokens cost, or a dash where no price is known for any of them.

    Args:
        sums: The group's.
        beside: The highest cost of its column, in millionths of a dollar.
    """
    return NOTHING if sums.unpriced and not sums.cost else dollars(sums.cost, beside=beside)


def _times(lines: Sequence[Line], at: int) -> Iterator[str]:
    """Yield the days and hours that stand at one level."""
    for line in lines:
        if line.is_group and at < len(line.by) and line.by[at] in TIMES:
            yield line.names[at]


def _cut(width: int, figures: Mapping[Figure, int], names: Sequence[int], least: Sequence[int]) -> list[int]:
    """Return the names' widths, the largest cut first, until they fit or none may be cut any more."""
    cut = list(names)
    while _left(width, figures, cut) < 0:
        spare = [at for at, one in enumerate(cut) if one > least[at]]
        if not spare:
            break
        cut[max(spare, key=lambda at: cut[at])] -= 1
    return cut


def _longest(words: Iterable[str]) -> int:
    return max(map(cell_len, words), default=0)


def _left(width: int, figures: Mapping[Figure, int], names: Sequence[int]) -> int:
    """Return how many columns of the terminal are left beside these."""
    return width - sum(figures.values()) - sum(names) - GAP * (len(figures) + len(names) - 1)


def _width(figure: Figure, several: Sequence[Sums]) -> int:
    words = [*figure.head.split("\n"), *(figure.cell(one) for one in several)]
    return max(len(word) for word in words)
