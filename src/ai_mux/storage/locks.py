"""A lock across processes on one directory's credential (flock, on Linux and macOS).

Rule 1: the lock file is never deleted. Whoever deletes one lets two processes
hold "the" lock, each on its own inode. If somebody else deleted it, we look
again after locking.

Rule 2: its modification time is not the time of locking but of the last
renewal, exactly that of the document which the renewal wrote. So every process
can tell a document that a renewal wrote from one that a login wrote, without
a second file.
"""

import fcntl
import os
from pathlib import Path
from typing import Final

NAME: Final = ".ai-mux.lock"


class FileLock:
    """An exclusive lock; every instance excludes every other, in this process too. Not reentrant."""

    def __init__(self) -> None:
        self._fd: int | None = None

    def try_lock(self, directory: Path) -> bool:
        """Return whether the lock is ours now, without waiting.

        Raises:
            OSError: The lock file cannot be made, or the file system has no locks.
        """
        path = directory / NAME
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                self._fd = fd
        except BlockingIOError:
            pass
        finally:
            if self._fd != fd:
                os.close(fd)
        return self._fd == fd

    def unlock(self) -> None:
        """Give the lock back, if it is ours."""
        if self._fd is not None:
            os.close(self._fd)  # which unlocks: no other descriptor refers to this open file
            self._fd = None

    def note_renewal(self, mtime_ns: int) -> None:
        """Remember that a renewal wrote the document with this modification time."""
        if self._fd is not None:
            os.utime(self._fd, ns=(mtime_ns, mtime_ns))


def last_renewal_ns(directory: Path) -> int | None:
    """Return the modification time of the document that the last renewal wrote, or None."""
    try:
        return (directory / NAME).stat().st_mtime_ns or None
    except OSError:
        return None


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process was faster
        return os.open(path, flags)
    os.utime(fd, ns=(0, 0))  # no renewal yet
    return fd
