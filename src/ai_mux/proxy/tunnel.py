"""A WebSocket between a client and a provider: two connections, each the other's sink.

Rule 1: bytes pass as they come, in both directions; neither side is read faster than
the other takes.

Rule 2: the end of one direction is told to the other side, where its transport can
say it (TCP can, TLS cannot); the end of a connection ends the tunnel.

Rule 3: a frame of ours, the Close of an orderly end, is sent only between two frames.
Where we stand inside one the connection is cut, which no endpoint takes for an end.

Rule 4: every silence ends: 65 minutes on both sides, 60 seconds of a side that takes
nothing of what waits for it, 60 seconds once one side has said that it sends no more.

Rule 5: each message of a client is a request. Whoever lost the right to ask while a
tunnel was open gets the response that runs, and no other.
"""

import asyncio
from collections.abc import Generator
from contextlib import suppress
from types import coroutine
from typing import Final, Protocol

from ai_mux.clock import Clock
from ai_mux.logs import Outcome
from ai_mux.proxy.backlog import Backlog
from ai_mux.proxy.receiving import CRUMBS, Receiver
from ai_mux.proxy.turn import Waiter
from ai_mux.wire.websocket import GOING_AWAY, Frames, close_frame

# Codex keeps a connection for 60 minutes and may be silent on it.
IDLE_S: Final = 65 * 60.0
STALL_S: Final = 60.0


class Owner(Protocol):
    """Who had a connection before the tunnel, and has it again for its end."""

    transport: asyncio.Transport

    @property
    def write_paused(self) -> bool:
        """It does not keep up with what was written to it."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""


class End(Receiver):
    """One of a tunnel's two connections.

    Attributes:
        may_ask: It may begin messages. A frame or message that it has begun it may end, and it
            may answer a ping.
        transport: Its transport.
        frames: Follows what it sends.
        passed: Bytes that it has sent.
        has_ended: It will send nothing more.
        write_paused: It does not keep up with what is written to it.
    """

    __slots__ = (
        "_backlog",
        "_owner",
        "_peer",
        "_read_paused",
        "_tunnel",
        "frames",
        "has_ended",
        "may_ask",
        "passed",
        "transport",
        "write_paused",
    )

    _peer: "End"

    def __init__(self, tunnel: "Tunnel", owner: Owner) -> None:
        self._tunnel = tunnel
        self._owner = owner
        self._read_paused = False
        self.transport = owner.transport
        self.write_paused = owner.write_paused
        self._backlog = Backlog()
        self._backlog.begin(self.transport, tunnel.now())
        self.frames = Frames()
        self.may_ask = True
        self.passed = 0
        self.has_ended = False

    def join(self, peer: "End") -> None:
        """Send what comes here to ``peer``."""
        self._peer = peer
        self.transport.set_protocol(self)
        if peer.write_paused:
            self._pause_reading()

    def hand_back(self) -> None:
        """Let the owner have its connection again."""
        self._resume_reading()
        self.transport.set_protocol(self._owner)  # type: ignore[arg-type] # it is a protocol as well

    # What the transport says

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; where a message begins in them that may not, the tunnel ends."""
        size = self.frames.feed(data, may_begin=self.may_ask)
        self.passed += size
        if size == len(data):
            self._peer.transport.write(data)
            if self.frames.met > CRUMBS:
                self._breathe()
        else:
            self._peer.transport.write(data[:size])
            self._tunnel.end()

    def eof_received(self) -> bool:
        """Tell the other side that nothing more will come; keep open what can be half open."""
        self.has_ended = True
        if not self.transport.can_write_eof():
            return False  # TLS: the transport closes itself, and ``connection_lost`` follows
        self._tunnel.half_closed(self, self._peer)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End the tunnel. Whoever has sent a Close frame has ended in order, however its connection ends."""
        self._tunnel.lost(self, broken=exc is not None and not self.frames.closed)
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Read no more from the other side."""
        self.write_paused = True
        self._backlog.begin(self.transport, self._tunnel.now())
        self._peer._pause_reading()

    def resume_writing(self) -> None:
        """Read on from the other side."""
        self.write_paused = False
        self._peer._resume_reading()

    def _breathe(self) -> None:
        """Let everyone else have a turn of the loop, which reads on from one connection as long as it can."""
        self._pause_reading()
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._peer.write_paused:
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    def has_stalled(self, now: float) -> bool:
        """Tell whether this side is behind and has taken nothing for too long."""
        return self.write_paused and self._backlog.quiet_s(self.transport, now) >= STALL_S

    def say_goodbye(self, *, masked: bool) -> bool:
        """Send a Close frame to this side, and tell whether that was possible."""
        towards = self._peer.frames
        if not towards.between or self._peer.has_ended or self.transport.is_closing():
            return False
        if not towards.closed:
            self.transport.write(close_frame(GOING_AWAY, masked=masked))
        return True


