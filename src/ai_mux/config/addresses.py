"""What an address means: where to listen, where an upstream is, and what lies between.

As in ``values.py``, a reader returns the value or raises ``Wrong``. A URL is not
repeated in a message either: it may hold a password.
"""

import os
import re
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ai_mux.config.model import Listen
from ai_mux.config.report import Wrong
from ai_mux.config.tree import Kind, Node, Scalar
from ai_mux.config.values import expanded, text
from ai_mux.hosts import is_host, is_ipv6, is_loopback
from ai_mux.outbound import InvalidProxy, OutboundProxy, parse_proxy

_PORT: Final = re.compile(r"[0-9]{1,5}")
_LISTEN_FORM: Final = 'write ":8080", "127.0.0.1:8080", "[::1]:8080" or "unix:/run/ai-mux.sock"'
# sockaddr_un.sun_path without its closing zero byte.
_MAX_SOCKET_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107

# RFC 3986, section 2, without the brackets, which only a host may have.
_URL: Final = re.compile(r"https?://[A-Za-z0-9\-._~:@/?#\[\]!$&'()*+,;=%]+")


def listen(node: Node) -> Listen:
    """Return an address to listen on: ``:PORT``, ``HOST:PORT``, ``[v6]:PORT`` or ``unix:PATH``."""
    if isinstance(node, Scalar) and node.kind is Kind.INTEGER:
        raise Wrong('must be a string with a colon before the port, like ":8080"')
    written = text(node)
    scheme, _, rest = written.partition(":")
    if scheme == "unix":
        return Listen(text=written, host=None, port=0, path=_socket_path(rest))
    host, colon, port = written.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
        raise Wrong(f"must end in ':' and a port from 0 to 65535; {_LISTEN_FORM}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not is_ipv6(host):
            raise Wrong(f"has no IPv6 address in its brackets; {_LISTEN_FORM}")
    elif ":" in host:
        raise Wrong('an IPv6 address must stand in brackets, like "[::1]:8080"')
    elif host and not is_host(host):
        raise Wrong(f"has no valid host before its port; {_LISTEN_FORM}")
    return Listen(text=written, host=host or None, port=int(port), path=None)


def base_url(node: Node) -> str:
    """Return a URL without userinfo, query and fragment; https unless loopback."""
    written = token_url(node)
    if "?" in written:
        raise Wrong("must not have a query ('?…'); remove it")
    return written


def token_url(node: Node) -> str:
    """Return a URL without userinfo and fragment; https unless loopback (RFC 6749, section 3.2)."""
    written = text(node)
    if not _URL.fullmatch(written):
        raise Wrong("must be a URL that begins with https://, without blanks and in ASCII")
    try:
        parts = urlsplit(written)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Wrong("has no valid host and port; write it like https://host:8443/path") from None
    if "@" in parts.netloc:
        raise Wrong("must not hold a user name or password ('…@'); remove them")
    if "#" in written:
        raise Wrong("must not have a fragment ('#…'); remove it")
    if not (is_host(host) or is_ipv6(host)) or port == 0 or parts.netloc.endswith(":"):
        raise Wrong("has no valid host and port; write it like https://host:8443/path")
    if parts.scheme != "https" and not is_loopback(host):
        raise Wrong("must begin with https://; plain http is for loopback only (127.0.0.0/8, ::1, localhost)")
    return written


def proxy(node: Node) -> OutboundProxy:
    """Return an outbound proxy from its URL, credentials included."""
    try:
        return parse_proxy(text(node))
    except InvalidProxy as exc:
        raise Wrong(str(exc)) from None


def _socket_path(written: str) -> Path:
    if not written:
        raise Wrong(f"has no path after 'unix:'; {_LISTEN_FORM}")
    found = expanded(written)
    if len(os.fsencode(found)) > _MAX_SOCKET_PATH_BYTES:
        raise Wrong(
            f"is longer than {_MAX_SOCKET_PATH_BYTES} bytes, a socket's longest name; use a shorter path"
        )
    return found
