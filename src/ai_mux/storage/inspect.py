"""Looks at a credential file and all around it without starting, writing or keeping a lock.

It finds beforehand what the server would find too late: whoever reads the
findings can mend them while no request waits.
"""

import errno
import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Final

from ai_mux.credentials.credential import Credential
from ai_mux.credentials.oauth import Issuer
from ai_mux.errors import BrokenCredential
from ai_mux.storage.files import MAX_BYTES, SPARE_BYTES
from ai_mux.storage.obstacles import foreseen, is_told, mount_points, trouble
from ai_mux.storage.refusals import deepest, mending_command, owner

_DAY_S: Final = 86400
# Anthropic's long-lived tokens live a year from when they were made, and do not say when that was.
_LONG_LIFE_S: Final = 365 * _DAY_S
ENDS_SOON_S: Final = 30 * _DAY_S
"""So long before its end, in seconds, whoever looks is told of a token that cannot be renewed."""
# The most frequent reason why a person sees less than the server.
_AS_ANOTHER: Final = "run this as the user that ai-mux runs as (sudo -u USER …)"


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Kind(Enum):
    """What sort of credential a file holds."""

    LOGIN = "login"
    LONG_LIVED_TOKEN = "long_lived_token"  # noqa: S105 - a word, no secret
    API_KEY = "api_key"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """All that was found about one credential file.

    Attributes:
        findings: In the order in which they were looked for.
        credential: What the file holds; None where it holds none that can be read, or blanked tokens.
    """

    findings: tuple[Finding, ...]
    credential: Credential | None = None

    @property
    def kind(self) -> Kind | None:
        """The sort of credential, or None without one."""
        if self.credential is None:
            return None
        if self.credential.api_key:
            return Kind.API_KEY
        return Kind.LONG_LIVED_TOKEN if self.credential.refresh is None else Kind.LOGIN


def inspect(
    path: Path,
    issuer: Issuer,
    *,
    now: float,
    login: str | None = None,
    new_token: str | None = None,
    is_ours: bool = True,
    setting: str = "credentials",
    causes: Mapping[Path, int | None] | None = None,
) -> Inspection:
    """Return what there is to say about a credential file.

    Args:
        path: The file, as configured.
        issuer: How it reads.
        now: Seconds since 1970.
        login: What to run or do for another credential; the issuer's own words where None.
        new_token: What to run for another long-lived token; as ``login`` where None.
        is_ours: ai-mux writes it. An API key's file is only read.
        setting: The one that could name another place.
        causes: What is wrong with directories and told already, as in ``obstacles.is_told``.
    """
    login = login or issuer.login(str(path))
    real = Path(os.path.realpath(path))
    found: list[Finding] = []
    try:
        there = real.stat()
    except (FileNotFoundError, NotADirectoryError):
        found += _way_to(real, setting, causes or {}) if is_ours else []
        return _ended(found, f"{path} does not exist", login)
    except OSError as exc:
        return _ended(found, _refused("look at", real, exc), _AS_ANOTHER)
    if not stat.S_ISREG(there.st_mode):
        return _ended(found, f"{path} is not a regular file", login)
    found += _mode(real, there, is_ours=is_ours)
    if is_ours:
        found += _directory(real, there.st_size, setting, causes or {})
    if there.st_size > MAX_BYTES:
        return _ended(found, f"{path} is too large for a credential file", login)
    try:
        credential = issuer.read(real.read_bytes())
    except OSError as exc:
        return _ended(found, _refused("read", real, exc), mending_command(real))
    except BrokenCredential as exc:
        return _ended(found, f"{path}: {exc}", login)
    if not credential.access and not credential.refresh:
        return _ended(found, f"{path} holds no tokens: it was logged out", login)
    return Inspection(
        findings=(*found, _tokens(credential, there, new_token=new_token or login, now=now)),
        credential=credential,
    )


def moment(at: float, now: float) -> str:
    """Return a time in the local zone, with its offset and how far off it is: ``… (in 3 h)``.

    Both in seconds since 1970.
    """
    try:
        local = datetime.fromtimestamp(at).astimezone()
    except (OverflowError, ValueError, OSError):  # a file's number need not be a year
        return "a time beyond all calendars"
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%d %H:%M} {offset[:3]}:{offset[3:5]} ({_distance(at - now)})"


def _distance(away_s: float) -> str:
    """Return how far off something is, in the largest unit of which there are two."""
    units = (("d", _DAY_S), ("h", 3600), ("min", 60), ("s", 1))
    unit, unit_s = next((one for one in units if abs(away_s) >= 2 * one[1]), units[-1])
    count = round(abs(away_s) / unit_s)
    return f"in {count} {unit}" if away_s >= 0 else f"{count} {unit} ago"


