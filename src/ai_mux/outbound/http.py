"""The handshake with an HTTP proxy: CONNECT (RFC 9110, section 9.3.6).

A library would answer as soon as it has read anything; this reads the answer to its
last byte and not beyond, in whatever pieces it comes.
"""

import asyncio
import base64
import re
from typing import Final

from ai_mux.outbound.proxy import OutboundProxy, ProxyFailed

# A proxy's answer to CONNECT is a status line and a few fields. Node's HTTP takes as much as a head.
_ANSWER_BYTES: Final = 16 * 1024
_ANSWER_END: Final = b"\r\n\r\n"
_ANSWER_BEGINNING: Final = b"HTTP/1."
# RFC 9112, section 4; the reason phrase may be missing, and its blank with it.
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")


class Hearing(asyncio.Protocol):
    """Keeps what comes before the connection is handed over, up to a limit."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.lost = False
        self._news: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Keep it, and wake who waits."""
        if len(self.heard) <= _ANSWER_BYTES:
            self.heard += data
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, and wake who waits."""
        self.lost = True
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def check_silent(self, via: OutboundProxy) -> None:
        """Return where nothing has happened: nobody was asked anything yet.

        Raises:
            ProxyFailed: Something has.
        """
        if self.heard:
            raise ProxyFailed(f"the proxy {via.authority} sent more than its answer")
        if self.lost:
            raise ProxyFailed(f"the proxy {via.authority} closed the connection as soon as it was made")

    async def more(self) -> None:
        """Wait until something happens."""
        self._news = asyncio.get_running_loop().create_future()
        await self._news


async def ask(
    via: OutboundProxy, host: str, port: int, transport: asyncio.Transport, hearing: Hearing
) -> None:
    """Ask for a tunnel to ``host`` and ``port``, and return once it is there.

    Args:
        via: Who is asked, and with which credentials.
        host: A name or an address, without brackets.
        port: The TCP port.
        transport: Leads to the proxy.
        hearing: The transport's protocol.

    Raises:
        ProxyFailed: The proxy refused, left, or answered with something else.
    """
    transport.write(_request(via, host, port))
    while True:
        heard = hearing.heard
        if heard[: len(_ANSWER_BEGINNING)] != _ANSWER_BEGINNING[: len(heard)]:
            raise ProxyFailed(f"the proxy {via.authority} answers, and not as an HTTP proxy does")
        end = heard.find(_ANSWER_END) + len(_ANSWER_END)
        if end >= len(_ANSWER_END):
            line = _STATUS.match(bytes(heard[:end]))
            if line is None or end > _ANSWER_BYTES:
                raise ProxyFailed(f"the proxy {via.authority} answers, and not as an HTTP proxy does")
            del heard[:end]
            status = int(line[1])
            if status >= 200:  # interim ones announce another (RFC 9110, section 15.2)
                return _check(via, status)
        elif len(heard) > _ANSWER_BYTES:
            raise ProxyFailed(f"the proxy {via.authority} answers with more than {_ANSWER_BYTES} bytes")
        elif hearing.lost:
            raise ProxyFailed(f"the proxy {via.authority} closed the connection instead of answering")
        else:
            await hearing.more()


def _request(via: OutboundProxy, host: str, port: int) -> bytes:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if via.username is not None:
        # RFC 7617; UTF-8 is the only charset that it knows (section 2.1).
        password = "" if via.password is None else via.password.reveal()
        pair = f"{via.username.reveal()}:{password}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair).decode('ascii')}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _check(via: OutboundProxy, status: int) -> None:
    """Return where the answer opens the tunnel: any 2xx does."""
    if 200 <= status < 300:
        return
    if status in {401, 407}:  # 407 is meant for this (RFC 9110, section 15.5.8); tinyproxy says 401
        problem = "wants credentials" if via.username is None else "does not accept the credentials"
    else:
        problem = "refuses to connect" if status == 403 else "did not connect"
    raise ProxyFailed(f"the proxy {via.authority} {problem} (HTTP status {status})")
