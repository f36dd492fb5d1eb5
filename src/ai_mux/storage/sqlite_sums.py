"""Sums what the ledger holds: whole hours from their sums, what is left of others from the rows.

Rule 1: nothing here writes.

Rule 2: all parts of an answer are of one moment, whatever is written meanwhile.

Rule 3: sums are added up as far as SQLite's integers go; where a provider's nonsense is
more than they hold, they become approximate rather than an error.
"""

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Final, NamedTuple

from ai_mux.storage.sqlite_schema import LAST_SECOND_S, SUMMED
from ai_mux.usage.store import Dimension, Group, Query, Spent, Sums
from ai_mux.usage.tally import MicroUsd, Tokens

_HOUR_S: Final = 3600
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
# Limits may slide in steps: so many for each window.
_STRETCHES: Final = 60
# So many hours, and the present one, are looked at row by row when limits are restored.
_RECENT_HOURS: Final = 2

_HOUR_OF_ROW: Final = f"CAST(ended_at / {_HOUR_S} AS INTEGER)"
_TOKENS: Final = "input + cache_read + cache_write_5m + cache_write_1h + output"
# What a row adds to the sums of its hour, where it is not the column of that name.
_OF_ROW: Final = {
    "requests": "1",
    "counted": "metering <> 'none'",
    "errors": "status >= 400 OR status = 0",
    "unmetered": "metering = 'unmetered'",
    "unpriced": f"cost IS NULL AND {_TOKENS} > 0",
    "cost": "coalesce(cost, 0)",
}
_SUMS_OF_ROWS: Final = ", ".join(f"sum({_OF_ROW.get(name, name)})" for name in SUMMED)
_SUMS_OF_HOURS: Final = ", ".join(f"sum({name})" for name in SUMMED)
_KEYS: Final[dict[Dimension, tuple[str, str]]] = {
    # By what: hours are grouped, rows are grouped
    "user": ("user", "user"),
    "credential": ("credential", "credential"),
    "provider": ("provider", "provider"),
    "model": ("model", "model"),
    "day": ("hour / 24", f"{_HOUR_OF_ROW} / 24"),
    "hour": ("hour", _HOUR_OF_ROW),
}


class _Part(NamedTuple):
    """A stretch of time, and where its sums are found.

    Attributes:
        hours: In whole hours' sums; else in the rows.
        start: Its first hour since 1970, or its first second.
        end: Where it ends, which is no part of it; likewise.
    """

    hours: bool
    start: float
    end: float


