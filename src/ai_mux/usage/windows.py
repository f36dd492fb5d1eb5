"""What the providers say of their own limits, remembered from what passes by.

A subscription is limited by windows of the provider's own: so much within five hours,
so much within a week. Every response says how far they are used, in fields of its head
(``anthropic-ratelimit-unified-*``, ``x-codex-*``) or in an event (``codex.rate_limits``).
Nobody is asked.

Rule 1: nothing here raises. What is not understood is kept as it is, or passed over.

Rule 2: everything is bounded, names and values included, because both come from outside.

Rule 3: a window whose end has passed tells nothing any more of what is used.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ai_mux.usage.window_fields import Seen, seen_in_event, seen_in_head

_NOTED_EVERY_S: Final = 1.0
# Providers have two or three; models with a window of their own add one each.
_MOST_WINDOWS: Final = 16
_MOST_CLAIMS: Final = 16
# One for each provider and kind of credential.
_MOST_CREDENTIALS: Final = 64
# A window that a plan has no more; a day longer than the longest window that most have.
_FORGOTTEN_AFTER_S: Final = 8 * 86400.0
# What is shown of a claim that nobody foresaw. No "@": whose account it is stays out of it.
_PLAIN: Final = re.compile(r"[A-Za-z0-9 _.:,;/+-]{0,64}")


class Window(NamedTuple):
    """One of a provider's windows.

    Attributes:
        name: By its length, ``5h`` or ``7d``, or as the provider calls it; of a limit with a name of
            its own, that and a slash before.
        used: The fraction that is used; more than 1 where the provider lets that happen, None where
            it is not known, as after the window's end.
        resets_at: When it ends, in seconds since 1970, or None.
        status: The provider's word, such as ``allowed`` or ``rejected``; empty without one.
        seen_at: When that was seen, in seconds since 1970.
    """

    name: str
    used: float | None
    resets_at: float | None
    status: str
    seen_at: float


class Shown(NamedTuple):
    """What is known of one credential's windows.

    Attributes:
        windows: Ordered by name.
        other: What else the provider said of its limits, by the end of the field's name.
    """

    windows: tuple[Window, ...]
    other: Mapping[str, str]


class ProviderWindows:
    """The providers' windows, by credential (``claude:login``)."""

    def __init__(self) -> None:
        self._windows: dict[str, dict[str, Window]] = {}
        self._other: dict[str, dict[str, str]] = {}
        self._noted_at: dict[str, float] = {}

    def is_due(self, credential: str, now_s: float) -> bool:
        """Tell whether a head is worth a look: at most once a second for each credential."""
        # A wall clock that was set back must not end the looking.
        return not 0 <= now_s - self._noted_at.get(credential, -1e18) < _NOTED_EVERY_S

    def note_head(self, credential: str, fields: Iterable[tuple[bytes, bytes]], now_s: float) -> None:
        """Remember what a response's head says. Never raises.

        Args:
            credential: Whose windows they are.
            fields: Names, in any case, and values.
            now_s: Seconds since 1970.
        """
        try:
            self._note(credential, seen_in_head(fields, now_s), now_s)
        except Exception:  # whatever a provider may invent: who watches must not disturb
            return

    def note_event(self, credential: str, event: Mapping[str, object], now_s: float) -> None:
        """Remember what an event ``codex.rate_limits`` says. Never raises."""
        try:
            self._note(credential, seen_in_event(event, now_s), now_s)
        except Exception:  # see above
            return

    def _note(self, credential: str, seen: Seen, now_s: float) -> None:
        if credential not in self._noted_at and len(self._noted_at) >= _MOST_CREDENTIALS:
            return
        self._noted_at[credential] = now_s
        windows = self._windows.setdefault(credential, {})
        for name in [name for name, one in windows.items() if now_s - one.seen_at > _FORGOTTEN_AFTER_S]:
            del windows[name]
        for name, found in seen.windows.items():
            if name not in windows and len(windows) >= _MOST_WINDOWS:
                continue
            before = windows.get(name)
            used, resets_at = found.used, found.resets_at
            if before is not None and resets_at in (None, before.resets_at):
                # A refusal may say no more than that: what was known of this window still holds.
                used = before.used if used is None else used
                resets_at = before.resets_at
            status = found.status if _PLAIN.fullmatch(found.status) else ""
            windows[name] = Window(name, used, resets_at, status, now_s)
        other = self._other.setdefault(credential, {})
        for name, value in seen.other.items():
            if (name in other or len(other) < _MOST_CLAIMS) and _PLAIN.fullmatch(value):
                other[name] = value

    def shown(self, now_s: float) -> dict[str, Shown]:
        """Return what is known, by credential, at this time in seconds since 1970. Any thread may ask."""
        found = {}
        for credential, windows in sorted(self._windows.copy().items()):
            as_of = [_as_of(now_s, window) for _, window in sorted(windows.copy().items())]
            found[credential] = Shown(tuple(as_of), self._other.get(credential, {}).copy())
        return found


def _as_of(now_s: float, window: Window) -> Window:
    """Return a window as it is known now: it has begun anew if its end has passed."""
    if window.resets_at is None or now_s < window.resets_at:
        return window
    return window._replace(used=None, status="")
