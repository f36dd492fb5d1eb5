"""Directories for a login, and the move of a new one into place: all or nothing.

What root makes here belongs to whom the place belongs to: the server may run as
another user, and would be locked out of what root alone can read.
"""

import contextlib
import errno
import os
import secrets
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ai_mux.credentials.document import changed, parse
from ai_mux.errors import BrokenCredential, StoreError
from ai_mux.storage.files import MAX_BYTES
from ai_mux.storage.locks import NAME, FileLock
from ai_mux.storage.refusals import owner, refusal

# Longer than a renewal holds the lock, which waits 30 s for its answer.
_LOCK_WAIT_S: Final = 60
_LOCK_POLL_S: Final = 0.05


@contextmanager
def working_directory(target: Path) -> Iterator[Path]:
    """Make an empty directory beside ``target``, and what is missing above it, all 0700.

    It is removed at the end, with all that is in it.

    Args:
        target: The credential file, resolved.

    Raises:
        StoreError: It cannot be made.
    """
    try:
        _make(target.parent)
        directory = Path(tempfile.mkdtemp(prefix=".login-", dir=target.parent))
    except OSError as exc:
        there = next(above for above in target.parents if os.path.exists(above))  # noqa: PTH110 - see _make
        raise StoreError(
            f"cannot make a directory in {there}: {os.strerror(exc.errno or 0)}; this runs as uid "
            f"{os.geteuid()}, and {owner(there)}; run it as the user that ai-mux runs as (sudo -u USER …)"
        ) from exc
    try:
        yield directory
    finally:
        # A client that still writes while it is removed is not worth an error.
        shutil.rmtree(directory, ignore_errors=True)


def contents(made: Path) -> bytes:
    """Return what a client wrote, if that is an ordinary file.

    Raises:
        FileNotFoundError: It wrote nothing there.
        BrokenCredential: It is no file of its own, or too large for a credential.
        OSError: It cannot be read.
    """
    try:
        # Without O_NONBLOCK a FIFO in its place would be waited for.
        fd = os.open(made, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise BrokenCredential("it is a symbolic link") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BrokenCredential("it is no regular file")
        with os.fdopen(os.dup(fd), "rb") as file:
            document = file.read(MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(document) > MAX_BYTES:
        raise BrokenCredential("it is too large for a credential file")
    return document


def put_in_place(made: Path, target: Path, *, keeps_others: bool) -> None:
    """Replace ``target`` by the file ``made``, with mode 0600, and synced.

    Args:
        made: A login, on the same file system. It is gone afterwards.
        target: The credential file, resolved.
        keeps_others: The members of ``target`` that ``made`` does not have stay.

    Raises:
        StoreError: It cannot be done. The login then lies beside ``target``, and the message says where.
    """
    aside = target.with_name(f"{target.name}.login-{secrets.token_hex(4)}")
    try:
        made.rename(aside)
    except OSError as exc:
        raise refusal("write beside", target, exc) from exc
    try:
        _finish(aside, target.parent)
        with _locked(target.parent):
            whole = _with_others(aside, target, at=made.with_name(aside.name)) if keeps_others else aside
            whole.replace(target)
        with contextlib.suppress(OSError):  # the login is in place; its copy may be there no more
            aside.unlink()
        _finish(target.parent)
    except (OSError, TimeoutError, KeyboardInterrupt) as exc:
        problem = refusal("replace", target, exc) if isinstance(exc, OSError) and exc.errno else exc
        said = str(problem) or "given up"
        move = shlex.join(["mv", str(aside), str(target)])
        raise StoreError(
            f"{said}. The new login is safe; when this is mended, put it in place: {move}"
        ) from exc


def _with_others(login: Path, target: Path, *, at: Path) -> Path:
    """Return a login's file that also has what else ``target`` holds, made at ``at``; or the login itself.

    Only under the lock, else a renewal might write what is not seen here.
    """
    try:
        # What is larger is no credential file, and would not be read again.
        fits = target.is_file() and target.stat().st_size + login.stat().st_size <= MAX_BYTES
        old = target.read_bytes() if fits else b""
        others = parse(old)
    except (OSError, BrokenCredential):
        return login
    new = parse(login.read_bytes())
    if others.keys() <= new.keys():
        return login
    # Into the old text, which keeps what we do not know to the byte.
    at.touch(mode=0o600)
    at.write_bytes(changed(old, {(name,): value for name, value in new.items()}))
    _finish(at, target.parent)
    return at


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the credential's lock, or a renewal in flight might write the old login's successor over ours."""
    lock = FileLock()
    until = time.monotonic() + _LOCK_WAIT_S
    while not lock.try_lock(directory):
        if time.monotonic() > until:
            raise TimeoutError(f"the credential in {directory} is locked for more than {_LOCK_WAIT_S} s")
        time.sleep(_LOCK_POLL_S)
    try:
        _give(directory / NAME, directory)
        yield
    finally:
        lock.unlock()


def _make(directory: Path) -> None:
    """Make a directory and what is missing above it, each for its owner alone."""
    # Path.exists raises where a directory above may not be looked into.
    for one in reversed([one for one in (directory, *directory.parents) if not os.path.exists(one)]):  # noqa: PTH110
        one.mkdir(mode=0o700)
        _give(one, one.parent)


def _give(path: Path, like: Path) -> None:
    """Let what root made belong to whom ``like`` belongs to."""
    if os.geteuid() != 0:
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        there = os.fstat(fd)
        # A file with a second name may be somebody's way to be given what is not theirs.
        if stat.S_ISDIR(there.st_mode) or there.st_nlink == 1:
            wanted = like.stat()
            os.fchown(fd, wanted.st_uid, wanted.st_gid)
    finally:
        os.close(fd)


def _finish(path: Path, like: Path | None = None) -> None:
    """Put on disk what was written; what gets an owner is closed to everyone else."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if like is not None:
            os.fchmod(fd, 0o600)
            _give(path, like)
        os.fsync(fd)
    finally:
        os.close(fd)
