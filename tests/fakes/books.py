"""Books that a test can read: everything counts as in life, and rows go into a list."""

from typing import Final

from ai_mux.clock import Clock
from ai_mux.logs import Log
from ai_mux.proxy.own_pages import OwnPages
from ai_mux.usage.accounting import Accounting
from ai_mux.usage.limiter import Limiter
from ai_mux.usage.prices import Prices
from ai_mux.usage.tally import Record
from ai_mux.usage.totals import Totals

PAGE: Final = b'{"user":"%s"}'


class KeptRows:
    """A ledger without a disk."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def put(self, record: Record) -> None:
        self.records.append(record)


def books(rows: KeptRows, *, clock: Clock, log: Log) -> Accounting:
    """Return accounting whose rows are kept in ``rows``."""
    return Accounting(
        clock=clock,
        log=log,
        limiter=Limiter(clock),
        totals=Totals(),
        prices=Prices(),
        ledger=rows,  # type: ignore[arg-type] # all that accounting asks of a ledger
    )


def pages(clock: Clock) -> OwnPages:
    """Return pages that say no more than whose they are."""
    return OwnPages(lambda user: lambda: PAGE % user.name.encode(), clock)
