"""An outbound proxy: what it is, and how it is written.

Rule: its URL may hold a password, so no message repeats any of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from ai_mux.hosts import is_host, is_ipv6
from ai_mux.secret import Secret

# RFC 3986, section 3.2.3, leaves the default port to the scheme; 1080 is IANA's for SOCKS.
SCHEMES: Final[Mapping[str, int]] = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_FORM: Final = "write it like http://proxy.example:3128 or socks5h://user:password@127.0.0.1:1080"

# RFC 3986, section 2, without the brackets, which only a host may have; and no "%" that is none.
_URL: Final = re.compile(r"(?:[A-Za-z0-9\-._~:@/?#\[\]!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
# RFC 1929, section 2: each has one byte for its length, from 1 to 255.
_SOCKS_BYTES: Final = 255


class InvalidProxy(ValueError):
    """A text is no proxy's URL. The message says why and how to mend it, without the text."""


class ProxyFailed(OSError):
    """A proxy did not lead to the target. The message names it by host and port, and quotes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundProxy:
    """A proxy between ai-mux and a provider. Shown without its credentials.

    Attributes:
        scheme: ``http`` or ``https``, how to reach a proxy that takes CONNECT (RFC 9110,
            section 9.3.6); ``socks5`` (RFC 1928) to be given addresses, ``socks5h`` names.
        host: A name or an IP address, without brackets.
        port: 1 to 65535.
        username: None where the proxy asks for no credentials.
        password: Empty where the URL has a user name alone; None without one.
    """

    scheme: str
    host: str
    port: int
    username: Secret | None = field(default=None, repr=False)
    password: Secret | None = field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """Host and port, by which messages name it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{'…@' if self.username else ''}{self.authority}"

    def __repr__(self) -> str:
        return f"OutboundProxy({self})"


def parse_proxy(written: str) -> OutboundProxy:
    """Return what a proxy's URL says.

    Raises:
        InvalidProxy: It is none, or one of another kind.
    """
    scheme = _SCHEME.match(written)
    if scheme is None or scheme[1].lower() not in SCHEMES:
        raise InvalidProxy(f"must begin with {', '.join(f'{one}://' for one in SCHEMES)}; {_FORM}")
    if not _URL.fullmatch(written):
        raise InvalidProxy("must be ASCII without blanks, other characters percent-encoded ('%40' for '@')")
    try:
        parts = urlsplit(written)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidProxy(f"has no valid host and port; {_FORM}") from None
    userinfo, at, after = parts.netloc.rpartition("@")
    valid = (is_host(host) or is_ipv6(host)) and "%" not in host and port != 0 and not after.endswith(":")
    if "@" in userinfo or not valid:
        # An "@" or "/" in a password ends the host too early.
        raise InvalidProxy(
            f"has no valid host and port (in a password, write '@' as %40, '/' as %2F); {_FORM}"
        )
    # A single slash at the end is how many write it, and means nothing.
    if parts.path not in {"", "/"} or "?" in written or "#" in written:
        raise InvalidProxy("must end after its host and port; remove the path, '?' and '#'")
    name, password = _credentials(userinfo, parts.scheme) if at else (None, None)
    return OutboundProxy(
        scheme=parts.scheme,
        host=host,
        port=SCHEMES[parts.scheme] if port is None else port,
        username=name,
        password=password,
    )


def _credentials(userinfo: str, scheme: str) -> tuple[Secret, Secret]:
    raw_name, _, raw_password = userinfo.partition(":")
    try:
        name, password = (unquote_to_bytes(raw).decode("utf-8") for raw in (raw_name, raw_password))
    except UnicodeDecodeError:
        raise InvalidProxy("has a user name or password that is not UTF-8 when percent-decoded") from None
    if not name:
        raise InvalidProxy("has an '@' without a user name before it; write one, or remove the '@'")
    if _CONTROL.search(name + password):
        raise InvalidProxy("has a control character in its user name or password; remove it")
    if scheme.startswith("socks"):
        # RFC 1929 does not say in which encoding, so nothing but ASCII is sure to be understood.
        sound = name.isascii() and password.isascii() and password
        if not sound or max(len(name), len(password)) > _SOCKS_BYTES:
            raise InvalidProxy(
                f"needs a user name and a password of 1 to {_SOCKS_BYTES} ASCII characters each for SOCKS"
            )
    elif ":" in name:  # RFC 7617, section 2: it would end the name
        raise InvalidProxy("has a ':' (%3A) in its user name, which HTTP cannot carry")
    return Secret(name), Secret(password)
