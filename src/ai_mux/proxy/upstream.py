"""One connection to a provider, and the response that comes over it.

A connection lives through these phases, as often as it is reused:

    IDLE ──ask──► ASKED ──head──► HEADED ──relay──► ANSWERING ──end──► DONE ──► IDLE
                                       (any) ──lost──► LOST

After a 101 that was asked for, the connection is a tunnel's (``proxy.tunnel``) and serves nothing else again.

Rule 1: A body is passed on, not parsed. With a Content-Length its bytes are counted;
chunks are walked in C, before the bytes are written, never after.

Rule 2: A connection serves another request only if this response has ended exactly
with the last byte read, the request was sent whole, and neither side wants to close.
Anything else could give one user another's answer.

Rule 3: A response that was cut is never ended cleanly towards the client.
"""

import asyncio
import ssl
from array import array
from collections.abc import Callable, Generator
from enum import Enum, auto
from fcntl import ioctl
from termios import FIONREAD
from types import coroutine
from typing import Final, Protocol, cast

from ai_mux.clock import Clock
from ai_mux.errors import GatewayTimeout, UpstreamError
from ai_mux.proxy.receiving import Receiver
from ai_mux.proxy.routes import Origin
from ai_mux.proxy.turn import Waiter
from ai_mux.usage.meter import Meter
from ai_mux.wire.chunked import ChunkDecoder, ChunkError, ChunkWatcher
from ai_mux.wire.headers import NOTABLE_IN_RESPONSES
from ai_mux.wire.http1 import (
    CHUNKED,
    HEAD_END,
    RESPONSE_HEAD_BYTES,
    UNTIL_CLOSE,
    ResponseHead,
    parse_response,
)
from ai_mux.wire.shapes import FieldNames

NEVER: Final = float("inf")
# An upstream that takes no bytes for this long has stalled; a client gets as much patience.
STALL_S: Final = 60.0
_INTERIM_RESPONSES: Final = 16
# The meter looks at so many pieces at once, or at a large one: a search costs as much for one
# event as for ten. It holds no more than the product of both.
_LOOK_PIECES: Final = 16
_LOOK_BYTES: Final = 4096
_UNREAD: Final = array("i", [0])  # where the kernel writes its answer
_NAMES: Final = FieldNames(NOTABLE_IN_RESPONSES)


class Phase(Enum):
    """Where a connection is in its life."""

    IDLE = auto()
    ASKED = auto()
    HEADED = auto()
    ANSWERING = auto()
    DONE = auto()
    LOST = auto()


# Looked up once: an attribute of an Enum costs as much as a call (until Python 3.12), and
# a request asks for twenty of them.
_IDLE: Final = Phase.IDLE
_ASKED: Final = Phase.ASKED
_HEADED: Final = Phase.HEADED
_ANSWERING: Final = Phase.ANSWERING
_DONE: Final = Phase.DONE
_LOST: Final = Phase.LOST


class Downstream(Protocol):
    """The client's side of a request: ``proxy.client.ClientConnection``."""

    write_paused: bool

    def write(self, data: bytes) -> None:
        """Send response bytes to the client."""

    def pause_upload(self) -> None:
        """Read no more of the request's body for now."""

    def resume_upload(self) -> None:
        """Go on reading the request's body."""


