"""Where a credential stands: pure facts and decisions, for which time is an argument.

Two clocks. ``wall`` is seconds since 1970 and may be wrong or jump; ``mono`` never
goes back but stands still while a machine sleeps. A token's end is kept by both,
counted from the moment at which we learned of it, and the earlier one counts: a
jump costs at most one renewal too many, never one at every request.

    State        a request gets                  until
    LIVE         the access token                it ends
    EXPIRED      503, worth a retry              a renewal works (backoff)
    DEAD         503                             the file changes
    ENDED        503  (no refresh token)         the file changes
    MISSING, BROKEN, BLANK   503                 the file changes
    UNREAD       a wait                          the file was read
"""

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from ai_mux.credentials.credential import Credential
from ai_mux.credentials.endpoint import TIMEOUT_S

# A request that meets a token with less to live waits for the next one.
FRESH_S: Final = 60
# So long a token counts as fresh whatever any clock says, and a 401 causes no further renewal.
NEW_S: Final = 60
# The background renews at least so early, as both vendors' own clients do.
_EARLY_S: Final = 300
# The steps of waiting: after what could not be sent, and after what was answered in vain.
_FIRST_S: Final = 1
_LONGEST_S: Final = 60
_USELESS_S: Final = 60
# A Retry-After beyond a day is a mistake; we would rather ask again.
_LONGEST_ASKED_S: Final = 86400


class State(Enum):
    """Where a credential stands; the table is above."""

    LIVE = "live"
    EXPIRED = "expired"
    DEAD = "dead"
    ENDED = "ended"
    MISSING = "missing"
    BROKEN = "broken"
    BLANK = "blank"
    UNREAD = "unread"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A credential's state, for people and machines that watch.

    Attributes:
        state: In one word.
        expires_at: When the access token ends, in seconds since 1970 by our clock, if known.
        renewable: There is a refresh token that may still work.
        problem: What the operator should know, or None when all is well. Holds no secret.
    """

    state: State
    expires_at: float | None
    renewable: bool
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A credential in memory, and how long it is good for.

    Attributes:
        credential: The tokens.
        ends_wall: When the access token ends by the wall clock; infinite where unknown.
        ends_mono: The same by the monotonic clock.
        obtained_mono: When a renewal brought it; minus infinity if none did.
        lifetime_s: How long it lives in all; infinite where unknown.
    """

    credential: Credential
    ends_wall: float
    ends_mono: float
    obtained_mono: float
    lifetime_s: float

    def left_s(self, wall: float, mono: float) -> float:
        """Return how long the access token still lives, in seconds; negative afterwards."""
        return min(self.ends_wall - wall, self.ends_mono - mono)

    def new_for_s(self, mono: float) -> float:
        """Return for how long it still counts as just renewed, in seconds; at most 0 if it does not."""
        return self.obtained_mono + NEW_S - mono

    def early_s(self, interval_s: float) -> float:
        """Return with how many seconds left the background renews it."""
        return max(_EARLY_S, min(2 * interval_s, self.lifetime_s / 2))


def hold(credential: Credential, *, wall: float, mono: float, renewed_at: float | None) -> Held:
    """Return a credential as it is held from now on.

    Args:
        credential: As read, or as received just now.
        wall: The wall clock, now.
        mono: The monotonic clock, now.
        renewed_at: When a renewal brought it, by the wall clock; None if a login did.
    """
    ends = math.inf if credential.expires_at is None else credential.expires_at
    if not credential.access:
        ends = -math.inf  # only a refresh token: to be renewed before anything else
    age_s = math.inf if renewed_at is None else wall - renewed_at
    return Held(
        credential=credential,
        ends_wall=ends,
        ends_mono=mono + (ends - wall),
        # A file server's clock may be a little ahead of ours; far ahead, it tells nothing.
        obtained_mono=mono - max(0.0, age_s) if -NEW_S < age_s < NEW_S else -math.inf,
        lifetime_s=credential.lifetime_s or math.inf,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What may be tried next with one refresh token, after what was tried so far.

    Attributes:
        rest_until: Nothing is tried before, by the monotonic clock.
        failures: Vain attempts in a row, for the growing pauses.
        unsure: How many attempts may have spent the token without our hearing of it.
        refused: The provider said that it will never work again.
        problem: The latest failure, for the operator.
    """

    rest_until: float = -math.inf
    failures: int = 0
    unsure: int = 0
    refused: bool = False
    problem: str | None = None

    @property
    def is_over(self) -> bool:
        """Nothing will be tried any more: the token is refused, or was risked a second time in vain."""
        return self.refused or self.unsure > 1

    def may_try(self, mono: float, *, alive: bool) -> bool:
        """Tell whether a renewal may be tried now, while the access token still lives or does not."""
        if self.is_over or mono < self.rest_until:
            return False
        # The token may be spent: as long as something works, do not risk the login.
        return not (self.unsure and alive)

    def rest_s(self, mono: float) -> float:
        """Return how long nothing will be tried, in seconds."""
        return max(0.0, self.rest_until - mono)

    def not_sent(self, mono: float, problem: str) -> "Outlook":
        """After a failure that cannot have spent the token: 1, 2, 4 … 60 s."""
        return self._after(mono + min(_FIRST_S * 2.0 ** min(self.failures, 10), _LONGEST_S), problem)

    def unknown(self, sent_mono: float, problem: str) -> "Outlook":
        """After an attempt that may have spent the token: one more, once nothing else works.

        Not before the provider has had the time for which we would have waited: it may
        still be at our first request, and the second would be a reuse.
        """
        return replace(self._after(sent_mono + TIMEOUT_S, problem), unsure=self.unsure + 1)

    def asked_to_wait(self, mono: float, asked_s: float | None, problem: str) -> "Outlook":
        """After a 429: as long as it asks for."""
        wait_s = _USELESS_S if asked_s is None else min(max(asked_s, _FIRST_S), _LONGEST_ASKED_S)
        return self._after(mono + wait_s, problem)

    def useless(self, mono: float, interval_s: float, problem: str) -> "Outlook":
        """After an answer that was neither a token nor final: 60 s, doubling up to the check interval."""
        doubled = _USELESS_S * 2.0 ** min(self.failures, 20)
        return self._after(mono + min(doubled, max(_USELESS_S, interval_s)), problem)

    def final(self, problem: str) -> "Outlook":
        """After a permanent answer."""
        return replace(self, refused=True, problem=problem)

    def _after(self, rest_until: float, problem: str) -> "Outlook":
        return replace(self, rest_until=rest_until, failures=self.failures + 1, problem=problem)
