"""``GET /usage``: one's own use, limits and what is left of them, as JSON.

Rule 1: it is about the user who asks, and about nobody else. Every question to the
ledger names that user; the provider's windows are the owner's affair and stand in it
only where the operator's configuration shows them.

Rule 2: what a user cannot mend is told in a sentence that says nothing about this machine.

Rule 3: members may be added; none goes or changes its meaning. All times are UTC.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from ai_mux.errors import LedgerError
from ai_mux.limits import Limits, Quantity, Rule
from ai_mux.usage.store import END_OF_TIME_S, Group, Query, Sums, together

if TYPE_CHECKING:  # `ai-mux usage` writes figures like this page, and should not wait for asyncio
    from ai_mux.usage.limiter import Standing
    from ai_mux.usage.windows import Shown

_DAY_S: Final = 86400
# Whole days, today included: the same days as in the operator's report.
_PERIODS: Final[Mapping[str, int]] = {"today": 1, "7d": 7, "30d": 30}
# Users choose models' names, and their own page should not grow with them.
_MOST_MODELS: Final = 50
_MICRO: Final = 10**6

_NOT_READ: Final = "Your usage cannot be read at the moment. Requests are not affected."
_NOT_KEPT: Final = "This server keeps no record of usage."


class Asker(Protocol):
    """Who asks: ``users.User``."""

    @property
    def name(self) -> str:
        """The user's name."""

    @property
    def limits(self) -> Limits:
        """How much they may use."""

    @property
    def providers(self) -> frozenset[str] | None:
        """Which providers they may use; None for all."""

    @property
    def models(self) -> tuple[str, ...] | None:
        """Which models they may use; None for all."""

    @property
    def expires_at(self) -> float | None:
        """When their token ends, in seconds since 1970; None for never."""


def page(
    *,
    user: Asker,
    standing: Iterable["Standing"],
    sums: Callable[[Query], list[Group]] | None,
    windows: Mapping[str, "Shown"] | None,
    now_s: float,
) -> bytes:
    """Return the document. Blocks while the ledger is read.

    Args:
        user: Who asks.
        standing: How much of each of their limits is used.
        sums: Asks the ledger; None where none is kept.
        windows: The providers' own windows by credential (``claude:login``), where users may see them.
        now_s: Seconds since 1970.
    """
    told = list(standing)
    usage, problem = _usage(user.name, sums, now_s)
    document: dict[str, object] = {
        "user": user.name,
        "now": moment(now_s),
        "usage": usage,
        "limits": [_limit(one, one.rule) for one in told if one.rule is not None],
        "concurrent": next((_concurrent(one) for one in told if one.rule is None), None),
        "providers": None if user.providers is None else sorted(user.providers),
        "models": None if user.models is None else list(user.models),
        "expires": None if user.expires_at is None else moment(user.expires_at),
    }
    if problem is not None:
        document["problem"] = problem
    if windows is not None:
        document["provider_windows"] = [
            window for credential in sorted(windows) for window in _windows(credential, windows, user)
        ]
    return json.dumps(document, indent=2).encode("ascii") + b"\n"


def _usage(
    name: str, sums: Callable[[Query], list[Group]] | None, now_s: float
) -> tuple[dict[str, object] | None, str | None]:
    """Return the use of each period, or why there is none."""
    if sums is None:
        return None, _NOT_KEPT
    today = now_s // _DAY_S * _DAY_S
    found: dict[str, object] = {}
    try:
        for period, days in _PERIODS.items():
            since_s = today - (days - 1) * _DAY_S
            groups = sums(Query(since_s, END_OF_TIME_S, ("model",), name))
            found[period] = {
                "since": moment(since_s),
                **used(together(group.sums for group in groups)),
                "models": _models(groups),
            }
    except LedgerError:  # the log has told the operator
        return None, _NOT_READ
    return {**found, "notional": True}, None


def _models(groups: list[Group]) -> list[dict[str, object]]:
    """Return the use of each model, the costliest first, and of all others together."""
    ranked = sorted(
        groups, key=lambda one: (-one.sums.cost, -one.sums.tokens.total, -one.sums.requests, one.key)
    )
    shown: list[dict[str, object]] = [
        {"model": group.key[0] or None, **used(group.sums)} for group in ranked[:_MOST_MODELS]
    ]
    if rest := ranked[_MOST_MODELS:]:
        shown.append({"model": None, "others": len(rest), **used(together(group.sums for group in rest))})
    return shown


def _limit(one: "Standing", rule: Rule) -> dict[str, object]:
    is_cost = rule.quantity is Quantity.COST
    amount, used_up, left = (
        _dollars(number) if is_cost else number for number in (rule.amount, one.used, one.left or 0)
    )
    return {
        "limit": one.limit,
        "text": rule.text,
        "unit": "usd" if is_cost else one.limit,
        "window_s": rule.window_s,
        "amount": amount,
        "used": used_up,
        "left": left,
        # Up to the next second: who asks again then is not too early.
        "frees_at": None if one.frees_at is None else moment(math.ceil(one.frees_at)),
        "whole_at": None if one.whole_at is None else moment(math.ceil(one.whole_at)),
    }


def _concurrent(one: "Standing") -> dict[str, object]:
    return {"limit": one.amount, "running": one.used, "left": one.left}


def _windows(credential: str, windows: Mapping[str, "Shown"], user: Asker) -> Iterable[dict[str, object]]:
    """Yield the windows of one credential, if it is of a provider that the user may use.

    Only what has a name that we gave it: what else a provider says may be about the owner.
    """
    provider = credential.partition(":")[0]
    if user.providers is not None and provider not in user.providers:
        return
    for window in windows[credential].windows:
        yield {
            "provider": provider,
            "window": window.name,
            "used": window.used,
            "resets_at": None if window.resets_at is None else moment(window.resets_at),
            "status": window.status or None,
            "seen_at": moment(window.seen_at),
        }


def used(sums: Sums) -> dict[str, object]:
    """Return the figures of a group for a program: exact, in the members that the documentation lists."""
    return {
        "requests": sums.requests,
        "errors": sums.errors,
        "unmetered": sums.unmetered,
        "unpriced": sums.unpriced,
        "tokens": {**sums.tokens._asdict(), "total": sums.tokens.total},
        "cost_usd": _dollars(sums.cost),
        "bytes_in": sums.bytes_in,
        "bytes_out": sums.bytes_out,
    }


def moment(at_s: float) -> str:
    """Return a time as in RFC 3339, UTC, in whole seconds; the last there is, where a clock was wrong."""
    at_s = min(max(at_s, 0.0), END_OF_TIME_S - 1)
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dollars(micro: int) -> float:
    """Return dollars that are written with as many of six places as they need.

    A double holds fifteen digits: exact below a billion dollars (IEEE 754, binary64).
    """
    return micro / _MICRO
