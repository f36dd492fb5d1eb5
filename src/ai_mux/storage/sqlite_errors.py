"""What SQLite refuses, in words for the operator: what failed, why, and how to mend it.

Messages name files, owners and SQLite's own codes. No value of a row is in any of them.
"""

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from ai_mux.errors import LedgerError
from ai_mux.storage.obstacles import NOT_OURS, foreseen, trouble
from ai_mux.storage.refusals import deepest, mending_command, owner

# https://www.sqlite.org/rescode.html: the low byte is the primary code, the rest says more about it.
_PRIMARY: Final = 0xFF
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_NOT_ALLOWED: Final = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
)
# Who only reads leaves that to who writes.
_MOVED_ASIDE: Final = (
    "a server that meets the damage moves the file aside and begins a new one; "
    "to do so yourself, stop it, and move the file away with all that lies beside it"
)


def is_corrupt(exc: sqlite3.Error) -> bool:
    """Tell whether SQLite cannot make sense of the file any more."""
    return _code(exc) in _CORRUPT


def refused(doing: str, path: Path, exc: sqlite3.Error | OSError) -> LedgerError:
    """Return the error for something that SQLite or the system would not do.

    Args:
        doing: What failed, as in "write" or "read".
        path: The ledger.
        exc: What was said.
    """
    why, passing = _why(doing, path, exc)
    return LedgerError(f"cannot {doing} {path}: {why}", passing=passing)


def _why(doing: str, path: Path, exc: sqlite3.Error | OSError) -> tuple[str, bool]:
    """Return what is the matter, and whether it may be over later."""
    if isinstance(exc, OSError):
        # The operator can mend all of these while the server runs.
        return _mending(doing, path, exc), True
    code, name = _code(exc), getattr(exc, "sqlite_errorname", type(exc).__name__)
    if code in _LOCKED:
        return "another program holds it locked", True
    if code == sqlite3.SQLITE_FULL:
        return _of_directory(path, OSError(errno.ENOSPC, "")), True
    if code in _NOT_ALLOWED:
        return f"{exc} ({name}); {_mending(doing, path, foreseen(path.parent))}", True
    if code == sqlite3.SQLITE_IOERR:  # a quota or a limit on file sizes, too, is reported as this
        return f"{exc} ({name}); look whether the disk of {path.parent} is full or failing", True
    if code in _CORRUPT:
        return f"it is corrupt: {exc} ({name}); {_MOVED_ASIDE}", False
    return f"{exc} ({name})", False


def _mending(doing: str, path: Path, obstacle: OSError | None) -> str:
    """Return what mends it.

    Args:
        doing: As for ``refused``.
        path: The ledger.
        obstacle: What is wrong with its directory; None where nothing is.
    """
    if obstacle is None or obstacle.errno in NOT_OURS:
        whose = f"this runs as uid {os.geteuid()}, {owner(deepest(path.parent))}"
        if doing == "read":  # to make it one's own would take it from the server
            return f"{whose}; run this as the user that ai-mux runs as (sudo -u USER …)"
        if obstacle is None:
            return f"{whose}, {owner(path)}; mend it with: {mending_command(path)}"
    return _of_directory(path, obstacle)


def _of_directory(path: Path, obstacle: OSError) -> str:
    """Return what is wrong with the ledger's directory in the words in which the start tells it, too."""
    return "; ".join(trouble(path.parent, obstacle, setting="state_dir"))


def _code(exc: sqlite3.Error) -> int:
    # The sqlite3 module's own errors, such as for a closed connection, have no code.
    return int(getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & _PRIMARY
