"""One client's connection: it cuts requests out of the bytes, one at a time.

Rule 1: One request is served at a time; what a client pipelines waits, within limits.

Rule 2: Every wait has an end: for a head, for a body, for the client to read, for
its next request. The ends are fields that one sweep a second looks at.

Rule 3: When the client leaves, its request ends, in whatever phase it is.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, cast

from ai_mux.errors import HeadTooLarge, RequestError, RequestTimeout, TargetTooLong
from ai_mux.proxy.admission import still_admitted
from ai_mux.proxy.backlog import Backlog
from ai_mux.proxy.exchange import exchange
from ai_mux.proxy.receiving import Receiver
from ai_mux.proxy.request import Request
from ai_mux.proxy.routes import Gateway
from ai_mux.proxy.tunnel import Tunnel
from ai_mux.proxy.turn import Turn
from ai_mux.proxy.upload import Upload
from ai_mux.wire.answers import CONTINUE
from ai_mux.wire.http1 import HEAD_END, REQUEST_HEAD_BYTES, REQUEST_LINE_BYTES, parse_request

if TYPE_CHECKING:
    from ai_mux.proxy.server import Server

HEAD_S: Final = 10.0
BODY_STALL_S: Final = 60.0
WRITE_STALL_S: Final = 60.0
IDLE_S: Final = 300.0
IDLE_STRANGER_S: Final = 10.0
# nginx's lingering_close reads on for longer; two seconds and a megabyte let a
# client on any usual line read its answer before the reset.
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 1024 * 1024
NEVER: Final = float("inf")
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close with RST


class State(Enum):
    """What the connection is doing."""

    HEAD = auto()  # waiting for a request, or for the rest of its head
    BUSY = auto()  # a request is being served
    QUEUED = auto()  # one was served, and the next, pipelined behind it, has its turn in the loop's next
    LINGER = auto()  # the answer is out, and what still comes is thrown away
    GONE = auto()


# Looked up once, for the reason that ``proxy.upstream`` gives.
_HEAD: Final = State.HEAD
_BUSY: Final = State.BUSY
_QUEUED: Final = State.QUEUED
_LINGER: Final = State.LINGER
_GONE: Final = State.GONE


class ClientConnection(Receiver):
    """The connection of one client, from its first byte to its last.

    Attributes:
        transport: The transport, as asyncio gave it.
        remote: Where the client is, for the log.
        write_paused: The client does not keep up with the response.
        state: What the connection is doing.
    """

    __slots__ = (
        "_backlog",
        "_buffer",
        "_deadline",
        "_discarded",
        "_is_partial",
        "_patience_s",
        "_quiet_since",
        "_read_paused",
        "_request",
        "_seen",
        "_server",
        "_tunnel",
        "_turn",
        "remote",
        "state",
        "transport",
        "write_paused",
    )

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._buffer = b""
        self._request: Request | None = None
        self._turn: Turn | None = None
        self._tunnel: Tunnel | None = None
        self._backlog = Backlog()
        self._deadline = NEVER
        self._discarded = 0
        self._is_partial = False  # the buffer holds the beginning of a head, which nothing was found in
        self._patience_s = IDLE_STRANGER_S  # how long it may rest between two requests
        self._quiet_since = 0.0
        self._read_paused = False
        self._seen = False
        self.remote = ""
        self.state = _HEAD
        self.write_paused = False

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        # One socket serves both families, and there an IPv4 address is written as an IPv6 one.
        self.remote = peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) else "unix"
        # Accepted just before the stop, it may still ask, and is told to go elsewhere.
        patience_s = LINGER_S if self._server.draining else IDLE_STRANGER_S
        self._deadline = self._server.clock.monotonic() + patience_s
        self._server.joined(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a head, a body, or a request that must wait."""
        self._seen = True
        request = self._request
        if self.state is _HEAD:
            self._buffer = self._buffer + data if self._buffer else data
            self._next_request()
        elif self.state is _QUEUED or (request is not None and request.upload.complete):
            self._buffer += data
            if len(self._buffer) > REQUEST_HEAD_BYTES:
                self._pause_reading()
        elif request is not None:
            upload = request.upload
            was_behind = upload.is_behind
            try:
                self._buffer += upload.feed(data)
            except RequestError as error:
                self._fail_request(error)
                return
            if was_behind:
                self.transport.pause_reading()  # until it was looked into what came before
            elif upload.is_behind:
                self.look_on()
            elif upload.is_full:
                self._pause_reading()
            elif upload.is_crumbled:
                self._breathe()
        else:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.abort()

    def eof_received(self) -> None:
        """The client will send nothing more. As for Go and nginx, it has left."""
        self._cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self.state = _GONE
        self._cancel()
        self._server.left(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than the provider sends."""
        self.write_paused = True
        self._backlog.begin(self.transport, self._server.clock.monotonic())
        if self._request is not None and self._request.upstream is not None:
            self._request.upstream.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.write_paused = False
        if self._request is not None and self._request.upstream is not None:
            self._request.upstream.resume_reading()
        elif self.state is _HEAD:
            self._deadline = self._server.clock.monotonic() + self._patience_s
            self._resume_reading()
            if self._buffer:
                self._next_request()

    # Cutting out requests

    def _next_request(self) -> None:
        if self.write_paused:  # who asks on and on without reading must not fill our memory
            self._deadline = NEVER  # that of writing counts
            self._pause_reading()
            return
        buffer = self._buffer
        server = self._server
        gateway = server.gateway
        sought = not self._is_partial
        found = gateway.names.find(buffer) if sought else None
        if found is not None:
            raw = found[0]
        else:
            if buffer[:2] == b"\r\n":  # RFC 9112, 2.2: ignore an empty line before a request
                self._buffer = buffer = buffer[2:]
                sought = False
            end = buffer.find(HEAD_END)
            if end < 0 or end > REQUEST_HEAD_BYTES:
                self._await_head(buffer)
                return
            raw = buffer[: end + 4]
        self._is_partial = False
        try:
            head = parse_request(raw, gateway.names, found, sought=sought)
        except RequestError as error:
            self.refuse_unread(error)
            return
        # By their places: each keyword of a call that makes an object costs as much as a call.
        upload = Upload(head.length, gateway.max_body_size, server.budget)
        now = server.clock.monotonic()
        request = Request(head, upload, gateway, self.remote, server.ids.next(), now)
        self.state = _BUSY
        self._deadline = NEVER
        self._quiet_since = now
        self._request = request
        rest = buffer[len(raw) :]
        self._buffer = b""
        if rest:
            try:
                self._buffer = rest if upload.complete else upload.feed(rest)
            except RequestError as error:
                request.refusal = error
        if not upload.replayable and upload.is_full:
            self._pause_reading()
        elif self._read_paused:
            self._resume_reading()
        self._turn = turn = Turn(exchange(request, self, server))
        turn.start()

    def _await_head(self, beginning: bytes) -> None:
        """Wait for the rest of a head, unless it is too large already."""
        self._is_partial = bool(beginning)
        if len(beginning) > REQUEST_LINE_BYTES and b"\n" not in beginning:
            self.refuse_unread(TargetTooLong())
        elif len(beginning) > REQUEST_HEAD_BYTES:
            self.refuse_unread(HeadTooLarge())
        elif beginning and self._deadline > self._server.clock.monotonic() + HEAD_S:
            self._deadline = self._server.clock.monotonic() + HEAD_S
        self._resume_reading()

    def _fail_request(self, error: RequestError) -> None:
        """The request's body broke a rule while the request was being served."""
        request = self._request
        if request is not None:
            request.refusal = error
        self._cancel()

    def _go_on(self) -> None:
        if self.state is _QUEUED:
            self.state = _HEAD
            if len(self._buffer) <= REQUEST_HEAD_BYTES:
                self._resume_reading()
            self._next_request()

    def _cancel(self) -> None:
        if self._turn is not None:
            self._turn.cancel()

    # What the exchange asks for

    def write(self, data: bytes) -> None:
        """Send response bytes to the client."""
        self.transport.write(data)

    def invite(self) -> None:
        """Ask a client that waits for it to send its body (RFC 9110, 10.1.1)."""
        self.transport.write(CONTINUE)

    def authenticated(self) -> None:
        """Note that this client may rest for longer between requests."""
        self._patience_s = IDLE_S
        request = self._request
        if request is not None and not request.head.shape.is_learnt:
            request.gateway.names.learn(request.head.shape)

    def pause_upload(self) -> None:
        """Read no more of the request's body: the provider does not keep up."""
        self._pause_reading()

    def resume_upload(self) -> None:
        """Go on reading the request's body."""
        if self._read_paused:
            self._resume_reading()

    def switch(self, tunnel: Tunnel) -> bytes:
        """Be one end of a tunnel from now on. Return what the client has sent on already."""
        early, self._buffer = self._buffer, b""
        self._resume_reading()
        self._tunnel = tunnel
        self.reconsider(self._server.gateway)  # it may be another than the one that admitted the request
        return early

    def finish(self, *, keep: bool) -> None:
        """Wait for the next request, or close: the present one has its answer."""
        request, self._request, self._turn = self._request, None, None
        tunnel, self._tunnel = self._tunnel, None
        if self.state is _GONE:
            return
        if not keep:
            if tunnel is not None:
                self._close_tunnel(tunnel)
                return
            self._close(unread=bool(self._buffer) or (request is not None and not request.upload.complete))
            return
        self._deadline = self._server.clock.monotonic() + self._patience_s
        if self._buffer:
            # Not from here: a client may pipeline thousands, each inside the one before.
            self.state = _QUEUED
            self._server.loop.call_soon(self._go_on)
            return
        self.state = _HEAD
        if self._read_paused:
            self._resume_reading()
        if self._server.draining:
            self._close(unread=False)

    def cut(self, *, reset: bool) -> None:
        """End the connection in the middle of a response, visibly.

        Args:
            reset: The response has no other end than the connection's, so only a
                reset tells the client that it was cut.
        """
        self._request = self._turn = self._tunnel = None
        if self.state is _GONE:
            return
        if reset:
            sock = self.transport.get_extra_info("socket")
            if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def refuse_unread(self, error: RequestError) -> None:
        """Answer a head that could not be read, and close."""
        self._server.refuse_unread(self, error, self._buffer)
        self._buffer = b""
        self._close(unread=True)

    def _close(self, *, unread: bool) -> None:
        """Close, after the client had a chance to read the answer.

        Closing with unread bytes sends a reset, which may destroy the answer on its
        way. So say that no more will come, and read on for a little while.
        """
        self._buffer = b""  # nothing more of it will be served
        self._resume_reading()
        self.state = _LINGER
        self._deadline = self._server.clock.monotonic() + (LINGER_S if unread else WRITE_STALL_S)
        if unread and self.transport.can_write_eof():
            with suppress(OSError):  # it has just gone, and ``connection_lost`` follows
                self.transport.write_eof()
        elif not unread:
            self.transport.close()

    def _close_tunnel(self, tunnel: Tunnel) -> None:
        """Close, after the client had a chance to read what the tunnel has still sent.

        No ``Connection: close`` has told it to go, so TLS, which cannot be half closed, is closed.
        """
        self._close(unread=self.transport.can_write_eof() and not tunnel.client.has_ended)
        self._deadline = self._server.clock.monotonic() + WRITE_STALL_S  # also for a client that is behind

    # Keeping time

    def _pause_reading(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self._quiet_since = self._server.clock.monotonic()
            self.transport.pause_reading()

    def _breathe(self) -> None:
        """Let everyone else have a turn of the loop, which reads on from one connection as long as it can."""
        if not self._read_paused and not self.transport.is_closing():
            self.transport.pause_reading()
            self._server.loop.call_soon(self._read_on)

    def look_on(self) -> None:
        """Look into the rest of what was read of the body, if there is one, in later turns of the loop."""
        request = self._request
        if request is not None and request.upload.is_behind:
            self._server.in_turn.add(lambda: self._look_on(request))

    def _look_on(self, request: Request) -> None:
        upload = request.upload
        if self._request is not request or not upload.is_behind:
            return
        self._seen = True  # the silence while we look is ours
        try:
            self._buffer += upload.look_on()
        except RequestError as error:
            self._fail_request(error)
            return
        self.look_on()
        if upload.is_full or len(self._buffer) > REQUEST_HEAD_BYTES:
            self._pause_reading()
        elif not upload.is_far_behind:
            self._read_on()  # between two steps as well: else nobody would see that the client has left

    def _read_on(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _resume_reading(self) -> None:
        """Read on, unless more was pipelined already than a head may have."""
        if self._read_paused and len(self._buffer) <= REQUEST_HEAD_BYTES:
            self._read_paused = False
            self._seen = True  # the silence while we paused was ours
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def sweep(self, now: float) -> None:
        """Look at the deadlines, about once a second."""
        if self._tunnel is not None:
            self._tunnel.sweep(now)
        elif now >= self._deadline:
            self._overdue()
        elif self.write_paused and self._backlog.quiet_s(self.transport, now) >= WRITE_STALL_S:
            self.transport.abort()
        elif self.state is _BUSY and self._request is not None and not self._request.upload.complete:
            if self._seen and not self._read_paused:
                self._seen = False
                self._quiet_since = now
            elif now - self._quiet_since >= BODY_STALL_S and not self._read_paused:
                self._fail_request(RequestTimeout())

    def _overdue(self) -> None:
        if self.state is _HEAD and self._buffer:
            self.refuse_unread(RequestTimeout())
        elif self.state is _HEAD:
            self._close(unread=False)
        else:
            self.transport.abort()

    def reconsider(self, gateway: Gateway) -> None:
        """Look whether a tunnel may go on under another configuration."""
        tunnel, request = self._tunnel, self._request
        if tunnel is not None and request is not None and request.admitted is not None:
            user = still_admitted(request.admitted, request.head, request.digest, gateway)
            tunnel.client.may_ask = user is not None
            if user is not None:
                tunnel.conversation.user = user

    @property
    def is_busy(self) -> bool:
        """A request is being served."""
        return self.state is _BUSY

    def drain(self) -> None:
        """Close an idle connection; a busy one ends with its answer."""
        if self.state is _HEAD and not self._buffer:
            self._close(unread=False)

    def end(self) -> None:
        """End the request now: the server's time to stop has come. A tunnel's client is told, and may go."""
        if self._tunnel is not None:
            self._tunnel.end()
            return
        if self.state is _BUSY:
            self._cancel()
        self.transport.abort()
