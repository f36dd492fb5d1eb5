"""Writes log lines from a thread of its own, so that nobody waits for whoever reads them.

Rule 1: ``put`` never waits for the descriptor. A full pipe, a stopped terminal or
a slow disk costs lines, not the event loop's time.

Rule 2: lines are dropped whole and newest first, and how many were dropped is
said as soon as something can be written again.

Rule 3: an idle writer sleeps. The first line wakes it, then it lets lines gather
and writes them at once: at most twenty wake-ups a second, however many lines.
"""

import atexit
import os
import select
import threading
from collections.abc import Callable
from typing import Final, Protocol

# As much as a busy proxy logs in about a second; with it, the log cannot grow
# beyond that much memory, whatever becomes of its reader.
QUEUE_BYTES: Final = 1024 * 1024
# Short enough for a person who watches, long enough to write many lines at once.
_GATHER_S: Final = 0.05
# Do not let lines gather beyond this: a burst should find room.
_GATHERED_BYTES: Final = QUEUE_BYTES // 4
# How long the end of the program waits for a reader that does not read.
_FLUSH_S: Final = 2.0
_POLL_MS: Final = 1000


class Write(Protocol):
    """Where lines go, such as ``os.write`` on a descriptor. Called from the writer's thread only."""

    def __call__(self, data: bytes, /) -> int:
        """Write some of ``data``, waiting if need be, and return how many bytes; raise OSError."""


def to_descriptor(fd: int) -> Write:
    """Return a ``Write`` to a descriptor, which may be a non-blocking one."""

    def write(data: bytes, /) -> int:
        while True:
            try:
                return os.write(fd, data)
            except BlockingIOError:
                # Whoever shares the terminal or pipe with us has made it non-blocking.
                poll = select.poll()
                poll.register(fd, select.POLLOUT)
                poll.poll(_POLL_MS)

    return write


class Writer:
    """A queue of lines and the thread that empties it.

    Args:
        write: Where lines go.
        dropped: Renders the line that says how many lines were dropped.
        ended: Called last of all, in the thread: whatever ``write`` needs can be let go.
        name: The thread's.
    """

    def __init__(
        self,
        write: Write,
        *,
        dropped: Callable[[int], bytes],
        ended: Callable[[], None] | None = None,
        name: str = "ai-mux-log",
    ) -> None:
        self._write = write
        self._dropped_line = dropped
        self._ended = ended
        # Reentrant: a line may be logged by a finalizer, and the garbage collector
        # may run that finalizer in the middle of another line's ``put``.
        self._lock = threading.RLock()
        self._lines: list[bytes] = []
        self._acts: list[tuple[int, Callable[[], None]]] = []  # each with how many lines come before it
        self._size = 0  # bytes in the queue and in the batch that is being written
        self._dropped = 0
        self._torn = False  # the last thing written was the first part of a line
        self._closed = False
        self._idle = True
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        atexit.register(self.close)

    # For everyone

    def put(self, line: bytes) -> None:
        """Queue a line that ends in a newline, or drop it if there is no room. Never waits, never raises."""
        with self._lock:
            size = self._size + len(line)
            if size > QUEUE_BYTES or self._closed:
                self._dropped += 1
                return
            self._size = size
            self._lines.append(line)
            if self._idle:
                self._idle = False
                self._work.set()
            elif size > _GATHERED_BYTES and not self._hurry.is_set():
                self._hurry.set()

    def between(self, act: Callable[[], None]) -> None:
        """Have ``act`` done in the thread: after the lines queued so far, before all later ones.

        It is done at once, without letting lines gather. Never waits; after ``close`` nothing is done.

        Args:
            act: Must not raise.
        """
        with self._lock:
            if self._closed:
                return
            self._acts.append((len(self._lines), act))
            self._idle = False
            self._hurry.set()
            self._work.set()

    def close(self) -> None:
        """Write what is queued, for at most two seconds, and end the thread. Later lines are dropped."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        self._hurry.set()
        self._work.set()
        # A thread that still waits for its reader is a daemon, and ends with the process.
        self._thread.join(_FLUSH_S)

    # In the thread

    def _run(self) -> None:
        while True:
            self._work.wait()
            if not self._closed:
                self._hurry.wait(_GATHER_S)
            with self._lock:
                lines, self._lines = self._lines, []
                acts, self._acts = self._acts, []
                if not lines and not acts:
                    if self._closed:
                        break
                    self._idle = True
                    self._work.clear()
                self._hurry.clear()
            done = 0
            for before, act in acts:
                self._deliver(b"".join(lines[done:before]))
                act()
                done = before
            self._deliver(b"".join(lines[done:]))
        self._report()
        if self._ended is not None:
            self._ended()

    def _deliver(self, batch: bytes) -> None:
        if not batch:
            return
        lost = self._lines_lost(batch)
        with self._lock:
            self._size -= len(batch)
            self._dropped += lost
        if not lost:
            self._report()

    def _report(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped and self._lines_lost(self._dropped_line(dropped)):
            with self._lock:
                self._dropped += dropped

    def _lines_lost(self, data: bytes) -> int:
        """Write ``data`` and return how many of its lines could not be written whole."""
        # After a line that was cut off, a newline keeps the next one readable.
        sent = 0 if self._torn else 1
        data = b"\n" + data
        try:
            while sent < len(data):
                sent += self._write(data[sent:])
        except (OSError, ValueError):
            # A full disk may have room again, a closed pipe never. Either way the
            # program goes on, and the next lines are tried again.
            self._torn = data[sent - 1 : sent] != b"\n" if sent else True
            return data.count(b"\n", max(sent, 1))
        self._torn = False
        return 0
