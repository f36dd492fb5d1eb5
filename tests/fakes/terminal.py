"""A terminal with a program on it, as a person has."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_LIMIT_S = 30

# In the program's own process, before it: a preexec_fn would fork a process that may have threads.
_TAKE = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """Runs a program on a terminal of its own, which is its controlling one: Ctrl-C is a signal there."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self.shown = ""
        self._ours, theirs = pty.openpty()
        try:
            self.program = subprocess.Popen(
                [sys.executable, "-c", _TAKE, *command], cwd=cwd, env=dict(env),
                stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(theirs)

    def until(self, text: str) -> None:
        """Read until a text was shown."""
        until = time.monotonic() + _LIMIT_S
        while text not in self.shown:
            assert time.monotonic() < until, self.shown
            assert self._read(0.1) or self.program.poll() is None, self.shown

    def type(self, text: str) -> None:
        """Type, as on the keyboard."""
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Read to the end and return the exit code."""
        until = time.monotonic() + _LIMIT_S
        while self.program.poll() is None:
            assert time.monotonic() < until, self.shown
            self._read(0.1)
        while self._read(0):
            pass
        return self.program.returncode

    def close(self) -> None:
        """Hang up, and end the program if it is still there."""
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self._ours)

    def _read(self, wait_s: float) -> bool:
        if not select.select([self._ours], [], [], wait_s)[0]:
            return False
        try:
            got = os.read(self._ours, 65536)
        except OSError:  # EIO: nobody has the other side open any more (pty(7))
            return False
        self.shown += got.decode(errors="replace").replace("\r\n", "\n")
        return bool(got)
