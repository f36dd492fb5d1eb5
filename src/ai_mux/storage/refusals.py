"""What the operator reads when the file system refuses: what, who we are, whose it is, how to mend it."""

import errno
import os
import shlex
from pathlib import Path
from typing import Final

from ai_mux.errors import StoreError

# Whether the system can tell what we may do as who we became, and not as who started us.
EFFECTIVE: Final = os.access in os.supports_effective_ids


def refusal(doing: str, path: Path, exc: OSError) -> StoreError:
    """Return the error for a failed operation on a credential file.

    Args:
        doing: What failed, as in "read" or "replace".
        path: The file.
        exc: What the system said.
    """
    why, mend = _mending(path, exc)
    return StoreError(f"cannot {doing} {path}: {os.strerror(exc.errno or 0)}{why and '; '}{why}", mend)


def owner(path: Path) -> str:
    """Return whose a file or directory is, and its mode, in words."""
    try:
        there = path.stat()
    except OSError:
        return f"{path} cannot be looked at"
    return f"{path} belongs to uid {there.st_uid} with mode {there.st_mode & 0o7777:04o}"


def deepest(path: Path) -> Path:
    """Return how far down the way to a file or directory one can look; itself, where it is there."""
    # Path.exists raises where a directory on the way may not be searched; this never does.
    return next(one for one in (path, *path.parents) if os.path.exists(one))  # noqa: PTH110


def is_a_place_of_many(directory: Path) -> bool:
    """Tell whether a directory is likely to hold more than ai-mux's: ``/``, ``/var/lib``, somebody's home.

    To give such a one to us with all that is in it could ruin a machine.
    """
    return len(directory.absolute().parts) <= 3


def mending_command(path: Path) -> str:
    """Return the command that gives a credential file and its directory to us, as far as they are there."""
    uid, there, file = os.geteuid(), shlex.quote(str(path.parent)), shlex.quote(str(path))
    if deepest(path) == path:
        return f"sudo chown {uid} {there} {file} && sudo chmod 700 {there} && sudo chmod 600 {file}"
    if deepest(path) == path.parent:
        return f"sudo chown {uid} {there} && sudo chmod 700 {there}"
    return f"sudo install -d -m 700 -o {uid} {there}"


def _mending(path: Path, exc: OSError) -> tuple[str, str]:
    """Return what there is to say besides, and what mends it."""
    we_are = f"ai-mux runs as uid {os.geteuid()}"
    if exc.errno in (errno.EACCES, errno.EPERM):
        closed = deepest(path)
        if closed != path and not os.access(closed, os.X_OK, effective_ids=EFFECTIVE):
            # Behind it nothing can be seen, and so no command can name it.
            mend = "run ai-mux as the user whose it is"
            if not is_a_place_of_many(closed):
                mend = f"sudo chown -R {os.geteuid()} {shlex.quote(str(closed))}, or {mend}"
            return f"{we_are}, {owner(closed)}", mend
        owners = ", ".join(owner(one) for one in dict.fromkeys((deepest(path.parent), closed)))
        return f"{we_are}, {owners}", mending_command(path)
    if exc.errno == errno.EBUSY:
        return (
            "the file is a mount point of its own, which cannot be replaced",
            f"mount the directory {path.parent} instead of the single file",
        )
    if exc.errno == errno.EROFS:
        return (
            "the file system is mounted read-only",
            "mount it writable, for renewed tokens must be saved",
        )
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "", f"free some space for {path.parent} (ai-mux needs some 20 KiB)"
    if exc.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
        return f"the file system of {path.parent} has no locks", "move the credential to one that has"
    return f"{we_are}, {owner(path.parent)}", ""
