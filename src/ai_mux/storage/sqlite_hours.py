"""What requests come to, hour by hour: the sums that are written with their rows.

Rule 1: they are the sums that SQLite makes of the same rows (``sqlite_sums``). To make these, it
would sort the rows and read each of them again, which takes four times as long.

Rule 2: many rows at a time, column by column, so that nearly all of it happens in C.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Final

from ai_mux.storage.sqlite_schema import COLUMNS

_HOUR_S: Final = 3600
_AMOUNTS: Final = slice(COLUMNS.index("input"), COLUMNS.index("bytes_out") + 1)
_COST: Final = COLUMNS.index("cost") - COLUMNS.index("input")


def hourly(columns: Sequence[Sequence[Any]]) -> list[tuple[object, ...]]:
    """Return the sums of these rows, as rows for the table of hours (``GROUPED_BY``, then ``SUMMED``).

    There may be several for the same hour, user, credential, provider and model.

    Args:
        columns: The rows, column by column (``COLUMNS``); at least one row.

    Raises:
        ValueError: A time is none: infinite, or not a number.
    """
    ended_at, _, users, credentials, providers, _, models, statuses, meterings, *_ = columns
    first, last = int(min(ended_at) // _HOUR_S), int(max(ended_at) // _HOUR_S)
    # Rows that are written together are of one hour, but for those around its end.
    hours: Iterable[int] = repeat(first) if first == last else [int(at_s // _HOUR_S) for at_s in ended_at]
    keys = zip(hours, users, credentials, providers, models, statuses, meterings)  # noqa: B905 - repeat has no end
    alike: dict[tuple[Any, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for key, amounts in zip(keys, zip(*columns[_AMOUNTS], strict=True), strict=True):
        alike[key].append(amounts)
    return [(*who, *_sums(status, metering, of)) for (*who, status, metering), of in alike.items()]


def _sums(status: int, metering: str, rows: Sequence[tuple[Any, ...]]) -> tuple[int, ...]:
    """Return the sums (``SUMMED``) of requests that had this status, and were read so far."""
    count, unpriced = len(rows), 0
    amounts = list(zip(*rows, strict=True))
    if None in amounts[_COST]:
        unpriced = sum(row[_COST] is None and any(row[:_COST]) for row in rows)
        amounts[_COST] = tuple(cost or 0 for cost in amounts[_COST])
    return (
        count,
        count if metering != "none" else 0,
        count if status >= 400 or status == 0 else 0,
        count if metering == "unmetered" else 0,
        unpriced,
        *map(sum, amounts),
    )
