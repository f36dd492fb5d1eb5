"""Which groups stand in a table, and in which order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ai_mux.usage.store import Dimension, Group, Sums, together

# In their own order and never the largest first.
TIMES: Final[frozenset[Dimension]] = frozenset({"day", "hour"})
_STEP: Final = {"day": timedelta(days=1), "hour": timedelta(hours=1)}
_FORMAT: Final = {"day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}
# Six weeks of hours, almost three years of days. Nobody sees a gap in a list that is longer.
_MOST_FILLED: Final = 1000

NOTHING: Final = together(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of a report.

    Attributes:
        by: What its rows are told apart by.
        rows: In the order in which they are shown.
        left_out: How many groups are not among the rows.
        rest: The sums of those.
        total: The sums of all.
    """

    by: tuple[Dimension, ...]
    rows: tuple[Group, ...]
    left_out: int = 0
    rest: Sums = NOTHING
    total: Sums = NOTHING


def table(by: tuple[Dimension, ...], groups: Sequence[Group], *, until_s: float) -> Table:
    """Return the table of these groups.

    Days and hours without requests have a row as well, from the first that has any to the
    end of the time asked about: a day of silence is worth seeing, and a row of bars with
    gaps in it that cannot be seen misleads.

    Args:
        by: What they are told apart by.
        groups: As they were summed.
        until_s: The end of the time asked about, in seconds since 1970.
    """
    rows = ordered(by, groups)
    if len(by) == 1 and by[0] in TIMES and rows:
        rows = list(_filled(by[0], rows, until_s))
    return Table(by=by, rows=tuple(rows), total=together(group.sums for group in groups))


def joined(groups: Sequence[Group], level: int) -> list[Group]:
    """Return groups that are told apart by one level of their keys alone."""
    found: dict[str, list[Sums]] = {}
    for group in groups:
        found.setdefault(group.key[level], []).append(group.sums)
    return [Group((name,), together(several)) for name, several in found.items()]


def shortened(whole: Table, most: int) -> Table:
    """Return a table with at most so many rows and the sums of the others: the smaller, or the earlier."""
    surplus = len(whole.rows) - most
    if surplus <= 1:  # one row more takes no more room than a row for the rest
        return whole
    if whole.by[0] in TIMES:
        kept, left = whole.rows[surplus:], whole.rows[:surplus]
    else:
        kept, left = whole.rows[:most], whole.rows[most:]
    return Table(
        by=whole.by,
        rows=kept,
        left_out=len(left),
        rest=together(group.sums for group in left),
        total=whole.total,
    )


def ordered(by: tuple[Dimension, ...], groups: Sequence[Group]) -> list[Group]:
    """Return the groups in order: the costliest first, times in their own order, level by level."""
    weights: dict[tuple[str, ...], list[int]] = {}
    for group in groups:
        for level in range(1, len(by) + 1):
            weight = weights.setdefault(group.key[:level], [0, 0, 0])
            weight[0] -= group.sums.cost
            weight[1] -= group.sums.tokens.total
            weight[2] -= group.sums.requests

    def place(group: Group) -> list[tuple[object, ...]]:
        return [
            (value,) if by[level] in TIMES else (*weights[group.key[: level + 1]], value)
            for level, value in enumerate(group.key)
        ]

    return sorted(groups, key=place)


def _filled(by: Dimension, rows: Sequence[Group], until_s: float) -> Iterator[Group]:
    step, form = _STEP[by], _FORMAT[by]
    known = {group.key[0]: group for group in rows}
    ended = datetime.fromtimestamp(until_s, UTC) - timedelta(microseconds=1)
    first = datetime.fromisoformat(rows[0].key[0])
    last = datetime.fromisoformat(max(rows[-1].key[0], ended.strftime(form)))
    count = (last - first) // step + 1
    if count > _MOST_FILLED:
        yield from rows
        return
    for number in range(count):
        key = (first + number * step).strftime(form)
        yield known.get(key) or Group((key,), NOTHING)
