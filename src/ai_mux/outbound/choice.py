"""Which proxy a target gets: the configured one, else what the environment says.

The environment is read as curl and the vendors' own clients read it. What differs
is said where it does.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from ai_mux.errors import ConfigError
from ai_mux.hosts import DEFAULT_PORTS, address_of, is_loopback, unmapped
from ai_mux.outbound.proxy import InvalidProxy, OutboundProxy, parse_proxy

# The lower case wins: it is the older form. Those for http are not read: it leads to loopback only.
_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_EXCEPTIONS: Final = ("no_proxy", "NO_PROXY")


def chosen_proxy(
    configured: OutboundProxy | None, url: str, environ: Mapping[str, str]
) -> OutboundProxy | None:
    """Return the proxy for everything that goes to ``url``, or None to go there directly.

    Args:
        configured: The provider's own; it wins, for loopback targets too.
        url: An ``https`` URL, or an ``http`` one of a loopback host; the configuration allows no others.
        environ: The process's environment.

    Raises:
        ConfigError: The variable that would be used holds no proxy. It is named, its value is not.
    """
    if configured is not None:
        return configured
    target = urlsplit(url)
    host = (target.hostname or "").rstrip(".")
    port = target.port or DEFAULT_PORTS[target.scheme]
    if is_loopback(host) or _is_excepted(host, port, _first(environ, _EXCEPTIONS)[1]):
        return None
    name, value = _first(environ, _VARIABLES)
    if not value:
        return None
    try:
        # Without a scheme it is an HTTP proxy, as every program reads these variables.
        return parse_proxy(value if "://" in value else f"http://{value}")
    except InvalidProxy as exc:
        raise ConfigError(f"environment: {name}: {exc}") from None


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    """Return the first variable that is set to something, and its value; an empty one counts as unset."""
    for name in names:
        if value := environ.get(name, "").strip():
            return name, value
    return "", ""


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    """Tell whether ``NO_PROXY`` lists a target: ``*``, a host or what ends in it, an address, a network.

    An entry may end in a port. What is none of these matches nothing, and is no error: the variable is
    shared with programs that read it otherwise, and the worst is that a proxy is used.
    """
    return any(
        _lists(entry, host.lower(), port) for entry in re.split(r"[\s,]+", exceptions.lower()) if entry
    )


def _lists(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    address = address_of(host)
    if address_of(entry) is None and (found := re.fullmatch(r"(.*[^:]|\[.*\]):([0-9]{1,5})", entry)):
        if int(found[2]) != port:
            return False
        entry = found[1]
    entry = entry.removeprefix("[").removesuffix("]")
    if address is not None:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address in network or unmapped(address) in network
    # "example.com", ".example.com" and "*.example.com" mean the same here, as the first two do for curl.
    suffix = entry.removeprefix("*").strip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))
