"""How the providers write their windows: fields and events in, meaning out.

Anthropic names each window in the field (``anthropic-ratelimit-unified-5h-utilization``:
a fraction, with ``-reset`` in seconds since 1970 and ``-status``); names that are not known
yet are windows all the same, by the ends of their fields.

Codex has two slots for each limit (``x-codex-primary-used-percent``, ``-window-minutes``,
``-reset-at``). Which window is in which slot changes, so a window is named by its length.
Limits beside the account's own have fields of the same shape, ``x-NAME-primary-…``; on a
request that such a limit counts, ``x-codex-*`` repeats its figures, which
``x-codex-active-limit`` tells. The event has the same as JSON.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

_UNIFIED: Final = "anthropic-ratelimit-unified-"
_UNIFIED_WINDOW: Final = re.compile(r"([a-z0-9][a-z0-9_-]{0,31})-(utilization|reset|status)")
# What else could be bought, by whoever has this plan; the plan is its owner's affair.
_OF_NO_USE: Final = frozenset({"upgrade-paths"})
_SLOT: Final = re.compile(
    r"x-([a-z0-9][a-z0-9_-]{0,31}?)-(primary|secondary)-(used-percent|window-minutes|reset-at|reset-after-seconds)"
)
_SLOTS: Final = ("primary", "secondary")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_CODEX: Final = "codex"
_ACTIVE: Final = "x-codex-active-limit"
# What else Codex says of limits. Not by its prefix: that bears the state of conversations, too.
_CODEX_CLAIMS: Final = frozenset(
    {
        _ACTIVE,
        "x-codex-credits-has-credits",
        "x-codex-credits-unlimited",
        "x-codex-credits-balance",
        "x-codex-limit-name",
        "x-codex-rate-limit-reached-type",
    }
)
# What a value may be long; a number has at most a score of digits.
_MOST_BYTES: Final = 128
_MOST_FIELDS: Final = 1024  # more than a response's head may have
# Beyond, somebody is joking. 1000 times as much as there is has not been seen.
_MOST_USED: Final = 1000.0
_LONGEST_S: Final = 400 * 86400.0
# As for credentials: from here on a time is in milliseconds.
_MILLISECONDS_FROM: Final = 1e11
_LATEST_S: Final = 1e11
_UNITS: Final = (("d", 1440), ("h", 60))
_GRACE_MINUTES: Final = 3  # so much Codex itself rounds


class Found(NamedTuple):
    """What was said of one window.

    Attributes:
        used: The fraction that is used, or None.
        resets_at: When it ends, in seconds since 1970, or None.
        status: The provider's word, or empty.
    """

    used: float | None
    resets_at: float | None
    status: str = ""


class Seen(NamedTuple):
    """What was said.

    Attributes:
        windows: By name.
        other: Claims that are no windows, by the end of the field's name.
    """

    windows: dict[str, Found]
    other: dict[str, str]


def seen_in_head(fields: Iterable[tuple[bytes, bytes]], now_s: float) -> Seen:
    """Read a response's head. Fields that say nothing of limits are passed over."""
    other: dict[str, str] = {}
    unified: dict[str, dict[str, str]] = {}
    limits: dict[str, dict[str, dict[str, object]]] = {}
    for _, (raw_name, raw_value) in zip(range(_MOST_FIELDS), fields, strict=False):
        name = raw_name.decode("latin-1").lower()
        value = raw_value[:_MOST_BYTES].decode("latin-1").strip()
        if name.startswith(_UNIFIED):
            claim = name[len(_UNIFIED) :]
            window = _UNIFIED_WINDOW.fullmatch(claim)
            if window is not None:
                unified.setdefault(window[1], {})[window[2]] = value
            elif _NAME.fullmatch(claim) and claim not in _OF_NO_USE:
                other[claim] = value
        elif name in _CODEX_CLAIMS:
            other[name.removeprefix("x-codex-")] = value
        elif (slot := _SLOT.fullmatch(name)) is not None:
            limit = limits.setdefault(_limit_name(slot[1]), {})
            limit.setdefault(slot[2], {})[slot[3].replace("-", "_")] = value
    windows = {
        name: Found(
            _fraction(said.get("utilization"), of=1),
            _instant(said.get("reset"), None, now_s),
            said.get("status", ""),
        )
        for name, said in unified.items()
    }
    if _limit_name(other.get("active-limit", "")) in limits.keys() - {_CODEX}:
        limits.pop(_CODEX, None)
    for name, slots in limits.items():
        windows.update(_limit(name, slots, now_s))
    return Seen(windows, other)


