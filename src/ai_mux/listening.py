"""Where the server listens: on sockets of its own, or on those that systemd hands over.

Rule 1: what is really listened on decides what is guarded, not what is written. A socket that
is handed over stands in for ``listen``, and its address for the one that was written there.

Rule 2: who opened a socket removes it. The file of a unix socket that systemd listens on stays.
"""

import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ai_mux.config import Config, Listen
from ai_mux.errors import ConfigError
from ai_mux.proxy import sockets
from ai_mux.systemd import Handed


def listening_sockets(config: Config, handed: Handed | None) -> list[socket.socket]:
    """Return the sockets on which requests are served, opened unless they are handed over.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    if handed is not None:
        return list(handed.requests)
    return sockets.listen(host=config.listen.host, port=config.listen.port, path=config.listen.path)


def as_handed(config: Config, handed: Handed | None) -> Config:
    """Return the configuration with the addresses of the sockets that are handed over.

    Raises:
        ConfigError: A socket is handed over that the configuration has no use for, or that would
            let strangers in.
    """
    if handed is None:
        return config
    config = replace(config, listen=_most_open(handed.requests))
    if not handed.admin:
        return config
    if config.admin is None:
        raise ConfigError(
            "admin: is not configured, and the socket unit has a socket for it (FileDescriptorName=admin); "
            "add `admin` to the configuration, or disable that socket unit"
        )
    where = _most_open(handed.admin)
    if config.admin.token_digest is None and not where.is_local:
        raise ConfigError(
            f"admin: the socket unit's {where.text} is reached from elsewhere, and there is no token; "
            "add admin.token_file, or let the socket unit listen on 127.0.0.1 or a unix socket"
        )
    return replace(config, admin=replace(config.admin, listen=where))


def _most_open(listening: Sequence[socket.socket]) -> Listen:
    """Return the address that most can reach: what it needs by way of care is enough for the others."""
    return max(map(_address, listening), key=lambda one: (not one.is_local, one.path is None))


def _address(sock: socket.socket) -> Listen:
    if sock.family == socket.AF_UNIX:
        name = sockets.unix_name(sock)
        return Listen(text=f"unix:{name}", host=None, port=0, path=Path(name))
    host, port = sock.getsockname()[:2]
    everywhere = host in sockets.ALL_INTERFACES
    shown = "" if everywhere else f"[{host}]" if ":" in host else host
    return Listen(text=f"{shown}:{port}", host=None if everywhere else host, port=port, path=None)
