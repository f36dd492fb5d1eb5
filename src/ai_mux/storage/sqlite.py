"""The ledger in an SQLite file, ``usage.sqlite``, readable while it is written.

Rule 1: rows and the sums of their hours are written in one transaction. With a log ahead
of the database (WAL) it is durable against a killed process as soon as it has ended, and
against a power cut when SQLite next copies the log: the file stays whole either way.

Rule 2: the file under the name is the file that is written. Somebody may delete or
replace it, and SQLite would go on writing into what nobody will ever find.

Rule 3: a corrupt ledger is moved aside, never deleted or replaced in silence, and only
by who writes. The error says where it lies now; the next call begins a new one.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ai_mux.errors import LedgerError
from ai_mux.storage import sqlite_place, sqlite_rows
from ai_mux.storage.sqlite_errors import is_corrupt, refused
from ai_mux.storage.sqlite_reading import BUSY_S, connect, open_for_reading
from ai_mux.storage.sqlite_schema import (
    COLUMNS,
    GROUPED_BY,
    STEPS,
    SUMMED,
    check,
    transaction,
    upgrade,
    version_of,
)
from ai_mux.usage.store import Forgotten, Group, Query, Spent
from ai_mux.usage.tally import Record

__all__ = ["SqliteStore", "open_for_reading"]

# With it came statements with more than 999 values.
_OLDEST_SQLITE: Final = (3, 32)
# When the log is copied into the database: at four times SQLite's own measure. The pages that every
# row changes are copied once instead of four times, a tenth of all the work.
_LOG_PAGES: Final = 4000
# After a long report has kept the log from being begun anew, it need not stay larger than this.
_LOG_BYTES: Final = 16 << 20


class SqliteStore:
    """A ledger in a file: ``usage.store.UsageStore``.

    Making one does nothing; the file is opened when it is first needed. What reads does
    so over a connection of its own, which cannot write.

    Args:
        path: The file. It is made where there is none, and so is its directory.
        wall: Returns seconds since 1970, for the name of a ledger that is moved aside.
        busy_s: How long to wait for another program to let go of the file.
    """

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time, busy_s: float = BUSY_S) -> None:
        # SQLite follows symbolic links, and keeps its log beside what they lead to.
        self._path = Path(os.path.realpath(path))
        self._wall = wall
        self._busy_s = busy_s
        self._connection: sqlite3.Connection | None = None
        self._identity: sqlite_place.Identity = ()

    # Writing

    def append(self, records: Sequence[Record]) -> None:
        """Keep these, all or none.

        Values that no row can hold (a count below 0 or beyond ``MOST``, half a surrogate pair)
        become the nearest that one can.

        Raises:
            LedgerError: They were not kept.
        """
        with self._writing("write") as connection, transaction(connection):
            self._check_still_ours(connection)
            sqlite_rows.append(connection, records)

    def last_before(self, time_s: float) -> float | None:
        """Return when the last of the requests that ended before this time did; None where there is none.

        Raises:
            LedgerError: It cannot be read.
        """
        with self._writing("read") as connection:
            statement = "SELECT max(ended_at) FROM requests WHERE ended_at < ?"
            [[last]] = connection.execute(statement, (time_s,)).fetchall()
            return None if last is None else float(last)

    def forget_before(self, time_s: float) -> Forgotten:
        """Delete some of the requests, and sums, of hours that ended before this time.

        Returns:
            How many, and whether there is more to do. In between, others have their turn.

        Raises:
            LedgerError: They were not deleted.
        """
        with self._writing("tidy") as connection:
            with transaction(connection):
                self._check_still_ours(connection)
                rows, more = sqlite_rows.forget(connection, int(time_s // 3600))
            return Forgotten(rows, more=more or sqlite_rows.shrink(connection))

    def examine(self) -> None:
        """Look whether all that was kept can still be read.

        Raises:
            LedgerError: It cannot.
        """
        with self._writing("read") as connection:
            [[found]] = connection.execute("PRAGMA quick_check(1)").fetchall()
            if found != "ok":
                raise self._moved_aside(str(found)[:200])

    # Reading

    def sums(self, query: Query) -> list[Group]:
        """Return the sums of what was kept, ordered by key; no group where there was nothing.

        Raises:
            LedgerError: They cannot be read.
        """
        with open_for_reading(self._path, busy_s=self._busy_s) as reader:
            return reader.sums(query)

    def spent(self, since_s: float, now_s: float) -> list[Spent]:
        """Return what users spent since then: see ``sqlite_sums.spent``.

        Raises:
            LedgerError: It cannot be read.
        """
        with open_for_reading(self._path, busy_s=self._busy_s) as reader:
            return reader.spent(since_s, now_s)

    # The file

    @contextmanager
    def _writing(self, doing: str) -> Iterator[sqlite3.Connection]:
        """Return the connection; translate what goes wrong with it."""
        try:
            if self._connection is None:
                at, doing = doing, "write"  # which is what it is opened for, whatever comes first
                self._connection = self._opened()
                doing = at
            yield self._connection
        except sqlite3.Error as exc:
            if is_corrupt(exc):
                raise self._moved_aside(str(exc)) from exc
            raise refused(doing, self._path, exc) from exc
        except OSError as exc:
            raise refused(doing, self._path, exc) from exc

    def _opened(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise LedgerError(f"SQLite {sqlite3.sqlite_version} is too old for a ledger", passing=False)
        sqlite_place.prepare(self._path)
        if sqlite_place.has_lost_its_database(self._path):
            raise self._moved_aside("it is empty, and its log is not")
        connection = connect(self._path, "rw", self._busy_s)
        try:
            check(connection, self._path)  # before anything is changed
            # Only a new file takes this: without it a file never shrinks (about 2 % more to write).
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            # Some file systems have no shared memory, and then there is no log. With the journal
            # that SQLite uses instead, less than FULL may leave a torn file after a power cut.
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            connection.execute("PRAGMA temp_store = MEMORY")
            upgrade(connection, self._path)
            _check_tables(connection)
        except BaseException:
            connection.close()
            raise
        self._identity = sqlite_place.identity(self._path)
        return connection

    def _check_still_ours(self, connection: sqlite3.Connection) -> None:
        """Look whether what is written is what lies under the name, and what this version can write."""
        if sqlite_place.identity(self._path) != self._identity:
            raise LedgerError(
                f"{self._path}, or the log beside it, was moved or deleted while it was in use", passing=True
            )
        if version_of(connection) != len(STEPS):  # a later version was started beside this one
            check(connection, self._path)

    def _moved_aside(self, why: str) -> LedgerError:
        try:
            # Moved before it is closed: SQLite then leaves all of its files as they are.
            aside = sqlite_place.move_aside(self._path, self._wall())
        except OSError as exc:
            return refused("move aside", self._path, exc)
        finally:
            self._close()
        return LedgerError(
            f"{self._path} is corrupt ({why}); it was moved aside to {aside.name}, and a new one is begun",
            passing=True,
        )

    def close(self) -> None:
        """Let go of the file. The next call opens it again."""
        if self._connection is not None:
            # SQLite does this itself, unless somebody reads at present. If the log's name is
            # gone, it is the last chance for what is in it.
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # what was written is in the log, and stays there
                connection.close()


def _check_tables(connection: sqlite3.Connection) -> None:
    """Prepare what will be written, so that tables that are not as they should be show now."""
    for table, columns in (("requests", COLUMNS), ("hourly", (*GROUPED_BY, *SUMMED))):
        connection.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0")  # noqa: S608
