"""The document of ``/status``: how the server is, for people and programs.

Members may be added; none goes or changes its meaning (docs/reference/command-line.md). It holds no
token, and nothing of whose account a credential is.
"""

from collections.abc import Sequence
from typing import Final

from ai_mux.admin.sources import Credential, Sources, credentials, is_usable
from ai_mux.credentials.standing import State
from ai_mux.storage.inspect import ENDS_SOON_S
from ai_mux.usage.page import moment
from ai_mux.usage.totals import Totals

Document = dict[str, object]

# What is wrong with a credential that cannot be used.
_UNUSABLE: Final = {
    State.EXPIRED: "has expired, and its renewal does not work yet",
    State.DEAD: "is dead: the provider will not renew it any more",
    State.ENDED: "has ended, and is not one that can be renewed",
    State.MISSING: "is missing",
    State.BROKEN: "cannot be read",
    State.BLANK: "is logged out",
    State.UNREAD: "has not been read yet",
}
# What passes by itself needs no new login.
_PASSING: Final = frozenset({State.EXPIRED, State.UNREAD})


def document(sources: Sources) -> Document:
    """Return how the server is now. Times are RFC 3339 in UTC, durations seconds."""
    now_s = sources.clock.time()
    known = list(credentials(sources, now_s))
    problems = _problems(sources, known, now_s)
    return {
        "ok": not problems,
        "problems": problems,
        "ready": not_ready(sources) is None,
        "draining": sources.server.draining,
        "version": sources.version,
        "engine": sources.engine,
        "time": moment(now_s),
        "started": moment(sources.started_at),
        "uptime_s": round(max(0.0, now_s - sources.started_at)),
        "connections": sources.server.connections,
        "requests_running": sources.server.requests,
        "model_requests_running": sources.limiter.running,
        "credentials": [_credential(one, now_s) for one in known],
        "since_start": _since_start(sources.totals),
        "ledger": _ledger(sources),
    }


def in_brief(sources: Sources, addresses: Sequence[str]) -> str:
    """Return how the server is in one line, for who has no room for more: what it serves, what is wrong.

    Args:
        sources: The server.
        addresses: Where it listens.
    """
    now_s = sources.clock.time()
    known = list(credentials(sources, now_s))
    names = ", ".join(dict.fromkeys(one.provider for one in known)) or "no provider"
    usable = sum(one.is_usable for one in known)
    well = f"{usable} credential{'' if usable == 1 else 's'} usable"
    problems = _problems(sources, known, now_s) if known else []
    return "; ".join([f"serving {names} on {', '.join(addresses)}", *(problems or [well])])


def not_ready(sources: Sources) -> str | None:
    """Return why no request can be served, or None. Says no more than a stranger may know."""
    if sources.server.draining:
        return "draining"
    standings = [renewer.state() for _, renewer in sources.renewers()]
    if not standings:
        return "no provider is configured"
    if not any(map(is_usable, standings)):
        return "no provider has a usable credential"
    return None


def _problems(sources: Sources, known: list[Credential], now_s: float) -> list[str]:
    found = []
    if sources.server.draining:
        found.append("the server is stopping")
    if not known:
        found.append("no provider is configured")
    found += [trouble for one in known if (trouble := _trouble(one, now_s)) is not None]
    ledger = sources.ledger
    if ledger is not None and ledger.is_failing:
        found.append(
            f"ledger: cannot be written; {ledger.queued} rows wait in memory, see the log, or the disk hangs"
        )
    if ledger is not None and ledger.dropped:
        found.append(f"ledger: {ledger.dropped} rows were lost since the start")
    return found


def _trouble(one: Credential, now_s: float) -> str | None:
    """Return what is wrong with a credential, why, and what mends it; None where nothing is."""
    state, problem, ends = one.standing.state, one.standing.problem, one.standing.expires_at
    if not one.is_usable:
        why = "" if problem is None else f" ({problem})"
        mend = "" if state in _PASSING else f"; {one.mend}"
        return f"{one.name} {_UNUSABLE[state]}{why}{mend}"
    if problem is not None:
        return f"{one.name} works, but: {problem}"
    if ends is not None and ends - now_s < ENDS_SOON_S and not one.standing.renewable:
        return f"{one.name} ends {moment(ends)} and cannot be renewed; {one.mend}"
    return None


def _credential(one: Credential, now_s: float) -> Document:
    standing = one.standing
    ends = standing.expires_at
    return {
        "credential": one.name,
        "provider": one.provider,
        "state": standing.state.value,
        "usable": one.is_usable,
        "renewable": standing.renewable,
        "expires_at": _moment(ends),
        "expires_in_s": None if ends is None else round(ends - now_s),
        "problem": standing.problem,
        "renewals": one.renewals,
        "renewal_failures": one.renewal_failures,
        "windows": [
            {
                "name": window.name,
                "used": None if window.used is None else round(window.used, 4),
                "status": window.status or None,
                "resets_at": _moment(window.resets_at),
                "resets_in_s": None if window.resets_at is None else round(window.resets_at - now_s),
                "seen_at": moment(window.seen_at),
                "seen_s_ago": round(max(0.0, now_s - window.seen_at)),
            }
            for window in one.shown.windows
        ],
        "other_claims": dict(sorted(one.shown.other.items())),
    }


def _since_start(totals: Totals) -> Document:
    """Return what requests came to."""
    ended = list(totals.ends())
    models = list(totals.models())
    return {
        "requests": sum(count for *_, count in ended),
        "errors": sum(count for _, status, _, count in ended if status >= 400 or status == 0),
        "unidentified": sum(totals.strangers.values()),
        "unmetered": sum(row.unmetered for _, row in totals.providers()),
        "tokens": sum(used.tokens.total for used in models),
        "cost_usd": sum(used.cost_microusd for used in models) / 1_000_000,
    }


def _ledger(sources: Sources) -> Document | None:
    ledger = sources.ledger
    if ledger is None:
        return None
    return {
        "state": "failing" if ledger.is_failing else "writing",
        "queued": ledger.queued,
        "written": ledger.written,
        "dropped": ledger.dropped,
    }


def _moment(at_s: float | None) -> str | None:
    return None if at_s is None else moment(at_s)
