"""Where the server listens: on sockets of its own, or on those that systemd hands over.

Rule 1: what is really listened on decides what is guarded, not what is written. A socket that
is handed over stands in for ``listen``, and its address for the one that was written there.

Rule 2: who opened a socket removes it. The file of a unix socket that systemd listens on stays.

Rule 3: who wrote a local ``listen`` and no users let in this machine, and nobody else. A socket unit,
which may come with the package, does not change that.
"""

import socket
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from ai_mux.config import Config, Listen
from ai_mux.errors import ConfigError
from ai_mux.proxy import sockets
from ai_mux.systemd import Handed

# What the mode of a unix socket may not give: anything to others, and the admin listener's neither to
# the group. systemd gives 0666 where no SocketMode= is written (systemd.socket(5)).
_OTHERS: Final = stat.S_IRWXO
_GROUP_AND_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


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
    config = replace(config, listen=_requests(config, handed.requests))
    if not handed.admin:
        return config
    if config.admin is None:
        raise ConfigError(
            "admin: is not configured, and the socket unit has a socket for it (FileDescriptorName=admin); "
            "add `admin` to the configuration, or disable that socket unit"
        )
    listening = [_address(sock, denied=_GROUP_AND_OTHERS) for sock in handed.admin]
    for one in listening if config.admin.token_digest is None else ():
        if one.is_open:
            raise ConfigError(
                f"admin: others on this machine may connect to the socket unit's {one.text}, and there is no "
                "token; write SocketMode=0600 beside a ListenStream= that is a path, or add admin.token_file"
            )
        if not one.is_local:
            raise ConfigError(
                f"admin: the socket unit's {one.text} is reached from elsewhere, and there is no token; "
                "add admin.token_file, or let the socket unit listen on 127.0.0.1 or a unix socket"
            )
    return replace(config, admin=replace(config.admin, listen=_most_open(listening)))


def is_wider(one: Listen, *, than: Listen) -> bool:
    """Tell whether more clients reach an address than another."""
    return _reach(one) > _reach(than)


def _requests(config: Config, handed: Iterable[socket.socket]) -> Listen:
    where = _most_open(_address(sock, denied=_OTHERS) for sock in handed)
    written = config.listen
    if config.users or where.is_local or not written.is_local or not is_wider(where, than=written):
        return where
    mend = "SocketMode=0660" if where.is_open else f"ListenStream=127.0.0.1:{where.port}"
    raise ConfigError(
        f"listen: {written.text} is written, the socket unit listens on {where.text}, which more can reach, "
        f"and there are no users, so that all of them get in; add users, or {mend} in the socket unit"
    )


def _most_open(listening: Iterable[Listen]) -> Listen:
    """Return the address that most can reach: what it needs by way of care is enough for the others."""
    return max(listening, key=_reach)


def _reach(one: Listen) -> int:
    """Return how far an address reaches, to be compared."""
    if one.path is not None:
        return 1 if one.is_open else 0
    if one.is_local:
        return 2  # more than every local user: the pages in their browsers too
    return 4 if one.host is None or one.host in sockets.ALL_INTERFACES else 3


def _address(sock: socket.socket, *, denied: int) -> Listen:
    if sock.family == socket.AF_UNIX:
        name = sockets.unix_name(sock)
        path = Path(name)
        return Listen(text=f"unix:{name}", host=None, port=0, path=path, is_open=_is_open(path, denied))
    host, port = sock.getsockname()[:2]
    everywhere = host in sockets.ALL_INTERFACES
    shown = "" if everywhere else f"[{host}]" if ":" in host else host
    return Listen(text=f"{shown}:{port}", host=None if everywhere else host, port=port, path=None)


def _is_open(path: Path, denied: int) -> bool:
    """Tell whether the mode of a unix socket's file gives what it may not.

    A name that is no path has no mode (unix(7), "abstract"), and what is not seen here may have any.
    """
    if not path.is_absolute():
        return True
    try:
        mode = path.lstat().st_mode
    except OSError:
        return True
    return not stat.S_ISSOCK(mode) or bool(mode & denied)
