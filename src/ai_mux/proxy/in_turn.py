"""Long work of many connections, in short steps: one step in each turn of the event loop.

So whoever has nothing to do with it waits for one step, however many connections have more to
do. Each of these waits for the others: they go on in turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class InTurn:
    """The steps that are still to be done."""

    __slots__ = ("_loop", "_steps")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._steps: deque[Callable[[], None]] = deque()

    def add(self, step: Callable[[], None]) -> None:
        """Do a step once it has its turn. It may add another."""
        self._steps.append(step)
        if len(self._steps) == 1:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        step = self._steps[0]
        try:
            step()
        finally:  # not before: what it adds must not begin a second series
            self._steps.popleft()
            if self._steps:
                self._loop.call_soon(self._next)
