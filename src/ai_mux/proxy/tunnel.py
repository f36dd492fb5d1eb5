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

Rule 6: what is said is for the ``Conversation`` to follow. It may keep a client's bytes,
and end the tunnel; what the provider sends it sees once that has passed.
"""

from collections.abc import Generator
from contextlib import suppress
from types import coroutine
from typing import Final

from ai_mux.clock import Clock
from ai_mux.logs import Outcome
from ai_mux.proxy.tunnel_ends import STALL_S, ClientEnd, Conversation, End, Owner, ProviderEnd
from ai_mux.proxy.turn import Waiter
from ai_mux.wire.websocket import GOING_AWAY, POLICY_VIOLATION

# Codex keeps a connection for 60 minutes and may be silent on it.
IDLE_S: Final = 65 * 60.0


class Tunnel:
    """A WebSocket, from the 101 to its end.

    Attributes:
        client: The client's end.
        upstream: The provider's end.
        conversation: What is said in it.
        has_ended: It has ended.
        outcome: How it ended, once it has: ``left`` or ``cut`` without an end that an endpoint
            would take for one, ``refused`` where the client was told why.
    """

    __slots__ = (
        "_clock",
        "_passed",
        "_quiet_since",
        "_waiter",
        "client",
        "conversation",
        "has_ended",
        "outcome",
        "upstream",
    )

    def __init__(self, client: Owner, upstream: Owner, clock: Clock, conversation: Conversation) -> None:
        self._clock = clock
        self.conversation = conversation
        self.has_ended = False
        self._waiter: Waiter | None = None
        self._passed = 0
        self._quiet_since = clock.monotonic()
        self.outcome: Outcome = "done"
        self.client = ClientEnd(self, client)
        self.upstream = ProviderEnd(self, upstream)

    def open(self, head: bytes, *, from_client: bytes, from_upstream: bytes) -> None:
        """Begin: our version of the 101, and what either side has sent already."""
        self.client.join(self.upstream)
        self.upstream.join(self.client)
        self.client.transport.write(head + from_upstream)
        self.upstream.look_at(from_upstream)
        if from_client and not self.has_ended:
            self.client.data_received(from_client)

    @coroutine
    def ended(self) -> Generator[Waiter, None, None]:
        """Wait for the end. Both connections belong to their owners again then, to be closed."""
        if not self.has_ended:
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
        if self.has_ended:
            return
        told_upstream = self.upstream.say_goodbye(GOING_AWAY, masked=True)
        told_client = self.client.say_goodbye(GOING_AWAY, masked=False)
        if not told_upstream:
            self.upstream.transport.abort()
        self.finish("done" if told_client else "cut")

    def refuse(self, event: bytes) -> None:
        """End it, and tell the client why with this event. Of what it asked for nothing more is passed on."""
        if self.has_ended:
            return
        if not self.upstream.say_goodbye(GOING_AWAY, masked=True):
            self.upstream.transport.abort()
        told = self.client.say_goodbye(POLICY_VIOLATION, masked=False, event=event)
        self.finish("refused" if told else "cut")

    def finish(self, outcome: Outcome) -> None:
        """Let go of both connections, and let the exchange close them. Does nothing the second time."""
        if self.has_ended:
            return
        self.has_ended = True
        self.outcome = outcome
        is_client_gone = self.client.has_ended or self.client.frames.closed
        cut_off: Outcome = outcome if outcome != "done" else "left" if is_client_gone else "cut"
        self.conversation.close(cut_off, self.upstream.passed)
        self.client.hand_back()
        self.upstream.hand_back()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()