def sums(connection: sqlite3.Connection, query: Query) -> list[Group]:
    """Return the sums of what was kept, ordered by key; no group where there was nothing.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    found: dict[tuple[str | int, ...], list[int]] = {}
    with _one_moment(connection):
        for part in _parts(connection, query.since_s, query.until_s):
            for row in _summed(connection, part, query):
                key, figures = row[: len(query.by)], row[len(query.by) :]
                before = found.get(key)
                found[key] = (
                    list(figures)
                    if before is None
                    else [left + right for left, right in zip(before, figures, strict=True)]
                )
    groups = (Group(_shown(query.by, key), _sums(figures)) for key, figures in found.items())
    return sorted((one for one in groups if one.sums.requests), key=lambda one: one.key)


def _parts(connection: sqlite3.Connection, since_s: float, until_s: float) -> Iterator[_Part]:
    """Divide a stretch of time into whole hours and what is left at its edges.

    An edge beyond which its hour has no rows is none: that hour counts whole. So a report
    until now, whose last hour has the most rows of all, need not look at them.
    """
    since_s, until_s = max(since_s, 0.0), min(until_s, LAST_SECOND_S + 1.0)
    if since_s >= until_s:
        return
    first, last = since_s // _HOUR_S, until_s // _HOUR_S
    if since_s > first * _HOUR_S and _has_rows(connection, first * _HOUR_S, since_s):
        first += 1
        yield _Part(hours=False, start=since_s, end=min(first * _HOUR_S, until_s))
    if until_s > last * _HOUR_S and last >= first:
        if _has_rows(connection, until_s, (last + 1) * _HOUR_S):
            yield _Part(hours=False, start=last * _HOUR_S, end=until_s)
        else:
            last += 1
    if first < last:
        yield _Part(hours=True, start=first, end=last)


def _has_rows(connection: sqlite3.Connection, since_s: float, until_s: float) -> bool:
    statement = "SELECT EXISTS (SELECT 1 FROM requests WHERE ended_at >= ? AND ended_at < ?)"
    return bool(connection.execute(statement, (since_s, until_s)).fetchone()[0])


def _summed(connection: sqlite3.Connection, part: _Part, query: Query) -> Iterable[tuple[int, ...]]:
    keys = [_KEYS[one][0 if part.hours else 1] for one in query.by]
    table, time, figures = (
        ("hourly", "hour", _SUMS_OF_HOURS) if part.hours else ("requests", "ended_at", _SUMS_OF_ROWS)
    )
    whose = "" if query.user is None else " AND user = :user"
    grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
    statement = (
        f"SELECT {''.join(f'{key}, ' for key in keys)}{figures} FROM {table} "  # noqa: S608 - our own words
        f"WHERE {time} >= :start AND {time} < :end{whose}{grouped}"
    )
    values = {"start": part.start, "end": part.end, "user": query.user}
    rows = _exactly_or_nearly(connection, statement, values)
    return (row for row in rows if row[len(keys)])  # without groups there is a row also for nothing


def _shown(by: tuple[Dimension, ...], key: tuple[str | int, ...]) -> tuple[str, ...]:
    return tuple(_day_or_hour(one, value) for one, value in zip(by, key, strict=True))


def _day_or_hour(dimension: Dimension, value: str | int) -> str:
    if isinstance(value, str):
        return value
    if dimension == "day":
        return date.fromordinal(_EPOCH_DAY + value).isoformat()
    return f"{date.fromordinal(_EPOCH_DAY + value // 24).isoformat()}T{value % 24:02d}"


def _sums(figures: list[int]) -> Sums:
    of = dict(zip(SUMMED, figures, strict=True))
    return Sums(
        requests=of["requests"],
        errors=of["errors"],
        unmetered=of["unmetered"],
        unpriced=of["unpriced"],
        tokens=Tokens(*(of[kind] for kind in Tokens._fields)),
        cost=MicroUsd(of["cost"]),
        bytes_in=of["bytes_in"],
        bytes_out=of["bytes_out"],
    )


def spent(connection: sqlite3.Connection, since_s: float, now_s: float) -> list[Spent]:
    """Return what users spent since then, in stretches.

    A stretch is a 60th of what lies between at most; where that was more than some hours ago,
    it is whole hours, one at least. So no user has many more than 60.

    What has a metering of "none" used nothing and counts as no request. What is from the
    future was written by a clock that was wrong: it is from now, as far as it lies no further
    ahead than ``since_s`` lies back, and else left out, or it would be from now at every
    restart until its time has come.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    if not 0 < now_s - since_s < math.inf:
        return []
    step_s = (now_s - since_s) / _STRETCHES
    this_hour = now_s // _HOUR_S
    recent_s = max(since_s, (this_hour - _RECENT_HOURS) * _HOUR_S)
    first = min(math.ceil(since_s / _HOUR_S), recent_s // _HOUR_S)
    ahead_s = min(2 * now_s - since_s, LAST_SECOND_S)
    values = {
        "since": since_s,
        "first": first,
        "first_s": first * _HOUR_S,
        "recent": recent_s // _HOUR_S,
        "recent_s": recent_s,
        "near_s": min(ahead_s, (this_hour + 2) * _HOUR_S),
        "far": this_hour + 2,
        "end": ahead_s // _HOUR_S,
        "now": now_s,
        "step": step_s,
        "hours": max(1, step_s // _HOUR_S),
    }
    with _one_moment(connection):
        rows = _exactly_or_nearly(connection, _SPENT, values)
    return [Spent(str(row[0]), row[1], row[2], int(row[3]), MicroUsd(int(row[4]))) for row in rows]


_OF_ROWS: Final = f"sum({_OF_ROW['counted']}), sum({_TOKENS}), sum(coalesce(cost, 0)) FROM requests"
_OF_HOURS: Final = f"sum(counted), sum({_TOKENS}), sum(cost) FROM hourly"
_STRETCH: Final = "min(:now, :since + :step * (1 + CAST((ended_at - :since) / :step AS INTEGER)))"
_STRETCH_OF_HOURS: Final = (
    f"min(:now, (:first + :hours * (1 + CAST((hour - :first) / :hours AS INTEGER))) * {_HOUR_S}.0)"
)
_SPENT: Final = f"""
    SELECT user, {_STRETCH} AS at, {_OF_ROWS}
        WHERE ended_at >= :recent_s AND ended_at < :near_s GROUP BY 1, 2
    UNION ALL
    SELECT user, {_STRETCH_OF_HOURS} AS at, {_OF_HOURS}
        WHERE hour >= :first AND hour < :recent OR hour >= :far AND hour < :end GROUP BY 1, 2
    UNION ALL
    SELECT user, :first_s * 1.0 AS at, {_OF_ROWS}
        WHERE ended_at >= :since AND ended_at < :first_s AND ended_at < :recent_s GROUP BY 1, 2
"""


@contextmanager
def _one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """See what is there now, and nothing that is written later."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _exactly_or_nearly(
    connection: sqlite3.Connection, statement: str, values: Mapping[str, float | str | None]
) -> Iterable[tuple[int, ...]]:
    """Return the rows; where a sum is too much for an integer, what a float makes of it."""
    try:
        return connection.execute(statement, values).fetchall()
    except sqlite3.OperationalError as exc:
        if "integer overflow" not in str(exc):
            raise
    rows = connection.execute(statement.replace("sum(", "total("), values).fetchall()
    return [tuple(int(one) if isinstance(one, float) else one for one in row) for row in rows]
