"""Raw sockets for tests: what was sent is what travels, and what came is what is seen.

Nothing here hides a byte, repairs a message or closes politely unless told to.
Every wait ends after ``DEADLINE_S``, so a test that hangs fails instead. That is far more than
anything takes: a busy machine may stand still for seconds.
"""

import asyncio
import contextlib
import re
import select
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

DEADLINE_S: Final = 20.0
_PIECE: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close with RST


class Ended(Exception):
    """The peer ended the connection before what was waited for came.

    Attributes:
        got: What had come.
        reset: It ended with a reset (TCP), or without close_notify (TLS).
    """

    def __init__(self, got: bytes, *, reset: bool) -> None:
        super().__init__(f"ended {'by a reset' if reset else 'in order'} after {got[:200]!r}")
        self.got = got
        self.reset = reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request or response, as it came.

    Attributes:
        start: The request line or status line.
        fields: (name, value) in order, names spelled as sent.
        body: Without its transfer framing.
        raw_body: With it.
        raw_head: The head's bytes, blank line included.
    """

    start: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    raw_body: bytes
    raw_head: bytes

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def get(self, name: bytes) -> bytes | None:
        """Return the only value of a field, or None."""
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    def all(self, name: bytes) -> list[bytes]:
        return [value for spelled, value in self.fields if spelled.lower() == name.lower()]


class Wire:
    """One end of a TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._buffer = bytearray()
        self._end: Ended | None = None

    @classmethod
    async def to(cls, port: int, *, window: int | None = None) -> "Wire":
        """Connect to a port on loopback, with a receive buffer of ``window`` bytes if given."""
        sock = socket.socket()
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(sock)

    # Sending

    async def send(self, *pieces: bytes) -> None:
        """Send each piece with a write of its own."""
        for piece in pieces:
            async with asyncio.timeout(DEADLINE_S):
                await self._put(piece)

    async def send_slowly(self, data: bytes, at: list[int]) -> None:
        """Send ``data`` cut at the given places, letting the other side see each piece by itself."""
        cuts = [0, *sorted({cut for cut in at if 0 < cut < len(data)}), len(data)]
        for begin, end in pairwise(cuts):
            await self.send(data[begin:end])
            await turns(3)

    async def _put(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    # Receiving

    async def _get(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.sock, _PIECE)

    async def _more(self) -> None:
        if self._end is not None:
            raise self._end
        try:
            async with asyncio.timeout(DEADLINE_S):
                piece = await self._get()
        except TimeoutError:
            raise AssertionError(
                f"nothing came for {DEADLINE_S} s after {bytes(self._buffer[-200:])!r}"
            ) from None
        except OSError:
            self._end = Ended(bytes(self._buffer), reset=True)
            raise self._end from None
        if not piece:
            self._end = Ended(bytes(self._buffer), reset=False)
            raise self._end
        self._buffer += piece

    async def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def until(self, mark: bytes) -> bytes:
        """Return everything up to ``mark``, and the mark."""
        searched = 0
        while (found := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark) + 1)
            await self._more()
        return await self.exactly(found + len(mark))

    async def some(self) -> bytes:
        """Return what comes next, at least a byte."""
        if not self._buffer:
            await self._more()
        return await self.exactly(len(self._buffer))

    async def end(self) -> Ended:
        """Read until the peer ends the connection, and return how it did."""
        with contextlib.suppress(Ended):
            while True:
                await self._more()
        assert self._end is not None
        return Ended(bytes(self._buffer), reset=self._end.reset)

    async def message(self, *, to_head: bool = False) -> Message:
        """Return the next request, or the next response (to a HEAD: without a body)."""
        raw_head = await self.until(b"\r\n\r\n")
        start, *lines = raw_head[:-4].split(b"\r\n")
        fields = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        framing = {name.lower(): value for name, value in fields}
        bodyless = to_head or re.match(rb"HTTP/1\.\d (1\d\d|204|304)", start) is not None
        body = raw_body = b""
        if not bodyless and b"transfer-encoding" in framing:
            body, raw_body = await self._chunks()
        elif not bodyless and b"content-length" in framing:
            body = raw_body = await self.exactly(int(framing[b"content-length"]))
        return Message(start=start, fields=fields, body=body, raw_body=raw_body, raw_head=raw_head)

    async def _chunks(self) -> tuple[bytes, bytes]:
        body, raw = b"", b""
        while True:
            line = await self.until(b"\r\n")
            raw += line
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            piece = await self.exactly(size + 2)
            assert piece.endswith(b"\r\n")
            raw += piece
            body += piece[:-2]
        while (line := await self.until(b"\r\n")) != b"\r\n":
            raw += line
        return body, raw + line

    # Ending

    def end_writing(self) -> None:
        """Half-close: say that nothing more will come, and go on listening."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()


class TlsWire(Wire):
    """One end of a TLS connection whose records are made and sent by hand."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server: bool) -> None:
        super().__init__(sock)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which some builds of Python 3.11 set
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._in, self._out, server_side=server, server_hostname=None if server else "localhost"
        )

    async def handshake(self) -> "TlsWire":
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    self.tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._feed()
                else:
                    await self._flush()
                    return self

    async def _flush(self) -> None:
        await super()._put(self._out.read())

    async def _feed(self) -> None:
        data = await super()._get()
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _put(self, data: bytes) -> None:
        self.tls.write(data)
        await self._flush()

    async def _get(self) -> bytes:
        while True:
            try:
                return self.tls.read(_PIECE)
            except ssl.SSLWantReadError:
                await self._feed()
            except ssl.SSLZeroReturnError:
                return b""

    async def end_in_order(self) -> None:
        """Send close_notify, then close."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        await self._flush()
        self.close()


async def turns(count: int) -> None:
    """Let the loop go round, so that what was sent on loopback is seen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def delivered() -> None:
    """Wait until what was sent on loopback is there: so is then a datagram that was sent after it.

    A kernel under load hands over later what it hands over at once when it is idle.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
        one.sendto(b"x", one.getsockname())
        poll = select.poll()
        poll.register(one, select.POLLIN)
        await eventually(lambda: poll.poll(0), what="a datagram comes")


async def eventually(condition: Callable[[], object], *, what: str | Callable[[], str] = "") -> None:
    """Wait until ``condition()`` is true.

    Raises:
        AssertionError: It was not within ``DEADLINE_S``.
    """
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {DEADLINE_S} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.001)
