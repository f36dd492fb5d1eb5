"""A tunnel's two connections: each passes on what comes to the other.

The rules stand in ``tunnel``. Here the bytes are moved, and neither side is read faster than
the other takes.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from ai_mux.logs import Outcome
from ai_mux.proxy.backlog import Backlog
from ai_mux.proxy.receiving import CRUMBS, Receiver
from ai_mux.users import User
from ai_mux.wire.messages import EventFrames, text_frame
from ai_mux.wire.websocket import Frames, close_frame

if TYPE_CHECKING:
    from ai_mux.proxy.tunnel import Tunnel

STALL_S: Final = 60.0


class Owner(Protocol):
    """Who had a connection before the tunnel, and has it again for its end."""

    transport: asyncio.Transport

    @property
    def write_paused(self) -> bool:
        """It does not keep up with what was written to it."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""


class Conversation(Protocol):
    """What is said in a tunnel: ``proxy.conversation.Conversation``."""

    user: User

    @property
    def refusal(self) -> bytes | None:
        """The event that tells the client why the tunnel must end; None while it may go on."""

    def said(self, data: bytes, *, may_ask: bool) -> tuple[bytes, bytes]:
        """Return what of the client's bytes may pass now, and what is to be said again in the next turn."""

    def heard(self, messages: Sequence[bytes], passed: int) -> None:
        """Take note of the provider's messages, and of how many bytes it has sent in all."""

    def close(self, outcome: Outcome, passed: int) -> None:
        """Note how the tunnel has ended for a response that ran, and how many bytes the provider has sent."""


class End(Receiver):
    """One of a tunnel's two connections.

    Attributes:
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
        "passed",
        "transport",
        "write_paused",
    )

    _peer: "End"

    def __init__(self, tunnel: "Tunnel", owner: Owner, frames: Frames) -> None:
        self._tunnel = tunnel
        self._owner = owner
        self._read_paused = False
        self.transport = owner.transport
        self.write_paused = owner.write_paused
        self._backlog = Backlog()
        self._backlog.begin(self.transport, tunnel.now())
        self.frames = frames
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

    def say_goodbye(self, code: int, *, masked: bool, event: bytes = b"") -> bool:
        """Send a Close frame to this side, and tell whether that was possible.

        Args:
            code: Why (RFC 6455, 7.4.1).
            masked: It is the provider's side.
            event: A message to be sent before, if that is possible, too.
        """
        towards = self._peer.frames
        if not towards.between or self._peer.has_ended or self.transport.is_closing():
            return False
        if not towards.closed:
            told = text_frame(event) if event and not towards.is_in_message else b""
            self.transport.write(told + close_frame(code, masked=masked))
        return True


class ClientEnd(End):
    """The client's. What it says passes as far as it may.

    Attributes:
        may_ask: It may begin messages. A frame or message that it has begun it may end, and it
            may answer a ping.
    """

    __slots__ = ("_unsaid", "may_ask")

    def __init__(self, tunnel: "Tunnel", owner: Owner) -> None:
        super().__init__(tunnel, owner, Frames())
        self.may_ask = True
        self._unsaid = b""  # too many frames for one turn of the loop

    def data_received(self, data: bytes) -> None:
        """Pass on what may pass; where a message begins that may not, the tunnel ends."""
        if self._unsaid:
            self._unsaid += data
            return
        tunnel, may_ask = self._tunnel, self.may_ask
        passes, self._unsaid = tunnel.conversation.said(data, may_ask=may_ask)
        if passes:
            size = self.frames.feed(passes, may_begin=may_ask)
            self.passed += size
            self._peer.transport.write(passes if size == len(passes) else passes[:size])
            if size < len(passes):
                tunnel.end()
                return
        if tunnel.conversation.refusal is not None:
            tunnel.refuse(tunnel.conversation.refusal)
        elif self._unsaid:
            self._breathe()

    def _go_on(self) -> None:
        unsaid, self._unsaid = self._unsaid, b""
        if unsaid and not self._tunnel.has_ended:
            self.data_received(unsaid)
        if not self._unsaid:
            super()._go_on()


class ProviderEnd(End):
    """The provider's. What it says passes."""

    __slots__ = ("_events",)

    def __init__(self, tunnel: "Tunnel", owner: Owner) -> None:
        self._events = EventFrames()
        super().__init__(tunnel, owner, self._events)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, and then look at them."""
        self._peer.transport.write(data)
        self.look_at(data)

    def look_at(self, data: bytes) -> None:
        """Follow what has passed."""
        self.passed += len(data)
        events = self._events
        messages = events.hear(data)
        if messages:
            tunnel = self._tunnel
            tunnel.conversation.heard(messages, self.passed)
            if tunnel.conversation.refusal is not None:
                tunnel.refuse(tunnel.conversation.refusal)
                return
        if events.met > CRUMBS:
            self._breathe()
