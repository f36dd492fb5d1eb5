"""The ledger: one row for each request, kept by a thread of its own.

Rule 1: ``put`` never waits and never raises. A full or locked disk costs memory, up to
a bound, and then the newest rows; it never costs a request anything.

Rule 2: rows gather for a quarter of a second and are written at once; an idle ledger
sleeps. After SIGKILL what is missing is what was gathering.

Rule 3: whoever reads does so over a store of their own, so that a long report holds
nobody up, and first has written what was put before they asked.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from ai_mux.clock import Clock
from ai_mux.errors import LedgerError
from ai_mux.logs import Log
from ai_mux.usage.store import Group, Query, Spent, UsageStore
from ai_mux.usage.tally import Record
from ai_mux.usage.writing import Writing

# A minute and more of a busy server's requests. A row takes some 660 bytes of memory, so that
# an outage costs 43 MB at most (names of usual length).
QUEUE_ROWS: Final = 65_536
_GATHER_S: Final = 0.25
# How long a reader waits for what was put before. Longer than a disk's hiccup, and
# shorter than a person's patience.
_READER_WAITS_S: Final = 2.0
# As long does the thread do one thing only where a disk hangs, or a large ledger is being brought
# up to date; what SQLite waits for others, and a full queue, are done with in a tenth of that.
_HANGS_S: Final = 10.0
# Between two tries while the program waits to end.
_LAST_TRIES_S: Final = 0.25

T = TypeVar("T")


class Ledger:
    """Keeps what was used.

    Args:
        open_store: Returns the storage, not opened yet.
        log: Told what the operator must mend, once for each outage.
        clock: What time it is for retries, and for what is too old.
        keep_s: For how long a row is kept, in seconds.

    Attributes:
        keep_s: The same; may be changed at any time.
        queued: How many rows wait in memory.
        written: How many were kept since the start.
        dropped: How many were lost since the start.
        is_failing: Rows cannot be written at present: it was tried, or it is being tried for
            more than 10 seconds.
    """

    def __init__(
        self, open_store: Callable[[], UsageStore], *, log: Log, clock: Clock, keep_s: float
    ) -> None:
        self.keep_s = keep_s
        self._open_store = open_store
        self._log = log
        self._clock = clock
        self._queue: deque[Record] = deque()
        self._writing = Writing(self._queue, open_store, log=log, clock=clock, keep_s=lambda: self.keep_s)
        self._accepted = 0
        self._refused = 0
        self._is_full = False
        self._cannot_be_read = False
        self._idle = False
        self._busy_since: float | None = None
        self._closing = self._closed = False
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ai-mux-ledger", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    # For the event loop

    def put(self, record: Record) -> None:
        """Queue a row, or drop it where there is no room. Never waits, never raises."""
        if len(self._queue) >= QUEUE_ROWS or self._closing:
            self._drop()
            return
        self._accepted += 1
        self._queue.append(record)
        if self._idle:
            self._idle = False
            self._work.set()

    def _drop(self) -> None:
        self._refused += 1
        if not self._is_full and not self._closing:
            self._is_full = True
            self._log.error("ledger.full", rows=QUEUE_ROWS)

    # For whoever watches; read from any thread

    @property
    def queued(self) -> int:
        """How many rows wait in memory."""
        return len(self._queue) + self._writing.in_hand

    @property
    def written(self) -> int:
        """How many rows were kept since the start."""
        return self._writing.written

    @property
    def dropped(self) -> int:
        """How many rows were lost since the start."""
        return self._refused + self._writing.dropped

    @property
    def is_failing(self) -> bool:
        """Rows cannot be written at present: it was tried, or it is being tried for long."""
        since = self._busy_since
        return self._writing.is_failing or (since is not None and self._clock.monotonic() - since > _HANGS_S)

    # For readers, in threads of theirs

    def sums(self, query: Query) -> list[Group]:
        """Return the sums of what was used, ordered by key. Blocks.

        Raises:
            LedgerError: The ledger cannot be read. The log has told the operator.
        """
        return self._read(lambda store: store.sums(query))

    def spent(self, since_s: float, now_s: float) -> list[Spent]:
        """Return what users spent from one time to another, in stretches. Blocks.

        Raises:
            LedgerError: The ledger cannot be read. The log has told the operator.
        """
        return self._read(lambda store: store.spent(since_s, now_s))

    def _read(self, ask: Callable[[UsageStore], T]) -> T:
        self._flush()
        store = self._open_store()
        try:
            answer = ask(store)
        except LedgerError as error:
            if not error.passing:
                self._writing.distrusts = True  # who writes sees only the newest pages
                self._work.set()
            if not self._cannot_be_read:
                self._cannot_be_read = True
                self._log.error("ledger.unreadable", problem=str(error))
            raise
        finally:
            store.close()
        self._cannot_be_read = False
        return answer

    def _flush(self) -> None:
        """Wait until what was put before is written, or cannot be, but not for long."""
        writing, accepted = self._writing, self._accepted
        self._hurry.set()
        self._work.set()
        with self._progress:
            self._progress.wait_for(
                lambda: (
                    (writing.is_open and writing.written + writing.dropped >= accepted)
                    or writing.is_failing
                    or self._closed
                ),
                _READER_WAITS_S if self._thread.is_alive() else 0,
            )

    # The thread

    def _run(self) -> None:
        while not self._closing:
            pause_s = self._step()
            if not self._queue and not self._writing.in_hand:
                self._is_full = False
                self._idle = True
                # What was put before ``_idle`` was set has not woken anybody.
                called = bool(self._queue) or self._work.wait(pause_s)
                self._work.clear()
                self._idle = False
                pause_s = _GATHER_S if called else 0
            self._hurry.wait(min(pause_s, _GATHER_S))
            self._hurry.clear()
        while not self._closed:
            self._step(at_once=True)
            if not self.queued:
                break
            self._hurry.wait(_LAST_TRIES_S)
        self._writing.close()

    def _step(self, *, at_once: bool = False) -> float:
        self._busy_since = self._clock.monotonic()
        pause_s = self._writing.step(at_once=at_once)
        self._busy_since = None
        with self._progress:
            self._progress.notify_all()
        return pause_s

    # The end

    def close(self, timeout_s: float) -> None:
        """Write what is queued and let go of the storage; what takes longer is lost, and logged. Blocks."""
        self._closing = True
        self._hurry.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._closed = True
        lost = self.queued
        if lost:
            self._log.error("ledger.lost", rows=lost)