def seen_in_event(event: Mapping[str, object], now_s: float) -> Seen:
    """Read an event ``codex.rate_limits``."""
    windows: dict[str, Found] = {}
    for name, limit in _limits_of(event):
        windows.update(_limit(name, limit, now_s))
    return Seen(windows, {})


def _limits_of(event: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Give each limit of an event: the one that it is about, and those that it has besides."""
    main = event.get("rate_limits")
    if isinstance(main, dict):
        yield _own_name(event) or _CODEX, main
    more = event.get("additional_rate_limits")
    if isinstance(more, dict):
        more = [{"limit_name": name, "rate_limits": limit} for name, limit in more.items()]
    for one in more[:_MOST_FIELDS] if isinstance(more, list) else ():
        if isinstance(one, dict) and (name := _own_name(one)):
            limit = one.get("rate_limits", one.get("rate_limit", one))
            if isinstance(limit, dict):
                yield name, limit


def _own_name(said: Mapping[str, object]) -> str:
    for key in ("limit_id", "metered_limit_name", "limit_name"):
        name = said.get(key)
        if isinstance(name, str) and name:
            return _limit_name(name[:_MOST_BYTES])
    return ""


def _limit_name(name: str) -> str:
    """Return a limit's name in one spelling: in fields it has ``-`` where it has ``_`` elsewhere."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _limit(name: str, slots: Mapping[str, object], now_s: float) -> dict[str, Found]:
    """Return the windows of one of Codex's limits."""
    windows: dict[str, Found] = {}
    if not _NAME.fullmatch(name):
        return windows
    for slot in _SLOTS:
        said = slots.get(slot, slots.get(f"{slot}_window"))
        if not isinstance(said, dict):
            continue
        used = _fraction(said.get("used_percent"), of=100)
        minutes = _number(said.get("window_minutes"))
        if minutes is None and (seconds := _number(said.get("limit_window_seconds"))) is not None:
            minutes = seconds / 60
        if used is None or (minutes is not None and minutes <= 0):
            continue  # an empty slot is written with zeros
        length = slot if minutes is None or minutes > _LONGEST_S / 60 else _length(minutes)
        window = length if name == _CODEX else f"{name}/{length}"
        if window in windows:
            window = f"{window} {slot}"
        end = said.get("reset_at", said.get("resets_at"))
        windows[window] = Found(used, _instant(end, said.get("reset_after_seconds"), now_s))
    return windows


def _length(minutes: float) -> str:
    """Return a length as people write it: ``5h``, ``7d``, ``90m``; at most some 400 days."""
    for unit, size in _UNITS:
        count = round(minutes / size)
        if count >= 1 and abs(minutes - count * size) <= _GRACE_MINUTES:
            return f"{count}{unit}"
    return f"{round(minutes)}m"


def _number(value: object) -> float | None:
    """Return what is a number, or a string that is one; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _fraction(value: object, *, of: int) -> float | None:
    number = _number(value)
    if number is None or not 0 <= number / of <= _MOST_USED:
        return None
    return number / of + 0.0  # Anthropic sends -0.0


def _instant(at: object, after_s: object, now_s: float) -> float | None:
    """Return an end in seconds since 1970, from a time or from what is left."""
    moment = _number(at)
    if moment is not None and moment >= _MILLISECONDS_FROM:
        moment /= 1000
    if moment is not None and 0 < moment < _LATEST_S:
        return moment
    left_s = _number(after_s)
    return now_s + left_s if left_s is not None and 0 <= left_s <= _LONGEST_S else None
