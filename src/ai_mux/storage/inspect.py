"""Looks at a credential file and all around it without starting, writing or locking anything.

It finds beforehand what the server would find too late: whoever reads the
findings can mend them while no request waits.
"""

import os
import shlex
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ai_mux.credentials.credential import Credential
from ai_mux.credentials.oauth import Issuer
from ai_mux.errors import BrokenCredential
from ai_mux.storage.files import MAX_BYTES, SPARE_BYTES
from ai_mux.storage.refusals import mending_command, refusal


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: How bad it is.
        text: A sentence about it. Holds no secret.
        mend: What to run or do, or None where nothing is to be done.
    """

    level: Level
    text: str
    mend: str | None = None


def inspect(path: Path, issuer: Issuer, *, now: float) -> list[Finding]:
    """Return what there is to say about a credential file, the worst not necessarily first.

    Args:
        path: The file, as configured.
        issuer: How it reads.
        now: Seconds since 1970.
    """
    found = [*_shared(path)]
    real = Path(os.path.realpath(path))
    try:
        there = real.stat()
    except FileNotFoundError:
        return [*found, _error(f"{path} does not exist", issuer.login(str(path)))]
    except OSError as exc:
        return [*found, _error(str(refusal("look at", real, exc)), mending_command(real))]
    if not stat.S_ISREG(there.st_mode):
        return [*found, _error(f"{path} is not a regular file", issuer.login(str(path)))]
    found += _mode(real, there)
    found += _directory(real, there.st_size)
    if there.st_size > MAX_BYTES:
        return [*found, _error(f"{path} is too large for a credential file", issuer.login(str(path)))]
    try:
        credential = issuer.read(real.read_bytes())
    except OSError as exc:
        return [*found, _error(str(refusal("read", real, exc)), mending_command(real))]
    except BrokenCredential as exc:
        return [*found, _error(f"{path}: {exc}", issuer.login(str(path)))]
    return [*found, _tokens(path, issuer, credential, now)]


def _shared(path: Path) -> list[Finding]:
    """Find a login that the vendor's own client uses, too: whoever renews second is logged out."""
    home = Path("~").expanduser()
    for name in (".claude", ".codex"):
        own = os.path.realpath(home / name)
        if own == os.path.realpath(path.parent) or own in map(str, Path(os.path.realpath(path)).parents):
            text = (
                f"{path} is the login of another program, which renews it as well; refresh tokens work once, "
                "so in the end both are logged out"
            )
            mend = "let ai-mux have a login of its own: leave out `credentials`, then log in there"
            return [Finding(level=Level.WARNING, text=text, mend=mend)]
    return []


def _mode(real: Path, there: os.stat_result) -> list[Finding]:
    if not there.st_mode & 0o077:
        return []
    text = f"{real} is readable by others (mode {there.st_mode & 0o7777:04o})"
    ours = there.st_uid == os.geteuid()
    more = "; ai-mux narrows it when it starts" if ours else f"; it belongs to uid {there.st_uid}"
    return [Finding(level=Level.WARNING, text=text + more, mend=f"chmod 600 {shlex.quote(str(real))}")]


def _directory(real: Path, size: int) -> list[Finding]:
    """Find what would keep a renewed token from being saved."""
    found = []
    effective = os.access in os.supports_effective_ids
    if not os.access(real.parent, os.W_OK | os.X_OK, effective_ids=effective):
        text = f"{real.parent} is not writable for uid {os.geteuid()}, so a renewed token could not be saved"
        found.append(_error(text, mending_command(real)))
    if str(real) in _mount_points():
        text = f"{real} is a mount point of its own, which cannot be replaced"
        found.append(_error(text, f"mount the directory {real.parent} instead of the single file"))
    space = os.statvfs(real.parent)
    if space.f_bavail * space.f_frsize < size + SPARE_BYTES:
        found.append(_error(f"the file system of {real.parent} is full", "free some space there"))
    return found


def _mount_points() -> set[str]:
    """Return where something is mounted, as far as the system tells (Linux: proc(5), mountinfo)."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return set()
    # Blanks in the fifth field are written as octal escapes.
    return {line.split(" ")[4].replace("\\040", " ") for line in lines}


def _tokens(path: Path, issuer: Issuer, credential: Credential, now: float) -> Finding:
    login = issuer.login(str(path))
    if credential.api_key:
        return _error(f"{path} is a login by API key (auth_mode: apikey), not by subscription", login)
    if not credential.access and not credential.refresh:
        return _error(f"{path} holds no tokens: it was logged out", login)
    left_s = None if credential.expires_at is None else credential.expires_at - now
    if credential.refresh is None:
        if left_s is not None and left_s <= 0:
            return _error(f"{path} holds a token that has ended, and none to renew it", login)
        text = f"{path} holds a long-lived token, which is used until it ends and cannot be renewed"
        return Finding(level=Level.OK, text=text)
    if left_s is not None and left_s <= 0:
        return Finding(level=Level.OK, text=f"{path} holds a login whose token has ended and will be renewed")
    return Finding(level=Level.OK, text=f"{path} holds a login that works by its own account")


def _error(text: str, mend: str) -> Finding:
    return Finding(level=Level.ERROR, text=text, mend=mend)
