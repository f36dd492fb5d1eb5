"""The ledger's tables, and the way from one version of them to the next.

Rule 1: a file says which version it is of (``PRAGMA user_version``) and that it is ours
(``application_id``). A newer version, and another program's database, are left alone.

Rule 2: all steps from the old version to this one happen in one transaction, or none.

Rule 3: a step that was released is never changed. A change is one more step, also for
new files, so that old and new ones cannot differ.

``requests`` has one row for each request. Its one index is by time: for the hours at the
edges of a report, and for what has become too old. ``hourly`` is what reports are made
of: the sums of each hour, written in the same transaction as the rows. Without row ids
it is one tree in the order of time; the second index is for a user who asks for their own.

Names are kept as text, not as numbers into tables of names: whoever opens the file reads
it at once, and nothing has to tidy up names that no row has any more.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ai_mux.errors import LedgerError

APPLICATION_ID: Final = 0x61694D78  # "aiMx"
# What a row can hold: no sum of 500 of them is more than SQLite's integers can be (2^63 - 1). All ones
# in binary, so that one comparison tells whether several numbers are within it.
MOST: Final = (1 << 54) - 1
LONGEST_NAME: Final = 256
LAST_SECOND_S: Final = 253_402_300_799  # of the year 9999: dates have four digits
# Where sums of an hour stop growing, instead of turning into floats.
MOST_SUM: Final = 1 << 62

_AMOUNTS: Final = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "cost",
    "bytes_in",
    "bytes_out",
)
# In the order of the fields of Record and Tokens.
COLUMNS: Final = (
    "ended_at",
    "request_id",
    "user",
    "credential",
    "provider",
    "path",
    "model",
    "status",
    "metering",
    *_AMOUNTS,
    "head_ms",
    "total_ms",
)
GROUPED_BY: Final = ("hour", "user", "credential", "provider", "model")
SUMMED: Final = ("requests", "counted", "errors", "unmetered", "unpriced", *_AMOUNTS)

# Written out, whatever the names above become: see rule 3. The checks are for what nobody else bounds,
# since a provider may say anything; two for many columns, as one each would take a tenth of a row's time.
# Columns that hold sums have none: what is summed was checked.
_TABLES: Final = (
    """
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        ended_at REAL NOT NULL CHECK (ended_at BETWEEN 0 AND 253402300799),
        request_id TEXT NOT NULL,
        user TEXT NOT NULL,
        credential TEXT NOT NULL,
        provider TEXT NOT NULL,
        path TEXT NOT NULL,
        model TEXT NOT NULL,
        status INTEGER NOT NULL,
        metering TEXT NOT NULL,
        input INTEGER NOT NULL,
        cache_read INTEGER NOT NULL,
        cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL,
        output INTEGER NOT NULL,
        cost INTEGER,
        bytes_in INTEGER NOT NULL,
        bytes_out INTEGER NOT NULL,
        head_ms REAL,
        total_ms REAL NOT NULL,
        CHECK (input | cache_read | cache_write_5m | cache_write_1h | output | coalesce(cost, 0)
            | bytes_in | bytes_out BETWEEN 0 AND 18014398509481983),
        CHECK (length(request_id) + length(path) + length(model) <= 768)
    )
    """,
    "CREATE INDEX requests_by_end ON requests (ended_at)",
    """
    CREATE TABLE hourly (
        hour INTEGER NOT NULL,
        user TEXT NOT NULL,
        credential TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        requests INTEGER NOT NULL,
        counted INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        unmetered INTEGER NOT NULL,
        unpriced INTEGER NOT NULL,
        input INTEGER NOT NULL,
        cache_read INTEGER NOT NULL,
        cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL,
        output INTEGER NOT NULL,
        cost INTEGER NOT NULL,
        bytes_in INTEGER NOT NULL,
        bytes_out INTEGER NOT NULL,
        PRIMARY KEY (hour, user, credential, provider, model)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX hourly_by_user ON hourly (user, hour)",
)

Step = Sequence[str]
STEPS: Final[tuple[Step, ...]] = (_TABLES,)


def check(connection: sqlite3.Connection, path: Path, *, version: int = len(STEPS)) -> int:
    """Return which version a file is of; 0 where nothing is in it yet.

    Raises:
        LedgerError: It is of a version later than ``version``, or it is not a ledger.
        sqlite3.Error: It cannot be read.
    """
    there = version_of(connection)
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not (is_empty and there == 0) and _pragma(connection, "application_id") != APPLICATION_ID:
        raise LedgerError(f"{path} is another program's database; move it away", passing=False)
    if there > version:
        raise LedgerError(
            f"{path} was written by a later version of ai-mux (its tables have version {there}, "
            f"this one knows {version}); run that version, or move the file away",
            passing=False,
        )
    return there


def upgrade(connection: sqlite3.Connection, path: Path, steps: Sequence[Step] = STEPS) -> None:
    """Bring a file to the version that follows from all these steps.

    Raises:
        LedgerError: As ``check`` does.
        sqlite3.Error: It did not work, and nothing has changed.
    """
    if check(connection, path, version=len(steps)) == len(steps):
        return
    with transaction(connection):
        there = check(connection, path, version=len(steps))  # another process may have been faster
        for statement in (one for step in steps[there:] for one in step):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(steps)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all that is written within, or nothing of it.

    It takes the right to write at its beginning: two that had only read would block each
    other when both want to write (https://www.sqlite.org/lang_transaction.html, 2.2).
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # some errors, such as a full disk, have rolled back already
            connection.execute("ROLLBACK")


def version_of(connection: sqlite3.Connection) -> int:
    """Return which version a file says that it is of."""
    return _pragma(connection, "user_version")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
