"""What ai-mux and the systemd that starts it say to each other (sd_notify(3), sd_listen_fds(3)).

Each of the two protocols is a few variables of the environment, a datagram here and a
descriptor there, so this takes no library. Without the variables nothing happens.

Rule 1: being watched harms nobody. What systemd does not take now is offered again; what
cannot be sent at all is dropped.

Rule 2: that the server lives is said by its event loop. A thread that says so would go on
saying it while every client waits.

Rule 3: the variables are this process's. They leave the environment, so that no child takes
itself for the service.

Rule 4: a socket that is handed over is served on only if it is what it is taken for. Which is
which is said by its name: ``admin``, or ``listen``. Of those that were given none, only the
packaged unit's are for requests: another unit was written for something, and may mean the admin listener.
"""

import asyncio
import re
import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from ai_mux.errors import ConfigError

# A person who looks at ``systemctl status`` sees what was true so long ago, at most.
_LOOK_S: Final = 5.0
# Systemd reads 4096 bytes of a message (PIPE_BUF), and a character may take four of them.
_LONGEST_STATUS: Final = 900
# More changes than these, while systemd takes none, and the oldest are of no use to it.
_MOST_UNSAID: Final = 16
# SD_LISTEN_FDS_START: handed over are this descriptor and those after it.
_FIRST_DESCRIPTOR: Final = 3

_NOTIFY: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_LISTEN: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
# The names of sockets that nobody named: where no names are passed on, libsystemd's word for that
# (sd_listen_fds_with_names(3)), and systemd's, which is the unit's name (systemd.socket(5)).
_UNNAMED: Final = frozenset({"", "unknown", "ai-mux.socket"})
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class Manager:
    """The service manager, which is told how the server is.

    Args:
        address: Where it listens: a path, or a name of Linux's own after ``@``. None where
            nobody wants to be told.
        watchdog_s: It takes the server for dead after a silence of so many seconds.
    """

    def __init__(self, address: str | None = None, *, watchdog_s: float | None = None) -> None:
        # In the address of a socket a zero byte stands for the @ (unix(7), "abstract").
        self._address = "\0" + address[1:] if address is not None and address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._unsaid: deque[bytes] = deque(maxlen=_MOST_UNSAID)
        self._stops = False

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str], *, pid: int) -> "Manager":
        """Return the manager of which the environment tells, and take that out of the environment.

        Args:
            environ: The process's own.
            pid: The process's number. A watchdog that is meant for another process is not answered.
        """
        address, usec, watched = (environ.pop(name, "") for name in _NOTIFY)
        is_watched = watched in {"", str(pid)} and re.fullmatch("[1-9][0-9]{0,17}", usec)
        return cls(address or None, watchdog_s=int(usec) / 1e6 if is_watched else None)

    # What happens to the server

    def ready(self, status: str) -> None:
        """Requests are served: after the start, or again after a reload."""
        if not self._stops:
            self._say("READY=1", _status(status))

    def reloading(self) -> None:
        """A new configuration is being read, until ``ready`` is said again, however that ends."""
        if not self._stops:
            # By CLOCK_MONOTONIC, from which systemd knows that this is an answer to its own signal.
            usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._say("RELOADING=1", f"MONOTONIC_USEC={usec}", _status("reading the configuration"))

    def stopping(self, status: str, *, within_s: float) -> None:
        """It stops, which may take so many seconds, whatever the unit's TimeoutStopSec says."""
        self._stops = True
        self._say("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}", _status(status))

    async def keep_informed(self, status: Callable[[], str]) -> None:
        """Say how the server is, and that it lives, until cancelled. To be run by the loop that serves.

        Args:
            status: Returns a sentence for a person, and raises nothing. Holds no secret.
        """
        if self._address is None:
            return
        # Twice as often as is asked for, so that one that is late does no harm (sd_watchdog_enabled(3)).
        pause_s = _LOOK_S if self._watchdog_s is None else min(_LOOK_S, self._watchdog_s / 2)
        said = ""
        while not self._stops:
            alive = [] if self._watchdog_s is None else ["WATCHDOG=1"]
            now = _status(status())
            fields = alive if now == said else [*alive, now]
            self._send_unsaid()
            if fields and not self._unsaid:
                self._say(*fields)
                said = now
            await asyncio.sleep(pause_s)

    def _say(self, *fields: str) -> None:
        if self._address is not None:
            self._unsaid.append("\n".join(fields).encode("utf-8", "replace"))
            self._send_unsaid()

    def _send_unsaid(self) -> None:
        while self._unsaid:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                    sock.setblocking(False)
                    sock.sendto(self._unsaid[0], self._address or "")
            except BlockingIOError:
                return  # it has many messages to read; what we say comes with the next
            except OSError:
                pass
            self._unsaid.popleft()