def _refused(doing: str, real: Path, exc: OSError) -> str:
    above = deepest(real)
    return f"cannot {doing} {real}: {exc.strerror}; this runs as uid {os.geteuid()}, and {owner(above)}"


def _way_to(real: Path, setting: str, causes: Mapping[Path, int | None]) -> list[Finding]:
    """Find what would keep a first login from being put there."""
    above = deepest(real.parent)
    obstacle = foreseen(above)
    if obstacle is None or is_told(real.parent, obstacle, causes):
        return []
    if obstacle.errno != errno.EACCES:
        return [_error(*trouble(above, obstacle, setting=setting))]
    text = f"uid {os.geteuid()} cannot write in {above}, where a login would be put; {owner(above)}"
    made = shlex.join(["sudo", "install", "-d", "-m", "700", "-o", str(os.geteuid()), str(real.parent)])
    return [_error(text, f"{_AS_ANOTHER}, or: {made}")]


def _mode(real: Path, there: os.stat_result, *, is_ours: bool) -> list[Finding]:
    found = []
    # What is only read may be its owner's and a group's, as is usual for what several services read.
    if there.st_mode & (0o077 if is_ours else 0o007):
        narrowing = "600" if is_ours else "o="
        text = f"{real} is open to others (mode {there.st_mode & 0o7777:04o})"
        if there.st_uid != os.geteuid():
            text += f"; it belongs to uid {there.st_uid}"
        elif is_ours:
            text += "; ai-mux narrows it when it starts"
        found.append(_warning(text, f"chmod {narrowing} {shlex.quote(str(real))}"))
    around = real.parent.stat().st_mode
    # With the sticky bit only a file's owner can replace it (chmod(2)).
    if around & 0o022 and not around & stat.S_ISVTX:
        text = (
            f"others can write to {real.parent} (mode {around & 0o7777:04o}) and put a file of theirs there"
        )
        found.append(_warning(text, f"chmod 700 {shlex.quote(str(real.parent))}"))
    return found


def _directory(real: Path, size: int, setting: str, causes: Mapping[Path, int | None]) -> list[Finding]:
    """Find what would keep a renewed token from being saved."""
    found = []
    obstacle = foreseen(real.parent, size + SPARE_BYTES)
    if obstacle is not None and obstacle.errno == errno.EACCES:
        text = f"{real.parent} is not writable for uid {os.geteuid()}, so a renewed token could not be saved"
        found.append(_error(text, mending_command(real)))
    elif obstacle is not None and not is_told(real.parent, obstacle, causes):
        told = trouble(real.parent, obstacle, setting=setting)
        found.append(_error(f"{told.problem}; a renewed token could not be saved", told.mend))
    if str(real) in mount_points():
        text = f"{real} is a mount point of its own, which cannot be replaced"
        found.append(_error(text, f"mount the directory {real.parent} instead of the single file"))
    return found


def _tokens(credential: Credential, there: os.stat_result, *, new_token: str, now: float) -> Finding:
    if credential.api_key:
        return _ok("an API key, billed by use: it has no end of its own, and is never renewed")
    end = credential.expires_at
    if credential.refresh is not None:
        return _ok(f"a login{_whose(credential)}: {_freshness(end, now)}, renewed by ai-mux itself")
    if end is not None and end <= now:
        return _error(f"a token that ended {moment(end, now)}, and none to renew it", new_token)
    text = f"a long-lived token{_whose(credential)}: it cannot be renewed"
    if end is not None:
        text += f" and ends {moment(end, now)}"
    else:
        # Nothing rewrites such a file, so that it is as old as its token or younger.
        end = there.st_mtime + _LONG_LIFE_S
        text += "; such a token lives about a year from when it was made, "
        text += f"and this file is from {datetime.fromtimestamp(there.st_mtime):%Y-%m-%d}"
    if end - now < ENDS_SOON_S:
        return _warning(f"{text}; it may end soon", new_token)
    return _ok(f"{text}; for another one, {new_token}")


def _whose(credential: Credential) -> str:
    whose = f" of {credential.owner}" if credential.owner else ""
    plan = f", plan {credential.plan}" if credential.plan else ""
    return whose + plan + (f", {credential.layout} file" if credential.layout else "")


def _freshness(end: float | None, now: float) -> str:
    if end is None:
        return "it does not say until when it is fresh"
    return f"fresh until {moment(end, now)}" if end > now else f"ended {moment(end, now)}"


def _ended(found: list[Finding], text: str, mend: str) -> Inspection:
    return Inspection(findings=(*found, _error(text, mend)))


def _ok(text: str) -> Finding:
    return Finding(level=Level.OK, text=text)


def _warning(text: str, mend: str) -> Finding:
    return Finding(level=Level.WARNING, text=text, mend=mend)


def _error(text: str, mend: str) -> Finding:
    return Finding(level=Level.ERROR, text=text, mend=mend)
