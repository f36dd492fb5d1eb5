"""The hostile provider: it does exactly what a test says, byte by byte, and nothing by itself.

It reads only when told to, so it can stall; answers with any bytes, in any pieces;
closes, half-closes and resets whenever it likes. What it received is kept as it came.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable

from engine.wires import DEADLINE_S, TlsWire, Wire

Serve = Callable[[Wire], Awaitable[None]]


class Upstream:
    """Listens on loopback and hands out each connection as a ``Wire``.

    Attributes:
        port: Where it listens.
        accepted: Every connection so far, closed ones too.
    """

    def __init__(self, *, window: int | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._listening = socket.socket()
        if window is not None:
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(256)
        self._listening.setblocking(False)
        self._tls = tls
        self._serving: set[asyncio.Task[None]] = set()
        self.port: int = self._listening.getsockname()[1]
        self.accepted: list[Wire] = []

    async def accept(self) -> Wire:
        """Return the next connection."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE_S):
            sock, _ = await loop.sock_accept(self._listening)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(sock) if self._tls is None else TlsWire(sock, self._tls, server=True)
        self.accepted.append(wire)
        if isinstance(wire, TlsWire):
            await wire.handshake()
        return wire

    async def nobody_comes(self) -> bool:
        """Tell whether no connection waits to be accepted."""
        self._listening.setblocking(False)
        try:
            sock, _ = self._listening.accept()
        except BlockingIOError:
            return True
        sock.close()
        return False

    def serve(self, one: Serve) -> None:
        """From now on, serve each connection with ``one``, in a task of its own."""

        async def serve_all() -> None:
            loop = asyncio.get_running_loop()
            while True:
                sock, _ = await loop.sock_accept(self._listening)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                wire = Wire(sock)
                self.accepted.append(wire)
                self._spawn(self._serve_one(one, wire))

        self._spawn(serve_all())

    async def _serve_one(self, one: Serve, wire: Wire) -> None:
        try:
            with contextlib.suppress(Exception):  # a hostile peer does not mind when its victim hangs up
                await one(wire)
        finally:
            wire.close()

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    def refuse_connections(self) -> None:
        """Listen no more: connecting is refused from now on."""
        self._listening.close()

    async def close(self) -> None:
        tasks = tuple(self._serving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()
        for wire in self.accepted:
            wire.close()
