"""Opens a connection to a target, directly or through a proxy: where every one to a provider begins.

Rule 1: with a proxy, only the proxy is reached from here. Where it fails, so does
the connection; nothing goes around it.

Rule 2: TLS with the target is made above the proxy, verified as without one. So an
https proxy means TLS inside TLS, and no proxy hears what is for the provider. What
the proxy hears (``Proxy-Authorization``), the provider never does.

Rule 3: who fails or is cancelled leaves no socket.

Rule 4: an error names the proxy by host and port, and tells in our own words what
it did: what it said may be anything.
"""

import asyncio
import socket
import ssl
import sys
from asyncio import sslproto
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohappyeyeballs import start_connection

from ai_mux.outbound.http import Hearing, ask
from ai_mux.outbound.proxy import OutboundProxy, ProxyFailed

_NEXT_ADDRESS_S: Final = 0.25
_TLS_SHUTDOWN_S: Final = 60.0
# Where TLS inside TLS fails, asyncio's own raises a TypeError before 3.11.8 and 3.12.2, and later not
# (https://github.com/python/cpython/issues/113214). uvloop's and aiofastnet's never did.
_FORCED_CLOSE_IS_BROKEN: Final = sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a connection is to lead.

    Attributes:
        host: A name or an address, without brackets.
        port: The TCP port.
        tls: For https; it verifies an https proxy too. None for http, where such a proxy
            is verified by the system's roots.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transports:
    """Who makes transports: an event loop's own two methods, or what takes their place.

    Attributes:
        create_connection: As ``asyncio.loop.create_connection``, with ``sock``.
        start_tls: As ``asyncio.loop.start_tls``, on a transport that the former made.
    """

    create_connection: Callable[..., Awaitable[tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]]
    start_tls: Callable[..., Awaitable[asyncio.BaseTransport | None]]

    @classmethod
    def of_loop(cls) -> "Transports":
        """Return the running loop's own."""
        loop = asyncio.get_running_loop()
        return cls(create_connection=loop.create_connection, start_tls=loop.start_tls)


async def connect(
    target: Target,
    protocol: asyncio.BaseProtocol,
    *,
    via: OutboundProxy | None,
    transports: Transports,
    timeout_s: float,
) -> asyncio.Transport:
    """Connect ``protocol``, whose ``connection_made`` has been called when this returns.

    Args:
        target: Where to.
        protocol: What is connected.
        via: The proxy to go through, or None.
        transports: Who makes the transports.
        timeout_s: For all of it, TLS included.

    Raises:
        ProxyFailed: The proxy could not be reached, refused or broke off, or the target behind
            it is not trusted.
        OSError: The target could not be reached directly, or is not trusted.
        TimeoutError: Not within ``timeout_s``.
    """
    try:
        async with asyncio.timeout(timeout_s):
            making = _Making(transports, timeout_s)
            if via is None:
                return await making.over(await _reached(target.host, target.port), protocol, target)
            return await _through(via, target, protocol, making)
    except TimeoutError:
        if via is None:
            raise
        raise TimeoutError(f"the proxy {via.authority} led nowhere within {timeout_s:g} s") from None


async def _through(
    via: OutboundProxy, target: Target, protocol: asyncio.BaseProtocol, making: "_Making"
) -> asyncio.Transport:
    tls = None
    if via.scheme == "https":
        # Reading the system's roots takes 20 ms. Only an http target, which is on loopback, needs it.
        tls = target.tls or await asyncio.to_thread(ssl.create_default_context)
    with _told(f"the proxy {via.authority} cannot be reached"):
        sock = await _reached(via.host, via.port)
    if via.scheme in {"socks5", "socks5h"}:
        # 20 ms that only those need who have such a proxy, once.
        from ai_mux.outbound.socks import agree  # noqa: PLC0415

        await agree(via, sock, target.host, target.port)
        with _told(f"TLS through the proxy {via.authority} failed"):
            return await making.over(sock, protocol, target)
    hearing = Hearing()
    with _told(f"TLS with the proxy {via.authority} failed"):
        transport = await making.over(sock, hearing, Target(host=via.host, port=via.port, tls=tls))
    try:
        await ask(via, target.host, target.port, transport, hearing)
        if target.tls is not None:
            hearing.check_silent(via)
            with _told(f"TLS through the proxy {via.authority} failed"):
                transport, hearing = await making.above(transport, target)
        hearing.check_silent(via)
    except BaseException:
        _abort(transport)
        raise
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    return transport


async def _reached(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to ``host``."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # RFC 8305: where IPv6 leads nowhere, IPv4 is tried a quarter of a second later.
    return await start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1)


class _Making:
    """Makes the transports of one connection."""

    def __init__(self, transports: Transports, timeout_s: float) -> None:
        self._transports = transports
        self._timeout_s = timeout_s

    async def over(
        self, sock: socket.socket, protocol: asyncio.BaseProtocol, target: Target
    ) -> asyncio.Transport:
        """Return a transport over a socket, which belongs to it, or is closed."""
        options = {} if target.tls is None else {"ssl": target.tls, **self._options(target)}
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made, _ = await self._transports.create_connection(lambda: protocol, sock=sock, **options)
        except BaseException:
            sock.close()
            raise
        return cast(asyncio.Transport, made)

    async def above(self, transport: asyncio.Transport, target: Target) -> tuple[asyncio.Transport, Hearing]:
        """Return a transport with TLS above another, and who listens on it meanwhile."""
        hearing = Hearing()
        if _FORCED_CLOSE_IS_BROKEN and isinstance(transport, sslproto._SSLProtocolTransport):
            transport._force_close = lambda _: _abort(transport)  # type: ignore[attr-defined]
        made = await self._transports.start_tls(transport, hearing, target.tls, **self._options(target))
        # Where the transport below just ends, loops wake who waits as if all were well.
        if made is None or made.is_closing():
            raise ConnectionResetError("the connection ended in the middle of the handshake")
        return cast(asyncio.Transport, made), hearing

    def _options(self, target: Target) -> dict[str, Any]:
        return {
            "server_hostname": target.host,
            "ssl_handshake_timeout": self._timeout_s,
            "ssl_shutdown_timeout": _TLS_SHUTDOWN_S,
        }


def _abort(transport: asyncio.Transport) -> None:
    # Python 3.11.2, which is Debian 12's, raises this for TLS that has ended by itself.
    with suppress(AttributeError):
        transport.abort()


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ProxyFailed(f"{what}: {exc.strerror or str(exc) or type(exc).__name__}") from exc
