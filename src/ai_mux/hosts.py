"""What a host is when it is written down: a name or an address. No resolver is asked."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

# RFC 1123, section 2.1. A name whose last label is a number would be an address (WHATWG URL, 3.5).
_NAME: Final = re.compile(
    r"(?=.{1,253}\.?$)(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.)*(?![0-9]+\.?$)(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.?"
)

# Where a URL names no port (RFC 9110, sections 4.2.1 and 4.2.2).
DEFAULT_PORTS: Final[Mapping[str, int]] = {"https": 443, "http": 80}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_host(host: str) -> bool:
    """Tell whether ``host`` is a name or an IPv4 address."""
    return _NAME.fullmatch(host) is not None or isinstance(address_of(host), ipaddress.IPv4Address)


def is_ipv6(host: str) -> bool:
    """Tell whether ``host`` is an IPv6 address, without brackets."""
    return isinstance(address_of(host), ipaddress.IPv6Address)


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is 127.0.0.0/8, ::1 or localhost (RFC 6761, section 6.3)."""
    if host.lower() == "localhost":
        return True
    address = address_of(host)
    # ::ffff:127.0.0.1 reaches the same machine; not every supported Python says so.
    return address is not None and unmapped(address).is_loopback


def is_local_name(authority: str) -> bool:
    """Tell whether a Host field names this machine as nobody's DNS can: localhost, or an IP address.

    A page of any site may ask a server on this machine, under a name that its owner makes
    lead here (DNS rebinding). Such a name stands in the Host field; an address cannot be made to lie.

    Args:
        authority: The field's value: a host, with or without a port.
    """
    name = authority.lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    name = name.removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or address_of(name) is not None


def address_of(host: str) -> Address | None:
    """Return the address that ``host`` is, or None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv4-mapped IPv6 address stands for (RFC 4291, section 2.5.5.2)."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
