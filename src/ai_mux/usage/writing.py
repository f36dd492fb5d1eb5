"""What the ledger's thread does, and when: write, wait after a failure, forget.

Rule 1: a row leaves memory when it is kept. What cannot be written now is tried again,
after 1, 2, 4 … 30 s.

Rule 2: whatever goes wrong ends here. It is logged once for each thing that goes wrong until
all is well again, and then how much was kept in memory meanwhile.

Rule 3: what is too old is forgotten a little at a time, between rows that come in.

Rule 4: a clock that is far ahead must not empty the ledger, whether it jumped or was wrong from
the start. A time is believed where the ledger itself bears it out, with requests of the last
day and of the day before; else what is too old by it is forgotten when it has held for a day.
"""

import math
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ai_mux.clock import Clock
from ai_mux.errors import LedgerError
from ai_mux.logs import Log
from ai_mux.usage.page import moment
from ai_mux.usage.store import UsageStore
from ai_mux.usage.tally import Record

# As much as is written in one transaction: some ten milliseconds.
_BATCH_ROWS: Final = 1000
_FIRST_WAIT_S: Final = 1.0
_LAST_WAIT_S: Final = 30.0
# How often rows that make the code fail, and not the disk, are tried before they are given up.
_TRIES_OF_A_BUG: Final = 3
_FORGET_EVERY_S: Final = 3600.0
# Between two small deletions, of which a ledger whose keep was shortened needs thousands.
_FORGET_PAUSE_S: Final = 0.05
# A suspended machine, too, looks like one whose clock has jumped.
_JUMP_S: Final = 3600.0
_DISTRUST_S: Final = 86400.0
# The second day shows that the time is right also where a server with a wrong clock has written
# rows and was started again, as happens when certificates fail.
_DAYS_THAT_TELL: Final = 2


class Writing:
    """Writes a queue of rows to a store. Used by one thread.

    Args:
        queue: Rows are put at its right end, at any time.
        open_store: Returns the store; called again after each failure.
        log: Told what goes wrong, and when it is well again.
        clock: Tells when to try again, and what is too old.
        keep_s: Returns for how long rows are kept.

    Attributes:
        written: How many rows were kept.
        dropped: How many were given up.
        is_open: The store has been written to, or looked at, without a failure.
        is_failing: Rows cannot be written at present.
        distrusts: Whether the store is to be looked through for damage at the next step.
    """

    def __init__(
        self,
        queue: deque[Record],
        open_store: Callable[[], UsageStore],
        *,
        log: Log,
        clock: Clock,
        keep_s: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._open_store = open_store
        self._log = log
        self._clock = clock
        self._keep_s = keep_s
        self._store: UsageStore | None = None
        self._batch: list[Record] = []
        self._bugs = 0
        self._told: set[str] = set()
        self._wait_s = _FIRST_WAIT_S
        self._not_before = self._forget_at = clock.monotonic()
        self._ahead_s = -math.inf  # what the clock said before the start is not known: it may have jumped
        self._forgotten = 0
        self.written = self.dropped = 0
        self.is_open = self.is_failing = self.distrusts = False

    @property
    def in_hand(self) -> int:
        """How many rows were taken from the queue and are not kept yet."""
        return len(self._batch)

    def step(self, *, at_once: bool = False) -> float:
        """Do what is due. Never raises.

        Args:
            at_once: Do not wait after a failure.

        Returns:
            After how many seconds there is something to do again, if no rows come in.
        """
        now = self._clock.monotonic()
        if now < self._not_before and not at_once:
            return self._not_before - now
        try:
            waited = len(self._queue) + len(self._batch)
            if self._store is None:
                self._store = self._open_store()
            self._note_jumps(self._store, now)  # before rows of a wrong time speak for it
            self._write(self._store)
            if self.distrusts:
                self.distrusts = False
                self._store.examine()
            pause_s = self._forget(self._store, now)
        except Exception as exc:  # whatever it is: rows are kept in memory, and requests go on
            self._fail(exc, now)
            return self._not_before - now
        self.is_open = True
        if self.is_failing:
            self.is_failing = False
            self._told.clear()
            self._wait_s = _FIRST_WAIT_S
            self._log.info("ledger.works", rows=waited)
        return pause_s

    def _write(self, store: UsageStore) -> None:
        while True:
            room = _BATCH_ROWS - len(self._batch)
            self._batch += [self._queue.popleft() for _ in range(min(room, len(self._queue)))]
            if not self._batch:
                return
            store.append(self._batch)
            self.written += len(self._batch)
            self._batch = []
            self._bugs = 0

    def _fail(self, exc: Exception, now: float) -> None:
        self.close()
        if isinstance(exc, LedgerError):
            problem = str(exc)
        else:
            problem = f"{type(exc).__name__} at {_place(exc)}"
            self._bugs += 1
            if self._bugs >= _TRIES_OF_A_BUG:
                self._bugs = 0
                self.dropped += len(self._batch)
                self._batch = []
        if problem not in self._told:
            self._told.add(problem)
            self._log.error("ledger.failing", problem=problem, rows=len(self._queue) + len(self._batch))
        self.is_failing = True
        self._not_before = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LAST_WAIT_S)

    def _note_jumps(self, store: UsageStore, now: float) -> None:
        """Put forgetting off where the clock has jumped ahead to a time that nothing bears out."""
        wall_s = self._clock.time()
        ahead_s = wall_s - now
        if ahead_s - self._ahead_s > _JUMP_S and (last_s := _last_before_gap(store, wall_s)) is not None:
            self._forget_at = now + _DISTRUST_S
            if store.last_before(wall_s - self._keep_s()) is not None:
                self._log.warning(
                    "ledger.clock_doubted",
                    problem="the clock is far ahead of the ledger's requests; what is too old by it is "
                    "forgotten in 24 h, unless the clock is set back",
                    clock=moment(wall_s),
                    last_request=moment(last_s),
                )
        # Small steps are how clocks are set right; they must not add up to a jump.
        self._ahead_s = ahead_s

    def _forget(self, store: UsageStore, now: float) -> float:
        """Forget a little of what is too old, where it is time for that; return when it is again."""
        if now >= self._forget_at:
            rows, more = store.forget_before(self._clock.time() - self._keep_s())
            self._forgotten += rows
            self._forget_at = now + (_FORGET_PAUSE_S if more else _FORGET_EVERY_S)
            if not more:
                self._tell_forgotten()
        return self._forget_at - now

    def _tell_forgotten(self) -> None:
        """Log what was forgotten, once for all the steps that it took."""
        if self._forgotten:
            before_s = self._clock.time() - self._keep_s()
            self._log.info("ledger.forgotten", rows=self._forgotten, before=moment(before_s))
            self._forgotten = 0

    def close(self) -> None:
        """Let go of the store. The next step opens it again."""
        self._tell_forgotten()
        store, self._store = self._store, None
        if store is not None:
            store.close()


def _last_before_gap(store: UsageStore, wall_s: float) -> float | None:
    """Return when the last request was, before a day without any that the time would have left behind it.

    None where there is no such day: each of the last ones has requests, or none are older.
    """
    for day in range(_DAYS_THAT_TELL):
        end_s = wall_s - day * _DISTRUST_S
        last_s = store.last_before(end_s)
        if last_s is not None and last_s < end_s - _DISTRUST_S:
            return last_s
    return None


def _place(exc: BaseException) -> str:
    """Return where an error came from: file and line, nothing that was in them."""
    frames = traceback.extract_tb(exc.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
