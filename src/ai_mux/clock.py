"""Time is passed in, so that tests never sleep."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where the program reads the time."""

    def time(self) -> float:
        """Return the wall clock: seconds since 1970-01-01 UTC. It may jump."""

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations and deadlines."""


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self.time = time.time
        self.monotonic = time.monotonic
