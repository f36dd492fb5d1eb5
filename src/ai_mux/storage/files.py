"""Keeps a credential in a file: all or nothing, and across power cuts.

Rule 1: a document is replaced, never written into: a temporary file beside it,
0600 from birth, fsync, rename, fsync of the directory.

Rule 2: what is replaced is what was looked at. The bytes are compared once more
right before the rename; if they changed, whoever is to decide decides again.

Rule 3: room first. ``prepare`` proves that a rename works here and keeps a
synced file of the size that will be needed, so that the disk cannot fill up
between spending a refresh token and saving what came for it.

Rule 4: what has begun ends. The calls below run in threads and are waited for even
when their caller is cancelled, or a save could outlive the lock that covers it.
"""

import asyncio
import fcntl
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from ai_mux.credentials.store import Log, Over, Stored
from ai_mux.errors import StoreError
from ai_mux.storage.locks import FileLock, last_renewal_ns
from ai_mux.storage.refusals import mending_command, refusal

# A credential file has a few KiB. 1 MiB would hold every claim that a provider could think of.
MAX_BYTES: Final = 1 << 20
# How much a renewed document may grow beyond the old one: a new ID token with many claims has 4 KiB.
SPARE_BYTES: Final = 16 << 10
# How often a save starts over because the file keeps changing, before it is an error.
_ATTEMPTS: Final = 8
_FIRST_POLL_S: Final = 0.01
_LAST_POLL_S: Final = 0.25
_TEMPORARY: Final = ".ai-mux-tmp"
_WRITE: Final = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW

T = TypeVar("T")


