"""Whether a directory can keep what is written into it: found when ai-mux starts, not when it matters.

A token that was renewed is lost if it cannot be saved, and a renewal comes hours after the
start. So the start does beforehand what a renewal and the ledger will do, and removes it.

Rule 1: ``tried`` asks the file system itself, with a file of its own. Modes and free blocks tell
a part; quotas, access lists and network file systems have other reasons.

Rule 2: ``foreseen`` changes nothing, for ``ai-mux check`` looks at a server that runs.
"""

import errno
import fcntl
import os
import secrets
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from ai_mux.storage.locks import NAME as LOCK
from ai_mux.storage.refusals import EFFECTIVE, deepest, is_a_place_of_many, owner

# A renewed credential with its reserve, as in ``files``.
ROOM_BYTES: Final = 20 << 10
# What file systems without locks answer: NFS without its lock service, Lustre as it is mounted by default.
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NOT_OURS: Final = frozenset({errno.EACCES, errno.EPERM})
"""What the system answers who may not."""


def tried(directory: Path) -> OSError | None:
    """Return what keeps us from writing and locking there, or None. Makes the directory where it is missing.

    Blocks; to be called in a thread.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_and_lock(directory / f".{secrets.token_hex(8)}.ai-mux-tmp")
    except OSError as exc:
        return exc
    return None


def _write_and_lock(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            rest = memoryview(os.urandom(ROOM_BYTES))  # random: some file systems store zeros as nothing
            while rest:
                rest = rest[os.write(fd, rest) :]
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as credentials are locked
            fcntl.flock(fd, fcntl.LOCK_UN)  # on NFS the two stand in each other's way: flock(2)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as SQLite locks the ledger
        finally:
            os.close(fd)  # where a file server says what it thinks of the writes
    finally:
        with suppress(OSError):
            path.unlink()


def foreseen(directory: Path, room: int = ROOM_BYTES) -> OSError | None:
    """Return what would keep us from writing and locking in a directory that is there, or None.

    Args:
        directory: It exists.
        room: How many bytes there should be room for.
    """
    try:
        space = os.statvfs(directory)
        if space.f_flag & os.ST_RDONLY:
            return _error(errno.EROFS)
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=EFFECTIVE):
            return _error(errno.EACCES)
        if space.f_bavail * space.f_frsize < room or (space.f_files and not space.f_favail):
            return _error(errno.ENOSPC)
        _lock_once(directory)
    except BlockingIOError:
        return None  # another holds it, so there are locks
    except OSError as exc:
        return exc if exc.errno in _NO_LOCKS else None  # a lock file that may not be read, and the like
    return None


def _lock_once(directory: Path) -> None:
    """Take a shared lock and give it back at once; a server that wants it just then tries again."""
    at = directory / LOCK
    fd = os.open(at if at.is_file() else directory, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Trouble(NamedTuple):
    """Something about a directory that the operator should mend.

    Attributes:
        problem: A sentence about it.
        mend: A command, or another place.
    """

    problem: str
    mend: str


def trouble(directory: Path, exc: OSError, *, setting: str) -> Trouble:
    """Return what is wrong with a directory, and how to mend it.

    Args:
        directory: The directory.
        exc: What keeps us from using it.
        setting: The one that could name another.
    """
    there, uid = shlex.quote(str(directory)), os.geteuid()
    elsewhere = f"set {setting} to another place"
    if exc.errno in _NO_LOCKS:
        return Trouble(
            f"the file system of {directory} has no locks, so a token could be spent twice",
            f"{elsewhere}, on a local file system; or mount it with locks (nfs(5): leave out nolock)",
        )
    if exc.errno == errno.EROFS:
        at = shlex.quote(str(_mount_point(directory)))
        return Trouble(
            f"the file system of {directory} is read-only",
            f"sudo mount -o remount,rw {at}, or {elsewhere}; "
            "in a systemd unit with ProtectSystem=, name the directory in StateDirectory= or ReadWritePaths=",
        )
    if exc.errno in _NO_ROOM:
        return Trouble(
            f"the file system of {directory} is full, or a quota is used up",
            f"free some space (df -h {there}, df -i {there}), or {elsewhere}",
        )
    if exc.errno in NOT_OURS:
        above = deepest(directory)
        mend = f"run ai-mux as the user whose it is, or {elsewhere}"
        if above != directory:
            mend = f"sudo install -d -m 700 -o {uid} {there}, or {mend}"
        elif above.stat().st_uid == uid:
            mend = f"sudo chmod 700 {there}, or {mend}"
        elif not is_a_place_of_many(directory):
            mend = f"sudo chown -R {uid} {there}, or {mend}"
        return Trouble(f"{above} is not writable for uid {uid}; {owner(above)}", mend)
    return Trouble(f"{directory} cannot be used: {exc.strerror or exc}", elsewhere)


def unusable(wanted: Mapping[Path, str]) -> list[Trouble]:
    """Try directories, make those that are missing, and return what is wrong with them.

    One cause is told once: mostly it is the whole file system, and so each directory below.

    Args:
        wanted: Each with the setting that could name another.
    """
    causes: dict[Path, int | None] = {}
    found = []
    for directory, setting in wanted.items():
        exc = tried(directory)
        if exc is not None:
            if not is_told(directory, exc, causes):
                found.append(trouble(directory, exc, setting=setting))
            causes[directory] = exc.errno
    return found


def is_told(directory: Path, exc: OSError, causes: Mapping[Path, int | None]) -> bool:
    """Tell whether the same is known of a directory, or of one that it is in.

    Args:
        directory: The directory.
        exc: What keeps us from using it.
        causes: Of each directory that was told of, the error's number.
    """
    return any(causes.get(one) == exc.errno for one in (directory, *directory.parents))


def foreign(directory: Path) -> Trouble | None:
    """Return that root writes into another user's directory, which other users could not; else None."""
    try:
        uid = directory.stat().st_uid
    except OSError:
        return None
    if os.geteuid() != 0 or uid == 0:
        return None
    return Trouble(
        f"{directory} belongs to uid {uid}, which cannot use what root writes there",
        f"run ai-mux as that user (sudo -u '#{uid}' …), or sudo chown 0 {shlex.quote(str(directory))}",
    )


def _mount_point(directory: Path) -> Path:
    at = deepest(Path(os.path.realpath(directory)))
    mounted = mount_points()
    return next((one for one in (at, *at.parents) if str(one) in mounted), Path("/"))


def mount_points() -> set[str]:
    """Return where something is mounted, as far as the system tells (Linux: proc(5), mountinfo)."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return set()
    # Blanks in the fifth field are written as octal escapes.
    return {line.split(" ")[4].replace("\\040", " ") for line in lines}
