"""What the operator reads when the file system refuses: what, who we are, whose it is, how to mend it."""

import errno
import os
import shlex
from pathlib import Path

from ai_mux.errors import StoreError


def refusal(doing: str, path: Path, exc: OSError) -> StoreError:
    """Return the error for a failed operation on a credential file.

    Args:
        doing: What failed, as in "read" or "replace".
        path: The file.
        exc: What the system said.
    """
    return StoreError(f"cannot {doing} {path}: {os.strerror(exc.errno or 0)}; {_mending(path, exc)}")


def owner(path: Path) -> str:
    """Return whose a file or directory is, and its mode, in words."""
    try:
        there = path.stat()
    except OSError:
        return f"{path} cannot be looked at"
    return f"{path} belongs to uid {there.st_uid} with mode {there.st_mode & 0o7777:04o}"


def mending_command(path: Path) -> str:
    """Return the command that gives a credential file and its directory to us."""
    uid, there = os.geteuid(), shlex.quote(str(path.parent))
    file = shlex.quote(str(path))
    return f"sudo chown {uid} {there} {file} && sudo chmod 700 {there} && sudo chmod 600 {file}"


def _mending(path: Path, exc: OSError) -> str:
    if exc.errno in (errno.EACCES, errno.EPERM):
        return (
            f"ai-mux runs as uid {os.geteuid()}, {owner(path.parent)}, {owner(path)}; "
            f"mend it with: {mending_command(path)}"
        )
    if exc.errno == errno.EBUSY:
        return (
            "the file is a mount point of its own, which cannot be replaced; "
            f"mount the directory {path.parent} instead of the single file"
        )
    if exc.errno == errno.EROFS:
        return "the file system is mounted read-only; mount it writable, for renewed tokens must be saved"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"free some space for {path.parent} (ai-mux needs some 20 KiB)"
    if exc.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
        return f"the file system of {path.parent} has no locks; move the credential to one that has"
    return f"ai-mux runs as uid {os.geteuid()}, {owner(path.parent)}"
