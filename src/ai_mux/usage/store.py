"""What keeps the ledger, as those who use it see it: SQLite today, a server for several replicas later."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from ai_mux.usage.tally import NO_TOKENS, MicroUsd, Record, Tokens

# By what sums can be told apart. Days and hours are UTC.
Dimension = Literal["user", "credential", "provider", "model", "day", "hour"]

# The first second of the year 10000, whose dates nobody can write: ``until_s`` for no end at all. A
# question that ends now would leave out what a clock that was wrong has put into the future.
END_OF_TIME_S: Final = 253_402_300_800.0


class Query(NamedTuple):
    """What to sum up.

    Attributes:
        since_s: Requests that ended at this time or later, in seconds since 1970 UTC.
        until_s: Requests that ended before this time.
        by: By what to tell them apart, in this order.
        user: Only this user's; None for everyone's.
    """

    since_s: float
    until_s: float
    by: tuple[Dimension, ...] = ()
    user: str | None = None


class Sums(NamedTuple):
    """What a group of requests used together.

    Attributes:
        requests: How many there were.
        errors: How many of them were answered with a status from 400 on, or not at all.
        unmetered: How many of them used what could not be read.
        unpriced: How many of them used tokens of a model without a known price.
        tokens: What they used.
        cost: What that costs, without the unpriced.
        bytes_in: Of their bodies.
        bytes_out: Of their responses' bodies.
    """

    requests: int
    errors: int
    unmetered: int
    unpriced: int
    tokens: Tokens
    cost: MicroUsd
    bytes_in: int
    bytes_out: int


def together(several: Iterable[Sums]) -> Sums:
    """Return the sums of all of these groups."""
    requests = errors = unmetered = unpriced = cost = bytes_in = bytes_out = 0
    tokens = [0] * len(NO_TOKENS)
    for one in several:
        requests += one.requests
        errors += one.errors
        unmetered += one.unmetered
        unpriced += one.unpriced
        tokens = [left + right for left, right in zip(tokens, one.tokens, strict=True)]
        cost += one.cost
        bytes_in += one.bytes_in
        bytes_out += one.bytes_out
    return Sums(requests, errors, unmetered, unpriced, Tokens(*tokens), MicroUsd(cost), bytes_in, bytes_out)


class Group(NamedTuple):
    """The sums of one group.

    Attributes:
        key: One value for each of ``Query.by``. A day is ``2026-11-22``, an hour ``2026-11-22T14``.
        sums: What it used.
    """

    key: tuple[str, ...]
    sums: Sums


class Spent(NamedTuple):
    """What a user spent in a stretch of time, for limits that must survive a restart.

    Attributes:
        user: The user's name.
        at_s: When the stretch ended at the latest, in seconds since 1970 UTC.
        requests: How many requests count.
        tokens: All their tokens.
        cost: What they cost.
    """

    user: str
    at_s: float
    requests: int
    tokens: int
    cost: MicroUsd


class Forgotten(NamedTuple):
    """What one step of forgetting has done.

    Attributes:
        rows: How many requests were deleted.
        more: There is more to do.
    """

    rows: int
    more: bool


class UsageStore(Protocol):
    """A ledger's storage. Every method blocks; it is called from one thread only.

    Making one is cheap: files and connections are opened when they are first needed.

    All of them raise ``errors.LedgerError``: passing (locked, full: try again) or final.
    """

    def append(self, records: Sequence[Record]) -> None:
        """Keep these, all or none."""

    def sums(self, query: Query) -> list[Group]:
        """Return the sums of what was kept, ordered by key."""

    def spent(self, since_s: float, now_s: float) -> list[Spent]:
        """Return what users spent since then, in stretches of at most a 60th of what lies between."""

    def last_before(self, time_s: float) -> float | None:
        """Return when the last of the requests that ended before this time did; None where there is none."""

    def forget_before(self, time_s: float) -> Forgotten:
        """Delete some of the requests, and sums, of hours that ended before this time."""

    def examine(self) -> None:
        """Look whether all that was kept can still be read."""

    def close(self) -> None:
        """Let go of files and connections."""