class UpstreamConnection(Receiver, Waiter):
    """A connection to one origin, for which the exchange waits: for the head, and for the end.

    Once it is woken, nothing of its request may be touched any more.

    Attributes:
        transport: The transport, as asyncio gave it.
        origin: Where it leads.
        phase: Where it is in its life.
        has_ended: The whole response was passed on.
        idle_since: When it was last given back to the pool, in monotonic seconds.
        on_lost: Told when the connection is gone.
        relayed: Bytes of this response's body that were written to the client.
    """

    __slots__ = (
        "_clean_end",
        "_client",
        "_clock",
        "_deadline",
        "_decoder",
        "_exact",
        "_fd",
        "_head",
        "_head_timeout_s",
        "_idle_timeout_s",
        "_interim",
        "_meter",
        "_problem",
        "_quiet_since",
        "_raw",
        "_read_paused",
        "_remaining",
        "_seen",
        "_sent",
        "_stalled_since",
        "_to_head",
        "_upgrade",
        "_watcher",
        "has_ended",
        "idle_since",
        "on_lost",
        "origin",
        "phase",
        "relayed",
        "transport",
    )

    def __init__(self, origin: Origin, clock: Clock) -> None:
        self.origin = origin
        self.phase = _IDLE
        self.idle_since = 0.0
        self.on_lost: Callable[[UpstreamConnection], None] | None = None
        self._clock = clock
        self._stalled_since = NEVER
        self._reset()

    def _reset(self) -> None:
        self._client: Downstream | None = None
        self._resume = None
        self._head: ResponseHead | None = None
        self._raw = b""
        self._problem: Exception | None = None
        self._clean_end = False
        self.has_ended = False
        self._exact = False
        self._sent = False
        self._interim = 0
        self._remaining = 0
        self._meter: Meter | None = None
        self._watcher: ChunkWatcher | None = None
        self._decoder: ChunkDecoder | None = None
        self._read_paused = False
        self._seen = False
        self._quiet_since = 0.0
        self._deadline = NEVER
        self.relayed = 0

    # Asking

    def ask(
        self,
        client: Downstream,
        *,
        to_head: bool,
        head_timeout_s: float,
        idle_timeout_s: float,
        upgrade: bool = False,
    ) -> None:
        """Begin a request for ``client``; its bytes follow through ``write``. Only while idle.

        Args:
            client: Whose request it is.
            to_head: It is a HEAD, so no body will follow.
            head_timeout_s: How long to wait for the response's head, once the request was sent.
            idle_timeout_s: The longest silence inside the response.
            upgrade: It asks for a WebSocket, so a 101 is an answer.
        """
        self.phase = _ASKED
        self._client = client
        self._to_head = to_head
        self._upgrade = upgrade
        self._head_timeout_s = head_timeout_s
        self._idle_timeout_s = idle_timeout_s

    def write(self, data: bytes) -> None:
        """Send request bytes."""
        if self.phase is not _LOST:
            self.transport.write(data)

    def request_sent(self) -> None:
        """Note that the request was given to the transport whole; the wait for the head begins."""
        self._sent = True
        if self.phase is _ASKED:
            self._deadline = self._clock.monotonic() + self._head_timeout_s

    # Hearing

    @coroutine
    def head(self) -> Generator[Waiter, None, ResponseHead]:
        """Wait for the response's head; interim responses are swallowed (RFC 9110, 15.2).

        Raises:
            UpstreamError: The connection broke, or what came was no valid head.
            GatewayTimeout: It did not come in time.
        """
        if self._head is None and self._problem is None:
            yield self
        if self._problem is not None:
            raise self._problem
        assert self._head is not None  # noqa: S101 - one of the two is set
        return self._head

    def relay(self, head: bytes, *, decode: bool, meter: Meter | None = None) -> None:
        """Pass the response on: our version of its head, then the body as it comes.

        Args:
            head: What the client gets as the head; it is written together with the
                first bytes of the body.
            decode: Take a chunked body apart, for a client that speaks HTTP/1.0.
            meter: Sees the body as well, without its transfer framing. Closing it is the caller's work.
        """
        assert self._head is not None and self._client is not None  # noqa: S101 - head() was awaited
        if self.phase is _HEADED:
            self.phase = _ANSWERING
        self._remaining = self._head.length
        if self._remaining == CHUNKED:
            if decode:
                self._decoder = ChunkDecoder()
            else:
                self._watcher = ChunkWatcher(self._head.raw, on_body=None if meter is None else meter.take)
        body, self._raw = self._raw, b""
        try:
            piece = self._advance(body) if body or not self._remaining else b""
        except ChunkError as exc:
            self._fail(UpstreamError(str(exc)))
            return
        self._client.write(head + piece if piece else head)
        self.relayed += len(piece)
        self._meter = meter
        if meter is not None:
            self._show(piece, meter)
        if not self.has_ended:
            self._quiet_since = self._clock.monotonic()
        if self.phase is _LOST:
            self._end_with_connection()
        elif self._client.write_paused:
            self.pause_reading()

    @coroutine
    def completed(self) -> Generator[Waiter, None, None]:
        """Wait until the whole response was written to the client.

        Raises:
            UpstreamError: It was cut.
        """
        if not self.has_ended and self._problem is None:
            yield self
        if self._problem is not None:
            raise self._problem

    def _fail(self, problem: Exception) -> None:
        if self._problem is None:
            self._problem = problem
        self._deadline = NEVER
        self.abort()
        self.wake()

    @property
    def received(self) -> bytes:
        """What of the body came together with the head."""
        return self._raw

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        self._fd = -1 if sock is None else sock.fileno()

    def is_gone(self) -> bool:
        """The connection is lost, or about to be."""
        return self.phase is _LOST or self.transport.is_closing()

    @property
    def write_paused(self) -> bool:
        """The provider reads more slowly than the client sends."""
        return self._stalled_since != NEVER

    def has_unread(self) -> bool:
        """Something waits in the kernel that nobody has asked for: junk, or the end.

        The loop would find it in its next turn, which may be one turn too late: the
        next request would take it for its answer. Half a microsecond that keeps one
        user's bytes from another.
        """
        ioctl(self._fd, FIONREAD, _UNREAD, True)
        return _UNREAD[0] != 0

    def data_received(self, data: bytes) -> None:
        """Pass body bytes on, or collect a head."""
        self._seen = True
        if self.phase is _ANSWERING and self._client is not None:
            try:
                piece = self._advance(data)
            except ChunkError as exc:
                self._fail(UpstreamError(str(exc)))
                return
            if piece:
                self.relayed += len(piece)
                self._client.write(piece)
                if self._meter is not None:
                    self._show(piece, self._meter)
            if self.has_ended:
                self.wake()
        elif self.phase is _ASKED:
            self._read_head(data)
        elif self.phase is _HEADED:
            self._raw += data
        else:
            self.abort()  # junk: nobody has asked

    def eof_received(self) -> None:
        """Note an orderly end; the transport closes itself, and ``connection_lost`` follows."""
        self._clean_end = not _is_truncated(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever was going on."""
        if exc is not None:
            self._clean_end = False
        before, self.phase = self.phase, _LOST
        if self.on_lost is not None:
            self.on_lost(self)
        if before is _ASKED:
            self._fail(UpstreamError("the connection was closed before a response came"))
        elif before is _ANSWERING:
            self._end_with_connection()

    def pause_writing(self) -> None:
        """The provider reads more slowly than the client sends."""
        self._stalled_since = self._clock.monotonic()
        if self._client is not None:
            self._client.pause_upload()

    def resume_writing(self) -> None:
        """The provider has caught up."""
        self._stalled_since = NEVER
        if self._client is not None:
            self._client.resume_upload()

    # Reading a response

    def _read_head(self, data: bytes) -> None:
        # A head that comes in pieces is not looked for among the shapes with each of them.
        found = None if self._raw else _NAMES.find(data)
        received = self._raw + data if self._raw else data
        while True:
            if found is not None:
                raw = found[0]
            else:
                end = received.find(HEAD_END)
                if end < 0 or end > RESPONSE_HEAD_BYTES:
                    self._raw = received
                    if len(received) > RESPONSE_HEAD_BYTES:
                        self._fail(UpstreamError("the response's head is too large"))
                    return
                raw = received[: end + 4]
            try:
                head = parse_response(raw, _NAMES, found, to_head=self._to_head)
            except UpstreamError as exc:
                self._fail(exc)
                return
            found = None
            received = received[len(raw) :]
            if head.status >= 200 or (head.status == 101 and self._upgrade):
                break
            self._interim += 1
            if head.status == 101 or self._interim > _INTERIM_RESPONSES:
                self._fail(
                    UpstreamError("it switched protocols unasked, or sent interim responses without end")
                )
                return
        self._raw = received
        self._head = head
        if not head.shape.is_learnt:
            _NAMES.learn(head.shape)
        self._deadline = NEVER
        self.phase = _HEADED
        self.wake()

    def _advance(self, data: bytes) -> bytes:
        """Take note of the next body bytes, and return what of them goes to the client."""
        remaining = self._remaining
        if remaining >= 0:
            size = len(data)
            if size < remaining:
                self._remaining = remaining - size
                return data
            self._remaining = 0
            self._end(exact=size == remaining)
            return data if size == remaining else data[:remaining]
        if self._watcher is not None:
            self._watcher.feed(data)
            if self._watcher.done:
                self._end(exact=True)
            return data
        if self._decoder is not None:
            data = b"".join(self._decoder.feed(data))
            if self._decoder.done:
                self._end(exact=not self._decoder.rest)
        return data

    def _show(self, piece: bytes, meter: Meter) -> None:
        """Let the meter see what was just written; what was chunked it has from the watcher."""
        if self._watcher is None:
            meter.take(piece)
        if len(piece) > _LOOK_BYTES or len(meter.pieces) >= _LOOK_PIECES:
            meter.look()

    def _end(self, *, exact: bool) -> None:
        self.has_ended = True
        self._exact = exact
        if self.phase is _ANSWERING:
            self.phase = _DONE

    def _end_with_connection(self) -> None:
        if self.has_ended:
            return
        if self._remaining == UNTIL_CLOSE and self._clean_end:
            self.has_ended = True
            self.wake()
        else:
            self._fail(UpstreamError("the connection was closed in the middle of the response"))

    # Keeping time and pace

    def pause_reading(self) -> None:
        """Read no more: the client does not keep up."""
        if not self._read_paused and self.phase is not _LOST:
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        if self._read_paused:
            self._read_paused = False
            self._seen = True  # the silence while we paused was ours
            if self.phase is not _LOST:
                self.transport.resume_reading()

    def sweep(self, now: float) -> None:
        """Look at the deadlines, about once a second."""
        if now >= self._deadline:
            self._fail(GatewayTimeout())
        elif self._client is not None and now - self._stalled_since >= STALL_S:
            self._fail(UpstreamError("it took no more bytes of the request"))
        elif self.phase is _ANSWERING and not self._read_paused:
            if self._seen:
                self._seen = False
                self._quiet_since = now
            elif now - self._quiet_since >= self._idle_timeout_s:
                self._fail(UpstreamError("it fell silent in the middle of the response"))

    # Ending

    def is_reusable(self) -> bool:
        """Another request may be sent over it."""
        return (
            self.phase is _DONE
            and self._sent
            and self._head is not None
            and self._head.keep_alive
            and self._exact
            and not self._read_paused  # or something unread may follow
            and not self.transport.is_closing()
            and not self.transport.get_write_buffer_size()
        )

    def rest(self, now: float) -> None:
        """Become idle, for the pool, which has found it reusable."""
        self._reset()
        self.phase = _IDLE
        self.idle_since = now

    def wind_up(self) -> None:
        """Close as soon as what was written has been sent, within limits."""
        if self.phase is not _LOST:
            self._client = None
            self.phase = _DONE
            self._deadline = self._clock.monotonic() + STALL_S
            self.transport.close()

    def switch(self) -> bytes:
        """Be one end of a tunnel from now on, with its deadlines. Return what came behind the 101."""
        self._client = None
        early, self._raw = self._raw, b""
        return early

    def leave(self) -> None:
        """The client is gone or has its answer: tell it nothing more."""
        self._client = None

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()


def _is_truncated(transport: asyncio.Transport) -> bool:
    """Tell whether a TLS connection ended without close_notify: anyone may have cut it (RFC 9112, 9.8).

    uvloop and aiofastnet call that a lost connection; asyncio calls it an end like any other.
    """
    tls = transport.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject):
        return False
    try:
        return bool(tls.read(1))
    except ssl.SSLError:  # it waits for more, so no end was announced
        return True
