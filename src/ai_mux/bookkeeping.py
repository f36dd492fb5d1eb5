"""Makes what counts, out of the configuration: limits, totals, ledger, audit log.

All of it outlives a reload: what was counted stays counted, and only what decides
(prices, the ledger's keep, the audit log's file) is put in place anew.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from ai_mux.clock import Clock
from ai_mux.config import Config
from ai_mux.errors import LedgerError
from ai_mux.limits import Limits
from ai_mux.logs import Log
from ai_mux.logs.audit import Audit
from ai_mux.proxy.own_pages import OwnPages
from ai_mux.storage import LEDGER
from ai_mux.storage.sqlite import SqliteStore
from ai_mux.usage.accounting import Accounting
from ai_mux.usage.ledger import Ledger
from ai_mux.usage.limiter import Limiter
from ai_mux.usage.page import page
from ai_mux.usage.prices import Prices, listed_name
from ai_mux.usage.store import Spent
from ai_mux.usage.totals import Totals
from ai_mux.usage.windows import ProviderWindows
from ai_mux.users import ANONYMOUS, User

# So long a start waits for what users have spent already; what comes later is added then.
_RESTORE_S: Final = 2.0
# So long a stop waits for a disk that does not take the last rows.
_LAST_ROWS_S: Final = 5.0
# While another program holds the ledger, it is asked again so often.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


class Bookkeeping:
    """Everything that counts, from the first request to the last row.

    Attributes:
        accounting: Begins and ends the accounts of requests.
        windows: What the providers say of their own limits.
        pages: What users see of their own use.
        ledger: Keeps one row for each request; None where nothing is kept.
    """

    def __init__(self, config: Config, *, clock: Clock, log: Log) -> None:
        self._config = config
        self._clock = clock
        self._log = log
        path = config.state_dir / LEDGER
        self.windows = ProviderWindows()
        self.pages = OwnPages(self._page, clock)
        self.ledger = (
            Ledger(lambda: SqliteStore(path), log=log, clock=clock, keep_s=config.usage.keep_s)
            if config.usage.enabled
            else None
        )
        self.accounting = Accounting(
            clock=clock,
            log=log,
            limiter=Limiter(clock),
            totals=Totals(listed_name),
            prices=_prices(config),
            ledger=self.ledger,
            audit=self._audit(config.audit),
        )
        self._restoring: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to write, and remember what users have spent; that may end later, but never late."""
        if self.ledger is None:
            return
        await asyncio.to_thread(self.accounting.prices.known)  # read now, not in the first request's time
        self.ledger.start()
        await asyncio.wait({self._restore_soon()}, timeout=_RESTORE_S)

    async def _restore(self) -> None:
        """Let the limiter know what the ledger remembers of everybody who has limits in windows."""
        ledger = self.ledger
        limits = _limits(self._config)
        if ledger is None or not limits:
            return

        async def spent(since_s: float, now_s: float) -> list[Spent]:
            return await asyncio.to_thread(ledger.spent, since_s, now_s)

        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self.accounting.limiter.restore(limits, spent)
            except LedgerError as error:
                if pause_s == _FIRST_PAUSE_S:
                    self._log.error("limits.not_restored", problem=str(error))
                if not error.passing:
                    return
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _restore_soon(self) -> asyncio.Task[None]:
        """Begin to restore; what is asked for later is asked with the limits that hold then."""
        for before in self._restoring:
            before.cancel()
        restoring = asyncio.create_task(self._restore())
        self._restoring.add(restoring)
        restoring.add_done_callback(self._restoring.discard)
        return restoring

    async def go_by(self, config: Config) -> None:
        """Use another configuration from now on; whatever it says, begin the audit log's file anew."""
        had, self._config = _limits(self._config), config
        self.accounting.prices = _prices(config)
        await asyncio.to_thread(self.accounting.prices.known)
        if self.ledger is not None:
            self.ledger.keep_s = config.usage.keep_s
        audit = self.accounting.audit
        if config.audit == (None if audit is None else audit.path):
            if audit is not None:
                audit.reopen()
        else:
            self.accounting.audit = self._audit(config.audit)
            if audit is not None:
                await asyncio.to_thread(audit.close)
        if _limits(config) != had:
            await asyncio.wait({self._restore_soon()}, timeout=_RESTORE_S)  # for windows that are new

    async def close(self) -> None:
        """Write what is left to be written, within limits."""
        for restoring in tuple(self._restoring):
            restoring.cancel()
        if self.ledger is not None:
            await asyncio.to_thread(self.ledger.close, _LAST_ROWS_S)
        if self.accounting.audit is not None:
            await asyncio.to_thread(self.accounting.audit.close)

    def _page(self, user: User) -> Callable[[], bytes]:
        """Take note of what is counted, here on the event loop; the ledger is asked in a thread."""
        return partial(
            page,
            user=user,
            standing=self.accounting.limiter.standing(user.name, user.limits),
            sums=None if self.ledger is None else self.ledger.sums,
            windows=self.windows.shown(self._clock.time()) if self._config.usage.show_windows else None,
            now_s=self._clock.time(),
        )

    def _audit(self, path: Path | None) -> Audit | None:
        return None if path is None else Audit(path, self._log, clock=self._clock)


def _limits(config: Config) -> dict[str, Limits]:
    """Return the limits of everybody who has some in windows, by name."""
    if not config.users:
        return {ANONYMOUS.name: config.limits} if config.limits.rules else {}
    return {user.name: user.limits for user in config.users if user.limits.rules}


def _prices(config: Config) -> Prices:
    return Prices([(own.model, own.per_million) for own in config.usage.prices])
