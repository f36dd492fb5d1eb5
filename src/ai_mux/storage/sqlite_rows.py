"""Rows into the ledger's tables, and out again when they are too old.

Rule 1: few steps. Each step of a statement lets go of Python's global lock and, where the
event loop is busy on another core, gets it back only after 5 ms
(``sys.getswitchinterval``). Row by row, a busy server would write 200 rows a second; hence
statements of many rows, and sums that are added once for all rows that are alike.

Rule 2: a row that no table can hold must not keep out those that came with it.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ai_mux.storage.sqlite_hours import hourly
from ai_mux.storage.sqlite_schema import (
    COLUMNS,
    GROUPED_BY,
    LAST_SECOND_S,
    LONGEST_NAME,
    MOST,
    MOST_SUM,
    SUMMED,
)
from ai_mux.usage.store import Forgotten
from ai_mux.usage.tally import MicroUsd, Record, Tokens

# How many rows are summed up at once: their sums fit into an integer, whatever they say (``MOST``).
_SUMMED_ROWS: Final = 500
# How many rows one statement inserts; what remains goes by the next smaller one.
_AT_ONCE: Final = (128, 32, 8, 2, 1)
# How many rows, and how many sums, are forgotten in one transaction: a few milliseconds.
_FORGOTTEN_ROWS: Final = 500
# Free pages are left for what comes next, up to a tenth of the file; beyond that they are given
# back, so many at a time.
_FREE_SHARE: Final = 10
_FREED_PAGES: Final = 250

_TOKENS: Final = Record._fields.index("tokens")


def _statements(table: str, columns: Sequence[str], but: str = "") -> dict[int, str]:
    """Return how so many rows are inserted into a table, by how many."""
    row = f"({', '.join('?' * len(columns))})"
    into = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608 - our own words, as in all statements here
    return {count: into + ", ".join([row] * count) + but for count in _AT_ONCE}


_ADD_ROWS: Final = _statements("requests", COLUMNS)
# Past MOST_SUM a sum would soon turn into a float.
_ADD_SUMS: Final = _statements(
    "hourly",
    (*GROUPED_BY, *SUMMED),
    f" ON CONFLICT ({', '.join(GROUPED_BY)}) DO UPDATE SET "
    + ", ".join(f"{name} = min({name} + excluded.{name}, {MOST_SUM})" for name in SUMMED),
)
_FORGET_ROWS: Final = """
    DELETE FROM requests WHERE id IN
        (SELECT id FROM requests WHERE ended_at < ? ORDER BY ended_at LIMIT ?)
"""
_FORGET_SUMS: Final = f"""
    DELETE FROM hourly WHERE ({", ".join(GROUPED_BY)}) IN
        (SELECT {", ".join(GROUPED_BY)} FROM hourly WHERE hour < ? LIMIT ?)
"""  # noqa: S608
# What a row's values must not be. All of them are raised before anything is written.
_UNFIT: Final = (sqlite3.IntegrityError, sqlite3.ProgrammingError, ValueError, OverflowError)


def append(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Add rows, and what they come to, to the sums of their hours. The caller's transaction is around it.

    Raises:
        sqlite3.Error: It did not work.
    """
    for start in range(0, len(records), _SUMMED_ROWS):
        some = records[start : start + _SUMMED_ROWS]
        [[before]] = connection.execute("SELECT coalesce(max(id), 0) FROM requests").fetchall()
        try:
            sums = _add(connection, some)
        except _UNFIT:
            connection.execute("DELETE FROM requests WHERE id > ?", (before,))
            sums = _add(connection, [_fitting(one) for one in some])
        _insert(connection, _ADD_SUMS, list(zip(*sums, strict=True)))


def _add(connection: sqlite3.Connection, records: Sequence[Record]) -> list[tuple[object, ...]]:
    """Add rows; return their sums."""
    columns = _columns(records)
    sums = hourly(columns)
    _insert(connection, _ADD_ROWS, columns)
    return sums


def _columns(records: Sequence[Record]) -> list[tuple[object, ...]]:
    """Return what the table's columns have for these."""
    columns: list[tuple[Any, ...]] = list(zip(*records, strict=True))
    columns[_TOKENS : _TOKENS + 1] = zip(*columns[_TOKENS], strict=True)
    return columns


def _insert(
    connection: sqlite3.Connection, statements: Mapping[int, str], columns: Sequence[Sequence[object]]
) -> None:
    """Insert rows that are given column by column."""
    width, height = len(columns), len(columns[0])
    values: list[object] = [None] * (width * height)
    for place, column in enumerate(columns):
        values[place::width] = column
    start = 0
    for count in _AT_ONCE:
        while height - start >= count:
            connection.execute(statements[count], values[start * width : (start + count) * width])
            start += count


def _fitting(record: Record) -> Record:
    """Return a record that a row can hold."""
    return Record(
        ended_at=_between(0.0, record.ended_at, float(LAST_SECOND_S)),
        request_id=_name(record.request_id),
        user=_name(record.user),
        credential=_name(record.credential),
        provider=_name(record.provider),
        path=_name(record.path),
        model=_name(record.model),
        status=int(_between(0, record.status, MOST)),
        metering=record.metering,
        tokens=Tokens(*(int(_between(0, one, MOST)) for one in record.tokens)),
        cost=None if record.cost is None else MicroUsd(int(_between(0, record.cost, MOST))),
        bytes_in=int(_between(0, record.bytes_in, MOST)),
        bytes_out=int(_between(0, record.bytes_out, MOST)),
        head_ms=None if record.head_ms is None else _between(0.0, record.head_ms, float(MOST)),
        total_ms=_between(0.0, record.total_ms, float(MOST)),
    )


def _between(least: float, value: float, most: float) -> float:
    return min(max(value, least), most) if value == value else least  # noqa: PLR0124 - false for NaN


def _name(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")[:LONGEST_NAME]


def forget(connection: sqlite3.Connection, hour: int) -> Forgotten:
    """Delete some rows and sums of hours before this one (since 1970).

    Raises:
        sqlite3.Error: It did not work.
    """
    rows = connection.execute(_FORGET_ROWS, (hour * 3600, _FORGOTTEN_ROWS)).rowcount
    sums = connection.execute(_FORGET_SUMS, (hour, _FORGOTTEN_ROWS)).rowcount
    return Forgotten(rows, more=max(rows, sums) == _FORGOTTEN_ROWS)


def shrink(connection: sqlite3.Connection) -> bool:
    """Give some pages back to the file system where too many are free; return whether there are more.

    Raises:
        sqlite3.Error: It did not work.
    """
    [[pages]] = connection.execute("PRAGMA page_count").fetchall()
    [[free]] = connection.execute("PRAGMA freelist_count").fetchall()
    surplus = free - pages // _FREE_SHARE - _FREED_PAGES
    if surplus <= 0:
        return False
    connection.execute(f"PRAGMA incremental_vacuum({min(surplus, _FREED_PAGES)})").fetchall()
    return bool(surplus > _FREED_PAGES)
