"""The audit log: one JSON line for each request, in a file of its own.

Rule 1: whoever enters a line neither waits nor fails. A full disk costs lines, and
how many it cost stands in the file as soon as something can be written again.

Rule 2: lines entered before ``reopen`` go to the old file, later ones to the new,
each to exactly one. So a file may be renamed at any time, and then reopened (logrotate).

Rule 3: while a new file cannot be opened, the old one is written on. A line in the
wrong file can be found; one that was never written cannot.

Rule 4: the file is 0600 where it is made here. The mode of one that is there is its owner's choice.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ai_mux.clock import Clock, SystemClock
from ai_mux.logs.log import Log
from ai_mux.logs.values import plain
from ai_mux.logs.writer import Writer, to_descriptor

# O_NONBLOCK: the opening of a pipe without a reader fails instead of waiting for one.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
# Ten times what a request's line takes with the longest path that is kept. A longer one has its values cut.
_LONGEST_LINE: Final = 8192


class Audit:
    """Where the end of each request is entered.

    Args:
        path: The file. Its directory must exist; where it does not, the log says so and lines are lost.
        log: Told of what cannot be written, once for each outage.
        clock: What the time of each line is read from; the machine's unless said otherwise.
    """

    def __init__(self, path: Path, log: Log, *, clock: Clock | None = None) -> None:
        self.path = path
        self._log = log
        self._time = (clock or SystemClock()).time
        self._second: tuple[int, str] = (-1, "")  # the second that was rendered last, and its text
        # All below is the thread's alone.
        self._fd = -1
        self._due = False  # the file could not be opened: try again before the next batch
        self._midway = False  # a batch has been written in part
        self._fresh = False  # nothing has been written since the file was opened
        self._problem: str | None = None  # that the log was told of last
        self._writer = Writer(self._write, dropped=self._dropped, ended=self._let_go, name="ai-mux-audit")
        self._writer.between(self._open)

    # For everyone

    def put(self, fields: Mapping[str, object]) -> None:
        """Enter a line with these fields behind ``ts``, the time in UTC. Never waits, never raises."""
        self._writer.put(self._line(fields))

    def reopen(self) -> None:
        """Begin to write to whatever has the file's name now; make it if it is gone. Never waits."""
        self._writer.between(self._open)

    def close(self) -> None:
        """Write what is queued, and close the file; wait two seconds at most. Later lines are lost."""
        self._writer.close()

    # What a line is

    def _line(self, fields: Mapping[str, object]) -> bytes:
        shown = self._body(fields)
        return f'{{"ts":"{self._now()}"{"," if len(shown) > len("{}") else ""}{shown[1:]}\n'.encode("ascii")

    def _body(self, fields: Mapping[str, object]) -> str:
        try:
            body = _ENCODE(fields)
            if len(body) <= _LONGEST_LINE and "ts" not in fields:
                return body
        except (TypeError, ValueError, RecursionError):
            pass  # something in it that JSON has no form for
        return _ENCODE(plain({"ts_" if name == "ts" else name: value for name, value in fields.items()}))

    def _now(self) -> str:
        """Return RFC 3339 in UTC, to the millisecond."""
        now_s = self._time()
        second = int(now_s)
        known = self._second
        if known[0] != second:
            known = self._second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
        return f"{known[1]}.{int((now_s - second) * 1000):03d}Z"

    # In the thread

    def _open(self) -> None:
        try:
            fd = os.open(self.path, _FLAGS, 0o600)
        except OSError as exc:
            self._due = True
            kept = "lines are lost" if self._fd < 0 else "lines go on into the file that was open"
            self._tell(f"cannot be opened ({exc.strerror}); {kept}")
            return
        self._let_go()
        self._fd = fd
        self._due, self._midway, self._fresh = False, False, True
        self._end_torn_line()

    def _end_torn_line(self) -> None:
        """Let no line continue the one that a crash or a full disk has left without its end."""
        try:
            found = os.fstat(self._fd)
            if stat.S_ISREG(found.st_mode) and found.st_size:
                with self.path.open("rb") as file:
                    file.seek(-1, os.SEEK_END)
                    if file.read() != b"\n":
                        os.write(self._fd, b"\n")
        except OSError:
            self._fresh = False  # it cannot be read, or is full: what is known of its end is what we wrote

    def _write(self, data: bytes, /) -> int:
        if self._due and not self._midway:
            self._open()
        if self._fd < 0:
            raise OSError(errno.EBADF, "not open")
        if self._fresh and data.startswith(b"\n"):
            return 1  # the end of a torn line of the file before
        try:
            sent = to_descriptor(self._fd)(data)
        except OSError as exc:
            self._midway = False
            self._tell(f"cannot be written ({exc.strerror}); lines are lost")
            raise
        self._midway, self._fresh = sent < len(data), False
        if self._problem is not None and not self._due:
            self._problem = None
            self._log.info("audit.written_again", path=str(self.path))
        return sent

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._log.error("audit.failed", path=str(self.path), problem=problem)

    def _dropped(self, count: int) -> bytes:
        self._log.error("audit.dropped", path=str(self.path), lines=count)
        return self._line({"dropped": count})

    def _let_go(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            except OSError as exc:  # a file server may say only now that it kept nothing
                self._tell(f"was not kept ({exc.strerror}); lines are lost")