def _status(text: str) -> str:
    # A line's end would begin another field.
    line = "".join(one if one.isprintable() else " " for one in text)
    return f"STATUS={line if len(line) <= _LONGEST_STATUS else line[:_LONGEST_STATUS] + '…'}"


# Sockets that are handed over


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """The sockets that systemd listens on and hands over.

    Attributes:
        requests: Where requests are served; at least one.
        admin: Where the admin listener answers; there may be none.
    """

    requests: tuple[socket.socket, ...]
    admin: tuple[socket.socket, ...]


def handed_sockets(environ: MutableMapping[str, str], *, pid: int) -> Handed | None:
    """Return the sockets of which the environment tells, and take that out of the environment.

    Args:
        environ: The process's own.
        pid: The process's number. What is meant for another process is left alone.

    Returns:
        None where none are handed over. They neither block nor pass on to children.

    Raises:
        ConfigError: They are not what ai-mux can listen on.
    """
    meant_for, count, names = (environ.pop(name, "") for name in _LISTEN)
    if meant_for != str(pid):
        return None
    purposes = [_purpose(name) for name in _names(count, names)]
    if "listen" not in purposes:
        raise ConfigError(
            "socket unit: none of its sockets is for requests; add a ListenStream= in a unit without "
            "FileDescriptorName=, or with FileDescriptorName=listen"
        )
    found: dict[str, list[socket.socket]] = {"listen": [], "admin": []}
    with ExitStack() as closing:
        for descriptor, purpose in enumerate(purposes, _FIRST_DESCRIPTOR):
            found[purpose].append(sock := closing.enter_context(_socket(descriptor)))
            _check(sock, descriptor)
            sock.setblocking(False)
            sock.set_inheritable(False)
        closing.pop_all()
    return Handed(requests=tuple(found["listen"]), admin=tuple(found["admin"]))


def _names(count: str, names: str) -> list[str]:
    """Return the name of each socket, in their order."""
    if not re.fullmatch("[1-9][0-9]{0,3}", count):
        raise ConfigError(
            f"socket unit: it hands over no socket (LISTEN_FDS={count}); "
            "give it a ListenStream=, or start ai-mux without it"
        )
    given = names.split(":") if names else [""] * int(count)
    if len(given) != int(count):
        raise ConfigError(
            f"socket unit: it hands over as many as {count}, with as many names as {len(given)} "
            "(LISTEN_FDS, LISTEN_FDNAMES); let systemd itself start ai-mux, without a program in between"
        )
    return given


def _purpose(name: str) -> str:
    """Return what a socket is for, by its name."""
    if name in _UNNAMED:
        return "listen"
    if name not in {"listen", "admin"}:
        raise ConfigError(
            f"socket unit: a socket named '{name}' says nothing to ai-mux; write FileDescriptorName=listen "
            "where it serves requests, or FileDescriptorName=admin where it is the admin listener's"
        )
    return name


def _socket(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=descriptor)
    except OSError as exc:
        raise ConfigError(
            f"socket unit: descriptor {descriptor} is no socket ({exc.strerror}); write ListenStream= and "
            "nothing else that listens, and let systemd itself start ai-mux, without a program in between"
        ) from None


def _check(sock: socket.socket, descriptor: int) -> None:
    which = f"socket unit: descriptor {descriptor}"
    if sock.family not in _FAMILIES:
        raise ConfigError(f"{which} is neither a TCP nor a unix socket; write a ListenStream= of that kind")
    if sock.type != socket.SOCK_STREAM:
        raise ConfigError(f"{which} is no stream socket; write ListenStream= in the socket unit")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ConfigError(f"{which} does not listen; write Accept=no in the socket unit")