class FileStore:
    """One credential file, possibly behind symbolic links, which stay.

    Args:
        path: The file. It need not exist yet, nor its directory.
        log: Told when the file was open to others.
        is_ours: We write it, and keep it closed to others. A file that is only read, such as
            a mounted API key, stays as it is.
    """

    def __init__(self, path: Path, log: Log, *, is_ours: bool = True) -> None:
        self._path = path
        self._log = log
        self._is_ours = is_ours
        self._lock = FileLock()
        self._target = path  # what the path resolved to when the lock was taken
        self._rehearsed: set[Path] = set()
        self._reserved: Path | None = None

    @property
    def place(self) -> str:
        """The file, as configured."""
        return str(self._path)

    # Looking

    async def version(self) -> object | None:
        """Return device, inode, modification time and size, or None where no file is."""
        return await _whole(self._version)

    def _version(self) -> object | None:
        try:
            return _version_of(self._path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            # As reading it would be refused, so that one trouble is told once.
            raise refusal("read", _resolved(self._path), exc) from exc

    async def load(self) -> Stored | None:
        """Return the file's content, or None where no file is. A file of ours is closed to other users."""
        return await _whole(lambda: self._read(_resolved(self._path)))

    def _read(self, path: Path) -> Stored | None:
        try:
            # Without O_NONBLOCK a FIFO in its place would hold the thread for ever.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise refusal("read", path, exc) from exc
        try:
            there = os.fstat(fd)
            if not stat.S_ISREG(there.st_mode):
                raise StoreError(f"{path} is not a regular file")
            if self._is_ours:
                self._narrow(fd, path, there)
            elif there.st_mode & 0o007:  # a group is its owner's decision: several services may read one key
                self._log.warning("credential.open_to_others", file=str(path), mode=_mode(there))
            with os.fdopen(os.dup(fd), "rb") as file:
                document = file.read(MAX_BYTES + 1)
        except OSError as exc:
            raise refusal("read", path, exc) from exc
        finally:
            os.close(fd)
        if len(document) > MAX_BYTES:
            raise StoreError(f"{path} is larger than {MAX_BYTES >> 20} MiB; that is no credential file")
        renewed = last_renewal_ns(path.parent) == there.st_mtime_ns
        return Stored(
            document=document,
            version=_version_of(there),
            renewed_at=there.st_mtime_ns / 1e9 if renewed else None,
        )

    def _narrow(self, fd: int, path: Path, there: os.stat_result) -> None:
        """Close a file of ours to everyone else. What belongs to another user is for them to close."""
        if not there.st_mode & 0o077 or there.st_uid != os.geteuid():
            return
        with suppress(OSError):  # judged by what it is then: some file systems ignore the call in silence
            os.fchmod(fd, 0o600)
        if os.fstat(fd).st_mode & 0o077:
            raise StoreError(
                f"{path} is readable by others (mode {_mode(there)}) and cannot be narrowed",
                mending_command(path),
            )
        self._log.warning("credential.narrowed", file=str(path), mode=_mode(there))

    # Locking

    async def lock(self) -> None:
        """Wait for the directory's lock, without blocking the loop."""
        pause_s = _FIRST_POLL_S
        try:
            while not await _whole(self._try_lock):
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LAST_POLL_S)
        except asyncio.CancelledError:
            self._lock.unlock()  # the attempt that was cancelled may have succeeded
            raise

    def _try_lock(self) -> bool:
        self._target = _resolved(self._path)
        try:
            return self._lock.try_lock(self._target.parent)
        except OSError as exc:
            raise refusal("lock", self._target, exc) from exc

    async def unlock(self) -> None:
        """Give back the lock and the reserved space."""
        await _whole(self._unlock)

    def _unlock(self) -> None:
        if self._reserved is not None:
            _drop(self._reserved)
        self._reserved = None
        self._lock.unlock()

    # Saving

    async def prepare(self) -> None:
        """Rehearse the replacing once, then reserve space, synced."""
        await _whole(self._prepare)

    def _prepare(self) -> None:
        target = self._target
        self._sweep()
        if target not in self._rehearsed:
            if self._read(target) is not None:
                self._replace(lambda document: document, rehearsal=True)
            self._rehearsed.add(target)
        now = self._read(target)
        size = (len(now.document) if now else 0) + SPARE_BYTES
        self._reserved = self._written(os.urandom(size))  # random: some file systems store zeros as nothing

    def _sweep(self) -> None:
        """Remove what a killed process left. Under the lock nobody else's is in use."""
        self._reserved = None
        try:
            for left in self._target.parent.glob(f".{self._target.name}.*{_TEMPORARY}"):
                left.unlink(missing_ok=True)
        except OSError as exc:
            raise refusal("tidy beside", self._target, exc) from exc

    async def save(self, over: Over) -> Stored:
        """Replace the file's content."""
        return await _whole(lambda: self._replace(over))

    def _replace(self, over: Over, *, rehearsal: bool = False) -> Stored:
        target = self._target
        for _ in range(_ATTEMPTS):
            before = self._read(target)
            document = over(before.document if before else None)
            if document is None:
                if before is None:
                    raise StoreError(f"{target} is gone")
                return before
            temporary = self._written(document)
            replaced = False
            try:
                kept_ns = self._like(temporary, target, keep_time=rehearsal)
                now = self._read(target)
                if (now and now.document) == (before and before.document):
                    os.rename(temporary, target)  # noqa: PTH104 - the one call that this file is about
                    replaced = True
                    self._note(target, kept_ns, rehearsal=rehearsal)
                    there = self._read(target)
                    if there is None:
                        raise StoreError(f"{target} was deleted right after it was saved")
                    return there
            except OSError as exc:
                raise refusal("replace", target, exc) from exc
            finally:
                # What could not be used now is room for the next attempt.
                self._reserved = None if replaced else temporary
        raise StoreError(f"{target} keeps changing while it is to be saved")

    def _written(self, document: bytes) -> Path:
        """Return a synced temporary file with this content, in the reserved space where there is some."""
        target = self._target
        temporary, self._reserved = self._reserved, None
        try:
            if temporary is None:
                temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}{_TEMPORARY}")
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = os.open(temporary, _WRITE | os.O_CREAT | os.O_EXCL, 0o600)
            else:
                fd = os.open(temporary, _WRITE)
            try:
                rest = memoryview(document)
                while rest:
                    rest = rest[os.write(fd, rest) :]
                os.ftruncate(fd, len(document))
                _sync(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            if temporary is not None:
                _drop(temporary)
            raise refusal("write beside", target, exc) from exc
        return temporary

    def _like(self, temporary: Path, target: Path, *, keep_time: bool) -> int:
        """Give the new file the old one's owner, for a rehearsal also its time; return the time it has."""
        made = temporary.stat()
        try:
            old = target.stat()
        except FileNotFoundError:
            return made.st_mtime_ns
        if (old.st_uid, old.st_gid) != (made.st_uid, made.st_gid):
            with suppress(PermissionError):  # only root may; else it belongs to us from now on
                os.chown(temporary, old.st_uid, old.st_gid)
        if keep_time:
            os.utime(temporary, ns=(old.st_atime_ns, old.st_mtime_ns))
        return temporary.stat().st_mtime_ns

    def _note(self, target: Path, mtime_ns: int, *, rehearsal: bool) -> None:
        if not rehearsal:
            self._lock.note_renewal(mtime_ns)
        fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync(fd)
        finally:
            os.close(fd)


def _drop(temporary: Path) -> None:
    with suppress(OSError):  # the next ``prepare`` removes it
        temporary.unlink(missing_ok=True)


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _mode(there: os.stat_result) -> str:
    return f"{there.st_mode & 0o7777:04o}"


def _version_of(there: os.stat_result) -> tuple[int, int, int, int]:
    return there.st_dev, there.st_ino, there.st_mtime_ns, there.st_size


def _sync(fd: int) -> None:
    # macOS: fsync leaves the data in the drive's cache, F_FULLFSYNC does not (fsync(2) there).
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(fd)
    else:
        fcntl.fcntl(fd, full)


async def _whole(work: Callable[[], T]) -> T:
    """Run work in a thread and wait for its end, also when cancelled; then the cancellation goes on."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        running.exception()  # looked at, so that asyncio does not report it as forgotten
        raise cancelled
    return running.result()
