"""Where the ledger's files lie: made private, watched, and moved aside when they are corrupt.

A ledger is up to four files: the database, and what SQLite keeps beside it under the
same name with ``-wal``, ``-shm`` or ``-journal`` appended.

Rule 1: a ledger's file that may be in use is never opened here, only looked at by its
name. To close any descriptor of a file lets go of all of the process's POSIX locks on
it (fcntl(2)), SQLite's own included: https://www.sqlite.org/howtocorrupt.html, 2.2.

Rule 2: nothing is ever deleted or replaced.
"""

import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from ai_mux.errors import LedgerError

WAL: Final = "-wal"
_BESIDE: Final = (WAL, "-shm", "-journal")
# Who has had so many corrupt ledgers has a failing disk, and somebody must look at it. A
# server that is restarted over and over must not fill the disk with them either.
_MOST_ASIDE: Final = 10


def prepare(path: Path) -> None:
    """Make the directory (0700) and an empty file (0600) where there is none, and close it to others.

    SQLite gives the files beside a database the database's own mode and owner.

    Raises:
        OSError: The system would not.
        LedgerError: Something other than a file is in its place.
    """
    try:
        there = path.stat()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another process was faster
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return
    if not stat.S_ISREG(there.st_mode):
        raise LedgerError(f"{path} is not a regular file; move it away", passing=False)
    if there.st_mode & 0o077 and there.st_uid == os.geteuid():
        with suppress(OSError):  # who used what is no secret that a ledger should not be kept for
            path.chmod(0o600)


Identity = tuple[tuple[int, int] | None, ...]


def identity(path: Path) -> Identity:
    """Return by what one knows the database and its log again, under the same names."""
    return tuple(_inode(_beside(path, ending)) for ending in ("", WAL))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        there = path.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


def has_lost_its_database(path: Path) -> bool:
    """Tell whether a log is there whose database is empty. SQLite would delete the log, rows and all."""
    try:
        return path.stat().st_size == 0 and _beside(path, WAL).stat().st_size > 0
    except FileNotFoundError:
        return False


def move_aside(path: Path, now_s: float) -> Path:
    """Rename a ledger, with what lies beside it, to a name that says when this was found necessary.

    What lies beside it goes first: should this be killed half-way, no new database finds
    an old log beside it. And it keeps its ending, so that SQLite's own tools find it.

    Raises:
        OSError: The system would not.
        LedgerError: This happened too often already.
    """
    if sum(1 for one in path.parent.glob(f"{path.name}.corrupt-*Z*") if not _is_beside(one)) >= _MOST_ASIDE:
        raise LedgerError(
            f"{path} is corrupt, as were {_MOST_ASIDE} before it that still lie beside it; "
            f"look whether the disk is failing, then move them away",
            passing=False,
        )
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 1
    while any(_beside(aside, ending).exists() for ending in ("", *_BESIDE)):
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}.{number}")
    for ending in (*_BESIDE, ""):
        with suppress(FileNotFoundError):  # another process does the same
            _beside(path, ending).rename(_beside(aside, ending))
    return aside


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _is_beside(path: Path) -> bool:
    return path.name.endswith(_BESIDE)
