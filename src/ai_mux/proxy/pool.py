"""Connections to providers: made when needed, kept while they may be used again.

Last in, first out, so that a burst's connections grow old and go. A connection
belongs to one request at a time (HTTP/1.1), so one request's end never touches
another's.
"""

import asyncio
from collections.abc import Collection
from typing import Final, Protocol

from ai_mux.clock import Clock
from ai_mux.errors import UpstreamError
from ai_mux.proxy.routes import Origin
from ai_mux.proxy.upstream import Phase, UpstreamConnection

CONNECT_TIMEOUT_S: Final = 10.0
# Below the 60 s and more after which the providers' front ends close idle connections themselves.
IDLE_S: Final = 30.0
# As many as a busy team has requests at once; each one above it costs a TLS handshake when
# it is needed again, ten times a small request (docs/explanation/performance.md).
IDLE_EACH: Final = 256


class Connect(Protocol):
    """Opens a transport to an origin; the engine's own, see ``proxy.engine``."""

    async def __call__(
        self, origin: Origin, protocol: asyncio.BaseProtocol, *, timeout_s: float
    ) -> asyncio.Transport:
        """Connect, TLS included.

        Raises:
            OSError: It could not be reached, or its certificate is not trusted.
            TimeoutError: Not within ``timeout_s``.
        """


class Pool:
    """Makes, keeps and ends connections to providers."""

    def __init__(self, connect: Connect, clock: Clock) -> None:
        self._connect = connect
        self._clock = clock
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._all: set[UpstreamConnection] = set()
        self._wanted: Collection[Origin] | None = None  # None: every one
        self._one_lost = asyncio.Event()

    def take(self, origin: Origin) -> UpstreamConnection | None:
        """Return an idle connection, or None."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_gone():
                continue
            if not connection.has_unread():
                return connection
            connection.abort()
        return None

    async def connect(self, origin: Origin) -> UpstreamConnection:
        """Open a new connection.

        Raises:
            UpstreamError: The origin could not be reached.
        """
        connection = UpstreamConnection(origin, self._clock)
        connection.on_lost = self._forget
        try:
            await self._connect(origin, connection, timeout_s=CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError) as exc:
            raise UpstreamError(f"connecting: {exc or type(exc).__name__}") from exc
        if connection.phase is not Phase.LOST:
            self._all.add(connection)
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection for another request, or close it where it cannot serve one."""
        origin = connection.origin
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle[origin] = []
        wanted = self._wanted is None or origin in self._wanted
        if wanted and len(idle) < IDLE_EACH and connection.is_reusable():
            connection.rest(self._clock.monotonic())
            idle.append(connection)
        else:
            connection.leave()
            connection.abort()

    def keep_only(self, origins: Collection[Origin]) -> None:
        """Keep connections to these origins from now on: no request will ask for another one.

        What lies idle to others is closed. Reload upon reload, half a minute's worth would
        take all descriptors.
        """
        self._wanted = origins
        for origin in [origin for origin in self._idle if origin not in origins]:
            for connection in self._idle.pop(origin):
                connection.abort()

    def _forget(self, connection: UpstreamConnection) -> None:
        self._all.discard(connection)
        self._one_lost.set()
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)

    def sweep(self, now: float) -> None:
        """Close what was idle too long, and let the others look at their deadlines."""
        for connection in surplus(self._idle, max_idle_s=IDLE_S, now=now):
            self._idle[connection.origin].remove(connection)
            connection.abort()
        for connection in tuple(self._all):
            connection.sweep(now)
        for origin in [origin for origin, idle in self._idle.items() if not idle]:
            del self._idle[origin]

    async def closed(self) -> None:
        """Wait for the connections that are being closed: what was written to them is still on its way."""
        while any(connection.is_gone() for connection in self._all):
            self._one_lost.clear()
            await self._one_lost.wait()

    def close(self) -> None:
        """Close every connection, idle or not."""
        for connection in tuple(self._all):
            connection.abort()
        self._idle.clear()

    @property
    def idle_count(self) -> int:
        """How many connections wait for a request."""
        return sum(map(len, self._idle.values()))


def surplus(
    idle: dict[Origin, list[UpstreamConnection]], *, max_idle_s: float, now: float
) -> list[UpstreamConnection]:
    """Return the connections that were idle for longer than ``max_idle_s``."""
    return [
        connection
        for connections in idle.values()
        for connection in connections
        if now - connection.idle_since >= max_idle_s
    ]
