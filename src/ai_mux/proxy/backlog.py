"""What waits for a side that does not keep up: has it stalled, or is it only slow?"""

import asyncio


class Backlog:
    """Watches a transport's write buffer while writing to it is paused.

    Whoever takes a byte now and then is slow, and waited for.
    """

    __slots__ = ("_quiet_since", "_unwritten")

    def __init__(self) -> None:
        self._quiet_since = 0.0
        self._unwritten = 0

    def begin(self, transport: asyncio.WriteTransport, now: float) -> None:
        """Begin to watch, at ``now`` in monotonic seconds."""
        self._quiet_since = now
        self._unwritten = transport.get_write_buffer_size()

    def quiet_s(self, transport: asyncio.WriteTransport, now: float) -> float:
        """Return for how many seconds nothing was taken; ask about once a second."""
        unwritten = transport.get_write_buffer_size()
        if unwritten < self._unwritten:
            self._quiet_since = now
        self._unwritten = unwritten
        return now - self._quiet_since
