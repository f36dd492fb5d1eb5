"""Processes: started on a core of their own, measured, and gone when we are.

CPU time is the process clock of POSIX (``clock_getcpuclockid``): what /proc/PID/stat
calls utime + stime, of all threads, ended ones too, but in nanoseconds where that
counts in hundredths of a second. Linux only.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_START_S: Final = 20
_STOP_S: Final = 10


class NotStarted(Exception):
    """A program of the benchmark did not open its port; the message has the end of its output."""


class Process:
    """A running child with all its descendants.

    Attributes:
        started_s: Seconds from the start of the program until its port accepted.
    """

    def __init__(self, child: "subprocess.Popen[bytes]", started_s: float) -> None:
        self._child = child
        self.started_s = started_s

    def cpu_ns(self) -> int:
        """Return the CPU time, in nanoseconds, that the processes have taken so far."""
        return sum(time.clock_gettime_ns(_cpu_clock(pid)) for pid in self._pids())

    def rss_bytes(self) -> int:
        """Return the resident memory of all processes; what they share counts in each."""
        return sum(_memory(pid, "Rss") for pid in self._pids())

    def pss_bytes(self) -> int:
        """Return the resident memory of all processes; what they share counts once."""
        return sum(_memory(pid, "Pss") for pid in self._pids())

    def descriptor_limit(self) -> int:
        """Return how many descriptors the main process may ever open."""
        limits = Path(f"/proc/{self._child.pid}/limits").read_text()
        return int(limits.split("Max open files", 1)[1].split()[1])

    def _pids(self) -> list[int]:
        return [self._child.pid, *_descendants(self._child.pid)]

    def stop(self) -> None:
        """End the processes, by their ids; forcibly when they do not go by themselves."""
        pids = self._pids()
        self._child.terminate()
        try:
            self._child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._child.wait()


@contextmanager
def running(
    command: Sequence[str], *, port: int, core: int, log: Path, environment: Mapping[str, str]
) -> Iterator[Process]:
    """Run ``command`` on ``core``, from when ``port`` accepts to the end of the block.

    Its output goes to ``log``. Raises NotStarted.
    """
    with log.open("wb") as output, on_core(core):
        began = time.perf_counter()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(environment)
        )
    process = Process(child, 0.0)
    try:
        while not _accepts(port):
            if child.poll() is not None or time.perf_counter() - began > _START_S:
                raise NotStarted(f"{' '.join(command)}\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.002)
        process.started_s = time.perf_counter() - began
        yield process
    finally:
        process.stop()


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Start children on ``core``: they inherit ours, so that none of their threads was ever elsewhere."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return an unused loopback port, below those that outgoing connections are given."""
    for port in range(20000 + os.getpid() % 8000, 32000):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise OSError("no free port between 20000 and 32000")


_given: set[int] = set()


def _cpu_clock(pid: int) -> int:
    # clock_getcpuclockid(3) for Linux, which Python does not wrap: the
    # complement of the pid, and 2 for the scheduler's own count.
    return (~pid << 3) | 2


def _descendants(pid: int) -> list[int]:
    # /proc/PID/task/TID/children would be simpler, but not every kernel is built with it.
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(directory.name))
    found = list(children.get(pid, ()))
    for child in found:
        found += children.get(child, ())
    return found


def _memory(pid: int, name: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
