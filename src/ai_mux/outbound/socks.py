"""The handshake with a SOCKS 5 proxy (RFC 1928, RFC 1929), which python-socks holds."""

import socket
from typing import Final, cast

from python_socks import ProxyError, ProxyType
from python_socks.async_.asyncio import Proxy

from ai_mux.outbound.proxy import OutboundProxy, ProxyFailed

# RFC 1928, section 6: what the proxy says about the target.
_REPLIES: Final = {
    1: "failed to connect",
    2: "refuses to connect",
    3: "finds no network to the target",
    4: "cannot reach the target",
    5: "was refused by the target",
    6: "cannot reach the target in time",
    7: "does not know how to connect",
    8: "does not take such an address",
}
# The library has a deadline of its own; the caller's comes first.
_NEVER_S: Final = 3600


class _Reached:
    """A connected socket in the place of a way to it, which the library calls ``forward``."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, **_: object) -> socket.socket:
        return self._sock


async def agree(via: OutboundProxy, sock: socket.socket, host: str, port: int) -> None:
    """Have the proxy connect a socket, which is connected to it, to a target.

    Raises:
        ProxyFailed: It does not. The socket is closed then, and when this is cancelled.
    """
    where = f"the proxy {via.authority}"
    proxy = Proxy(
        ProxyType.SOCKS5,
        via.host,
        via.port,
        username=None if via.username is None else via.username.reveal(),
        password=None if via.password is None else via.password.reveal(),
        rdns=via.scheme == "socks5h",
        forward=cast(Proxy, _Reached(sock)),
    )
    try:
        await proxy.connect(host, port, timeout=_NEVER_S)
    except ProxyError as exc:
        told = _REPLIES.get(exc.error_code or 0)
        if told is None:  # before it was about the target
            told = "does not speak SOCKS 5, " + (
                "or wants credentials" if via.username is None else "or does not accept the credentials"
            )
        raise ProxyFailed(f"{where} {told}") from None
    except socket.gaierror as exc:
        advice = "socks5h:// leaves names to the proxy"
        raise ProxyFailed(f"{where} takes addresses, and {host} has none: {exc.strerror}; {advice}") from exc
    except OSError as exc:
        raise ProxyFailed(f"{where} broke off: {exc.strerror or type(exc).__name__}") from exc
    except ValueError:  # an address that is none, of which the library's message would tell
        raise ProxyFailed(f"{where} does not speak SOCKS 5") from None
    except BaseException:
        sock.close()
        raise
