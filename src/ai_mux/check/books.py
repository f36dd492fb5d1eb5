"""Whether what counts and keeps could do so: ``state_dir``, limits, ledger, admin listener, audit log.

Looks at modes and directories, and asks a ledger that is there whether it can be used. Nothing
in it is changed, but SQLite may lay an empty log beside it.
"""

import errno
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ai_mux.config import Config
from ai_mux.errors import LedgerError
from ai_mux.limits import NO_LIMITS, Limits
from ai_mux.storage import LEDGER
from ai_mux.storage.inspect import Finding, Level
from ai_mux.storage.obstacles import foreign, foreseen, trouble
from ai_mux.storage.refusals import EFFECTIVE, deepest
from ai_mux.storage.sqlite_reading import open_for_reading

_DAY_S: Final = 86_400
_OR_AS_US: Final = ", or run this as the user that ai-mux runs as"


def limits(config: Config, now: float) -> Iterator[Finding]:
    """Say how much users may use, where anything limits them."""
    own = sum(user.limits != config.limits for user in config.users)
    if config.limits != NO_LIMITS or own:
        others = f"; {_users(own)} with others" if own else ""
        yield _ok(f"limits: {_said(config.limits)}{others}")
    narrowed = sum(user.models is not None or user.providers is not None for user in config.users)
    over = sum(user.expires_at is not None and user.expires_at <= now for user in config.users)
    parts = [f"{_users(narrowed)} with some providers or models only"] if narrowed else []
    parts += [f"{_users(over)} whose token has expired"] if over else []
    if parts:
        yield _ok("; ".join(parts))


def obstacle_of(directory: Path) -> OSError | None:
    """Return what keeps anything from being saved in ``state_dir``; None where nothing does.

    That somebody else may write there is not among it: it is said of each thing, with its command.
    """
    obstacle = foreseen(deepest(directory))
    return None if obstacle is None or obstacle.errno == errno.EACCES else obstacle


def state_dir(directory: Path, obstacle: OSError | None) -> Iterator[Finding]:
    """Say what is wrong with where credentials and ledger are kept, once for all of them."""
    if obstacle is not None:
        told = trouble(directory, obstacle, setting="state_dir")
        yield _error(f"{told.problem}; no login, renewed token or ledger could be saved in it", told.mend)
    if (other := foreign(directory)) is not None:
        yield Finding(level=Level.WARNING, text=other.problem, mend=other.mend)


def books(config: Config, obstacle: OSError | None) -> Iterator[tuple[str, Finding]]:
    """Say of ledger, admin listener and audit log whether they will work, each with its name.

    Args:
        config: What would be served.
        obstacle: What is said of ``state_dir``, and so not of the ledger again.
    """
    if obstacle is None or not config.usage.enabled:
        yield "usage", _ledger(config)
    if config.admin is not None:
        token = "without a token" if config.admin.token_digest is None else "with a token"
        yield "admin", _ok(f"metrics and status on {config.admin.listen.text}, {token}")
    if config.audit is not None:
        yield "audit", _audit(config.audit)


def _ledger(config: Config) -> Finding:
    usage, directory = config.usage, config.state_dir
    path = directory / LEDGER
    if not usage.enabled:
        return _ok("is off: nothing is metered or kept")
    mend = None
    if not _is_there(directory):
        # The server makes what is missing on the way there, where it may.
        mend = None if _may_make_in(deepest(directory)) else _made(directory)
    elif foreseen(directory) is not None:  # SQLite writes beside its file as well
        mend = _given(directory)
    mend = mend or _why_not_onto(path)
    if mend is not None:
        return _error(f"the ledger {path} cannot be written: nothing would be kept", mend)
    if _is_there(path):
        try:
            open_for_reading(path).close()
        except LedgerError as exc:  # its sentence says what to do
            return Finding(level=Level.WARNING if exc.passing else Level.ERROR, text=str(exc))
    days = usage.keep_s / _DAY_S
    text = f"each request is kept for {days:g} day{'' if days == 1 else 's'} in {path}"
    return _ok(f"{text}; prices of your own: {len(usage.prices)}" if usage.prices else text)


def _audit(path: Path) -> Finding:
    mend = None
    if not _is_there(path.parent):
        mend = _made(path.parent)
    elif _is_there(path):
        mend = _why_not_onto(path)
    elif not _may_make_in(path.parent):
        # The file alone: its directory may be the whole machine's, like /var/log.
        mend = f"sudo install -m 600 -o {os.geteuid()} /dev/null {shlex.quote(str(path))}{_OR_AS_US}"
    if mend is not None:
        return _error(f"{path} cannot be written: its lines would be lost", mend)
    return _ok(f"one line for each request in {path}")


def _is_there(path: Path) -> bool:
    # Path.exists raises where a directory on the way may not be searched; this never does.
    return os.path.exists(path)  # noqa: PTH110


def _may_make_in(directory: Path) -> bool:
    return os.access(directory, os.W_OK | os.X_OK, effective_ids=EFFECTIVE)


def _why_not_onto(path: Path) -> str | None:
    """Return what lets us write to a file, if it is there; None where nothing is to be done."""
    if os.path.isdir(path):  # noqa: PTH112 - as above
        return f"it is a directory; move it away: {path}"
    if not _is_there(path) or os.access(path, os.W_OK, effective_ids=EFFECTIVE):
        return None
    return _given(path)


def _made(directory: Path) -> str:
    return f"sudo install -d -m 700 -o {os.geteuid()} {shlex.quote(str(directory))}{_OR_AS_US}"


def _given(path: Path) -> str:
    return f"sudo chown {os.geteuid()} {shlex.quote(str(path))}{_OR_AS_US}"


def _said(one: Limits) -> str:
    parts = [] if one.concurrent is None else [f"{one.concurrent} at once"]
    parts += [f"{rule.text} of {rule.quantity.value}" for rule in one.rules]
    return ", ".join(parts) or "none by default"


def _users(count: int) -> str:
    return f"{count} user{'' if count == 1 else 's'}"


def _ok(text: str) -> Finding:
    return Finding(level=Level.OK, text=text)


def _error(text: str, mend: str) -> Finding:
    return Finding(level=Level.ERROR, text=text, mend=mend)
