"""What moves the bytes: an event loop, and who makes its transports.

Four combinations work, and the protocols above them do not know which one runs:
asyncio's own loop or uvloop, each with its own transports or aiofastnet's. The
default is uvloop, which did best in ``bench/`` (docs/explanation/performance.md), and asyncio where
it is missing; ``AI_MUX_ENGINE`` chooses another, for measuring and finding faults.
"""

import asyncio
import ctypes
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from ai_mux.errors import ConfigError
from ai_mux.outbound.connect import Target, Transports, connect
from ai_mux.proxy.routes import Origin
from ai_mux.proxy.upstream import STALL_S

ENVIRONMENT: Final = "AI_MUX_ENGINE"
ENGINES: Final = ("asyncio", "uvloop", "aiofastnet", "uvloop+aiofastnet")
TLS_HANDSHAKE_S: Final = 10.0
# What a slow client has still to take goes out in this time as well: as much as without TLS.
_TLS_SHUTDOWN_S: Final = STALL_S

T = TypeVar("T")


# glibc's <malloc.h>: mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 32 * 1024 * 1024
_MAPPED_FROM_BYTES: Final = 4 * 1024 * 1024


def keep_freed_memory() -> None:
    """Let glibc keep up to 32 MiB of what was freed, instead of giving it back at once.

    The copy of a large body is freed when its answer begins, and the next body takes
    as much again: without this, all of it goes to the kernel and comes back page by
    page, some 10 % of an upload's time. Other C libraries have no such call, nor need.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)


class Engine:
    """An event loop and its transports.

    Attributes:
        name: One of ``ENGINES``.
        tls: Which TLS implementation works below, for the log.
    """

    def __init__(self, name: str) -> None:
        """Load what ``name`` needs.

        Raises:
            ConfigError: There is no such engine, or it is not installed.
        """
        if name not in ENGINES:
            raise ConfigError(f"{ENVIRONMENT}: there is no engine {name!r}; use one of {', '.join(ENGINES)}")
        self.name = name
        self.tls = "openssl through the ssl module"
        self._fast: Any = None
        self._new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
        try:
            if "uvloop" in name:
                import uvloop  # noqa: PLC0415 - optional

                self._new_loop = uvloop.new_event_loop
            if "aiofastnet" in name:
                import aiofastnet  # noqa: PLC0415 - optional

                self._fast = aiofastnet
                if aiofastnet.OPENSSL_DYN_LIBS is not None:
                    self.tls = "openssl called directly"
        except ImportError as exc:
            raise ConfigError(f"{ENVIRONMENT}: {name} needs the package {exc.name}; install it") from exc

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine ``main`` in a new loop to its end, and return its result."""
        keep_freed_memory()
        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            return runner.run(main)

    async def connect(
        self, origin: Origin, protocol: asyncio.BaseProtocol, *, timeout_s: float
    ) -> asyncio.Transport:
        """Open a transport to ``origin``, through its proxy where it has one.

        Raises:
            OSError: It or its proxy could not be reached, refused, or is not trusted.
            TimeoutError: Not within ``timeout_s``, TLS included.
        """
        return await connect(
            Target(host=origin.host, port=origin.port, tls=origin.tls),
            protocol,
            via=origin.via,
            transports=self._transports(),
            timeout_s=timeout_s,
        )

    def _transports(self) -> Transports:
        """Return who makes transports, TLS inside TLS included, which all of them can."""
        if self._fast is None:
            return Transports.of_loop()
        loop = asyncio.get_running_loop()
        return Transports(
            create_connection=partial(self._fast.create_connection, loop),
            start_tls=partial(self._fast.start_tls, loop),
        )

    async def accept(
        self, sock: socket.socket, protocol: asyncio.BaseProtocol, tls: ssl.SSLContext | None
    ) -> None:
        """Serve an accepted connection with ``protocol``.

        Raises:
            OSError: The TLS handshake failed.
        """
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if tls is not None:
            options = {
                "ssl": tls,
                "ssl_handshake_timeout": TLS_HANDSHAKE_S,
                "ssl_shutdown_timeout": _TLS_SHUTDOWN_S,
            }
        if self._fast is not None:
            await self._fast.connect_accepted_socket(loop, lambda: protocol, sock, **options)
        else:
            await loop.connect_accepted_socket(lambda: protocol, sock, **options)


def chosen() -> Engine:
    """Return the engine that the environment asks for, else the best that is installed.

    Raises:
        ConfigError: The environment asks for one that there is not.
    """
    wanted = os.environ.get(ENVIRONMENT)
    if wanted:
        return Engine(wanted)
    try:
        return Engine("uvloop")
    except ConfigError:
        return Engine("asyncio")
