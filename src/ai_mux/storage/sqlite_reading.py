"""The ledger in an SQLite file, for who only reads it: ``ai-mux usage``, ``GET /usage``, a restart's limits.

Rule 1: nothing here changes what is kept. The connection cannot write, and a ledger that is
corrupt or of another version is left to who writes it.

Rule 2: whoever reads holds nobody up. SQLite's log lets one process write while others read.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ai_mux.errors import LedgerError
from ai_mux.storage import sqlite_place, sqlite_sums
from ai_mux.storage.sqlite_errors import refused
from ai_mux.storage.sqlite_schema import STEPS, check
from ai_mux.usage.store import Group, Query, Spent

# Longer than any transaction of another server over the same ledger.
BUSY_S: Final = 1.0


class SqliteReader:
    """A ledger that is only read, also while a server writes it. Made by ``open_for_reading``."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def sums(self, query: Query) -> list[Group]:
        """Return the sums of what was kept, ordered by key; no group where there was nothing.

        Raises:
            LedgerError: They cannot be read.
        """
        with _reading(self._path):
            return sqlite_sums.sums(self._connection, query)

    def spent(self, since_s: float, now_s: float) -> list[Spent]:
        """Return what users spent since then: see ``sqlite_sums.spent``.

        Raises:
            LedgerError: It cannot be read.
        """
        with _reading(self._path):
            return sqlite_sums.spent(self._connection, since_s, now_s)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> "SqliteReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_for_reading(path: Path, *, busy_s: float = BUSY_S) -> SqliteReader:
    """Return a ledger that can be read, whether or not a server writes it.

    Nothing that is read is changed. Where no server runs, SQLite may leave an empty log beside it.

    Raises:
        LedgerError: There is none yet, it is of another version, it is corrupt or not a
            ledger, or it cannot be read. The message says which, and what to do.
    """
    real = Path(os.path.realpath(path))
    with _reading(real):
        if not real.exists():
            raise _none_yet(real)
        if not real.is_file():  # to open a FIFO would wait for somebody to write into it
            raise LedgerError(f"{real} is not a regular file; move it away", passing=False)
        if sqlite_place.has_lost_its_database(real):  # even to look at it would cost the log
            raise LedgerError(f"cannot read {real}: it is empty, and the log beside it is not", passing=False)
        connection = connect(real, "ro", busy_s)
        try:
            connection.execute("PRAGMA temp_store = MEMORY")
            _check_current(connection, real)
        except BaseException:
            connection.close()
            raise
    return SqliteReader(connection, real)


def _check_current(connection: sqlite3.Connection, path: Path) -> None:
    version = check(connection, path)
    if version == 0:
        raise _none_yet(path)
    if version < len(STEPS):
        raise LedgerError(
            f"{path} has tables of version {version}, and this ai-mux reads {len(STEPS)}; "
            f"they are brought up to date when the server starts",
            passing=True,
        )


def _none_yet(path: Path) -> LedgerError:
    return LedgerError(f"there is no ledger at {path} yet; ai-mux makes one when it starts", passing=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        raise refused("read", path, exc) from exc


def connect(path: Path, mode: str, busy_s: float) -> sqlite3.Connection:
    """Return a connection that begins and ends transactions only when told."""
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=busy_s,
        isolation_level=None,
    )
