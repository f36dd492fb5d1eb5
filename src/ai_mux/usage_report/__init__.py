"""``ai-mux usage``: who used what, for the operator.

    ledger ── sums ──► gather ──► Report ──► drawn    a terminal
                                         ├─► columns  a pipe
                                         └─► documents  --json, --csv

Rule 1: nothing is left out in silence. What could not be metered or priced is counted,
shown, and explained below; rows that do not fit are summed up in one.

Rule 2: names come from outside, models' names from anybody who has a token. None reaches
a terminal, a shell's columns or a spreadsheet as anything but text.

Rule 3: it only reads, over a connection of its own, so that it runs beside the server.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from ai_mux.usage.store import END_OF_TIME_S, Dimension, Group, Query
from ai_mux.usage_report.period import DAY_S, midnight
from ai_mux.usage_report.rows import Table, joined, table

DIMENSIONS: Final[tuple[Dimension, ...]] = ("user", "model", "credential", "provider", "day", "hour")

# What one wants to see without having asked for anything: the week, today included.
_DAYS: Final = 7
# A list of hours that still fits on a screen.
_HOURS_UP_TO_S: Final = 2 * DAY_S


class Ledger(Protocol):
    """What a report is read from: ``storage.sqlite``."""

    def sums(self, query: Query) -> list[Group]:
        """Return the sums of what was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a report shall be about.

    Attributes:
        by: What groups are told apart by, in this order; empty for a survey.
        since_s: Its beginning, in seconds since 1970; None for the last seven days, today included.
        until_s: Its end; None for now.
        user: The only user; None for everyone.
    """

    by: tuple[Dimension, ...] = ()
    since_s: float | None = None
    until_s: float | None = None
    user: str | None = None

    def span(self, now_s: float) -> tuple[float, float]:
        """Return when the time asked about begins and ends, in seconds since 1970."""
        since_s = midnight(now_s) - (_DAYS - 1) * DAY_S if self.since_s is None else self.since_s
        return since_s, now_s if self.until_s is None else self.until_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Who used what.

    Attributes:
        since_s: The beginning of the time that it is about, in seconds since 1970.
        until_s: The end of that time.
        until_now: That end is the moment at which it was made.
        user: The only user; None for everyone.
        is_survey: Nothing was asked for but a survey.
        tables: One for each way of telling groups apart, all of the same requests.
        known_users: Where there is no request in that time: whose there are at other times.
    """

    since_s: float
    until_s: float
    until_now: bool
    user: str | None
    is_survey: bool
    tables: tuple[Table, ...]
    known_users: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """There was no request in that time."""
        return not self.tables[0].rows


def gather(ledger: Ledger, asked: Asked, *, now_s: float) -> Report:
    """Return the report that was asked for.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    since_s, until_s = asked.span(now_s)
    # Without an end, what a clock that was wrong has put into the future belongs to it too.
    end_s = END_OF_TIME_S if asked.until_s is None else asked.until_s

    def groups(*by: Dimension) -> list[Group]:
        return ledger.sums(Query(since_s, end_s, by, asked.user))

    if asked.by:
        found = {asked.by: groups(*asked.by)}
    else:
        who: Dimension = "user" if asked.user is None else "provider"
        time: Dimension = "hour" if until_s - since_s <= _HOURS_UP_TO_S else "day"
        # One pass over the ledger for two tables: passes are what takes time in a large one.
        both = groups(who, "model")
        found = {(who,): joined(both, 0), ("model",): joined(both, 1), (time,): groups(time)}
    tables = [table(by, several, until_s=min(until_s, now_s)) for by, several in found.items()]
    known: tuple[str, ...] = ()
    if not tables[0].rows:
        known = tuple(group.key[0] for group in ledger.sums(Query(0.0, END_OF_TIME_S, ("user",))))
    return Report(
        since_s=since_s,
        until_s=until_s,
        until_now=asked.until_s is None,
        user=asked.user,
        is_survey=not asked.by,
        tables=tuple(tables),
        known_users=known,
    )