class Tunnel:
    """A WebSocket, from the 101 to its end.

    Attributes:
        client: The client's end.
        upstream: The provider's end.
        outcome: How it ended, once it has: ``left`` or ``cut`` without an end that an endpoint
            would take for one.
    """

    __slots__ = ("_clock", "_ended", "_passed", "_quiet_since", "_waiter", "client", "outcome", "upstream")

    def __init__(self, client: Owner, upstream: Owner, clock: Clock) -> None:
        self._clock = clock
        self._ended = False
        self._waiter: Waiter | None = None
        self._passed = 0
        self._quiet_since = clock.monotonic()
        self.outcome: Outcome = "done"
        self.client = End(self, client)
        self.upstream = End(self, upstream)

    def open(self, head: bytes, *, from_client: bytes, from_upstream: bytes) -> None:
        """Begin: our version of the 101, and what either side has sent already."""
        self.client.join(self.upstream)
        self.upstream.join(self.client)
        self.client.transport.write(head + from_upstream)
        self.upstream.passed += len(from_upstream)
        self.upstream.frames.feed(from_upstream)
        if from_client:
            self.client.data_received(from_client)

    @coroutine
    def ended(self) -> Generator[Waiter, None, None]:
        """Wait for the end. Both connections belong to their owners again then, to be closed."""
        if not self._ended:
            self._waiter = waiter = Waiter()
            yield waiter

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return self._clock.monotonic()

    # Ending

    def half_closed(self, end: End, peer: End) -> None:
        """One side sends nothing more: tell the other, or end where that cannot be said or both have."""
        if peer.has_ended or not peer.transport.can_write_eof():
            self.finish("done")
        else:
            self._quiet_since = self.now()  # the shorter patience begins here
            with suppress(OSError):  # it has just gone, and ``connection_lost`` follows
                peer.transport.write_eof()

    def lost(self, end: End, *, broken: bool) -> None:
        """Learn that one side's connection is gone."""
        self.finish("done" if not broken else "left" if end is self.client else "cut")

    def sweep(self, now: float) -> None:
        """Look at the deadlines, about once a second."""
        passed = self.client.passed + self.upstream.passed
        if passed != self._passed:
            self._passed = passed
            self._quiet_since = now
        patience_s = STALL_S if self.client.has_ended or self.upstream.has_ended else IDLE_S
        if self.client.has_stalled(now) or self.upstream.has_stalled(now):
            self.upstream.transport.abort()  # what it did not take it would not take now
            self.finish("cut")
        elif self.client.write_paused or self.upstream.write_paused:
            self._quiet_since = now  # what waits for a side that is behind is no silence
        elif now - self._quiet_since >= patience_s:
            self.end()

    def end(self) -> None:
        """End in order where that is possible: a Close frame to each side, else cut."""
        if self._ended:
            return
        told_upstream = self.upstream.say_goodbye(masked=True)
        told_client = self.client.say_goodbye(masked=False)
        if not told_upstream:
            self.upstream.transport.abort()
        self.finish("done" if told_client else "cut")

    def finish(self, outcome: Outcome) -> None:
        """Let go of both connections, and let the exchange close them. Does nothing the second time."""
        if self._ended:
            return
        self._ended = True
        self.outcome = outcome
        self.client.hand_back()
        self.upstream.hand_back()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()
