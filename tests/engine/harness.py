"""The engine under test: a real ``Server`` on a loopback socket, between raw wires.

When a ``Gate`` is closed it asserts what must hold after every test whatsoever: no
task, descriptor, connection or reserved byte is left, no user's request counts as
running, no exception went astray, and no credential stands in the log.
"""

import asyncio
import contextlib
import hashlib
import select
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from engine.upstream import Upstream
from engine.wires import TlsWire, Wire, delivered, eventually, turns
from fakes.books import KeptRows, books, pages

from ai_mux.config import UserConfig
from ai_mux.credentials.credential import Credential
from ai_mux.errors import Unavailable
from ai_mux.logs import Log
from ai_mux.outbound import OutboundProxy
from ai_mux.providers.base import Provider
from ai_mux.providers.chatgpt import ChatGPT
from ai_mux.providers.claude import Claude
from ai_mux.proxy import sockets
from ai_mux.proxy.engine import Engine
from ai_mux.proxy.routes import Destination, Gateway, OpenPaths, Origin, Paths, Route
from ai_mux.proxy.server import Server
from ai_mux.proxy.upload import KEPT_BYTES_IN_ALL
from ai_mux.secret import Secret
from ai_mux.usage.windows import ProviderWindows
from ai_mux.users import ANONYMOUS, User, Users
from ai_mux.wire.answers import Dialect

ALICE: Final = b"alice-madeup-token-1"
BOB: Final = b"bob-madeup-token-22"
FIRST: Final = "sk-ant-oat01-madeup-first"
SECOND: Final = "sk-ant-oat01-madeup-second"


class FakeClock:
    """A clock that stands still until it is told to go."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class FakeTokens:
    """Hands out a credential as a renewer does: fresh, after a wait, or not at all.

    Attributes:
        stale: The present credential must be renewed before it is used.
        gone: Why there is no credential, or None.
        open: While cleared, renewals wait.
        refused: What ``renewed`` was told was refused, call by call.
    """

    def __init__(self) -> None:
        self.credential = _credential(FIRST)
        self.stale = False
        self.gone: str | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0
        self.refused: list[str | None] = []

    @property
    def is_api_key(self) -> bool:
        return self.credential.api_key

    def fresh(self) -> Credential | None:
        if self.gone is not None:
            raise Unavailable(self.gone)
        return None if self.stale else self.credential

    async def renewed(self, refused: Secret | None = None) -> Credential:
        self.refused.append(None if refused is None else refused.reveal())
        self.waiting += 1
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1
        if self.gone is not None:
            raise Unavailable(self.gone)
        self.stale = False
        if refused is None or refused == self.credential.access:
            self.credential = _credential(SECOND)
        return self.credential


def _credential(access: str) -> Credential:
    return Credential(access=Secret(access), refresh=Secret("sk-ant-ort01-madeup"), expires_at=None)


class Gate:
    """A running engine and the provider behind it.

    Attributes:
        clock: Its clock; move it and call ``sweep``.
        log: What it logged, line by line.
        rows: What its ledger got.
        windows: What it remembers of the provider's own limits.
        server: The server itself.
        tokens: Who hands out the credential.
        upstream: The provider.
    """

    def __init__(self, *, engine: str, upstream: Upstream, settings: dict[str, Any]) -> None:
        self.clock = FakeClock()
        self.tokens = FakeTokens()
        self.upstream = upstream
        self.lines: list[bytes] = []
        self.rows = KeptRows()
        self.windows = ProviderWindows()
        self.astray: list[dict[str, Any]] = []
        self._wires: list[Wire] = []
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, context: self.astray.append(context))
        self._tasks_before = asyncio.all_tasks()
        self._tls_listener: ssl.SSLContext | None = settings.pop("tls_listener", None)
        self._trust: Path | None = settings.pop("trust", None)
        self._via: OutboundProxy | None = settings.pop("via", None)
        max_connections = settings.pop("max_connections", 1000)
        level = settings.pop("log_level", "debug")
        self._log = Log(level=level, write=self._write, clock=self.clock)
        self.server = Server(
            gateway=self.gateway(**settings),
            accounting=books(self.rows, clock=self.clock, log=self._log),
            windows=self.windows,
            pages=pages(self.clock),
            engine=Engine(engine),
            clock=self.clock,
            log=self._log,
            max_connections=max_connections,
        )
        self._listening = sockets.listen(host="127.0.0.1", port=0, path=None)
        self.port: int = self._listening[0].getsockname()[1]
        self.server.start(self._listening, self._tls_listener)

    def _write(self, data: bytes, /) -> int:
        self.lines.append(data)
        return len(data)

    def gateway(
        self,
        *,
        users: bool = True,
        alice: Mapping[str, Any] | None = None,
        anonymous: User = ANONYMOUS,
        metered: bool = True,
        paths: Sequence[str] | None = None,
        configured: dict[bytes, bytes | None] | None = None,
        base_path: bytes = b"",
        head_timeout_s: float = 60,
        head_timeout_is_cap: bool = False,
        stream_idle_timeout_s: float = 300,
        max_body_size: int = 64 * 1024 * 1024,
    ) -> Gateway:
        trust = self._trust
        origin = Origin(
            host="127.0.0.1" if trust is None else "localhost",
            port=self.upstream.port,
            tls=None if trust is None else sockets.client_tls(trust),
            via=self._via,
        )

        def destination(provider: Provider, *, api_key: bool) -> Destination:
            backend = provider.backend(api_key=api_key)
            return Destination(
                api_key=api_key,
                origin=origin,
                base_path=base_path,
                backend=backend,
                paths=Paths(backend.paths) if paths is None else OpenPaths(paths),
                credential=f"{provider.name}:{'api-key' if api_key else 'login'}",
            )

        routes = {
            provider.name.encode(): Route(
                name=provider.name,
                provider=provider,
                login=destination(provider, api_key=False),
                api_key=destination(provider, api_key=True),
                tokens=self.tokens,
                configured=configured or {},
            )
            for provider in (Claude(), ChatGPT())
        }
        people = [("alice", ALICE, alice or {}), ("bob", BOB, {})] if users else []
        return Gateway(
            users=Users(
                [
                    UserConfig(name=name, digest=hashlib.sha256(token).digest(), **allowed)
                    for name, token, allowed in people
                ]
            ),
            anonymous=anonymous,
            metered=metered,
            routes=routes,
            dialects={b"claude": Dialect.ANTHROPIC, b"chatgpt": Dialect.OPENAI},
            guards_loopback=True,
            head_timeout_s=head_timeout_s,
            head_timeout_is_cap=head_timeout_is_cap,
            stream_idle_timeout_s=stream_idle_timeout_s,
            max_body_size=max_body_size,
        )

    # What a test does with it

    async def client(self, *, window: int | None = None) -> Wire:
        """Connect a client."""
        wire = await Wire.to(self.port, window=window)
        self._wires.append(wire)
        return wire

    async def tls_client(self, context: ssl.SSLContext, *, window: int | None = None) -> TlsWire:
        """Connect a client over TLS."""
        plain = await Wire.to(self.port, window=window)
        self._wires.append(plain)
        return await TlsWire(plain.sock, context, server=False).handshake()

    async def ask(self, request: bytes) -> tuple[Wire, Wire]:
        """Connect a client, send ``request``, and return the client and the provider's end."""
        client = await self.client()
        await client.send(request)
        return client, await self.upstream.accept()

    async def later(self, seconds: float) -> None:
        """Let time pass, a second at a time, with the sweep that belongs to each."""
        await self.seen()
        whole, rest = divmod(seconds, 1)
        for step in [1.0] * int(whole) + ([rest] if rest else []):
            self.clock.now += step
            self.server.sweep(self.clock.now)
        await turns(5)

    async def seen(self) -> None:
        """Wait until the engine has read what was sent to it, where it reads."""
        await delivered()
        await turns(5)
        for _ in range(100):  # whoever has ended looks as if there were something to read, for ever
            if not self._unread():
                break
            await turns(1)

    def _unread(self) -> bool:
        """Tell whether anything waits in a socket that the engine reads or accepts from."""
        poll = select.poll()
        reading = [one for one in (*self.server._clients, *self.server.pool._all) if not one._read_paused]
        sockets = [one.transport.get_extra_info("socket") for one in reading]
        for sock in (*sockets, *(self._listening if self.server._accepting else ())):
            if sock is not None and sock.fileno() >= 0:
                poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def at_rest(self) -> None:
        """Wait until no client is connected and no task, upstream request or reserved byte is left."""
        await eventually(lambda: not self.server.connections, what="clients are still connected")
        await eventually(lambda: not self.new_tasks(), what=f"tasks are left: {self.new_tasks()}")
        assert self.reserved == 0

    def new_tasks(self) -> set["asyncio.Task[Any]"]:
        """Return the tasks that serve requests now."""
        mine = {self.server._sweeper, *self.upstream._serving, asyncio.current_task()}
        return {task for task in asyncio.all_tasks() - self._tasks_before - mine if not task.done()}

    @property
    def reserved(self) -> int:
        """Bytes that requests keep for a replay."""
        return KEPT_BYTES_IN_ALL - self.server.budget._left

    @property
    def upstream_connections(self) -> int:
        """Connections to the provider, idle or not."""
        return len(self.server.pool._all)

    # The end of every test

    async def close(self) -> None:
        """Stop, and assert that nothing is left. Does nothing the second time."""
        if self._closed:
            return
        self._closed = True
        for wire in self._wires:
            wire.close()
        await self.server.end()
        for sock in self._listening:
            sock.close()
        await self.upstream.close()
        await eventually(lambda: not self.new_tasks(), what=f"tasks are left: {self.new_tasks()}")
        await eventually(lambda: not self.server.pool._all, what="upstream connections are left")
        assert not self.server.connections
        assert self.reserved == 0
        assert self.server.accounting.limiter.running == 0
        self._log.close()
        self._loop.set_exception_handler(None)
        # aiofastnet tells the loop, too, of a handshake that a stranger broke off, and of a
        # connection that was reset just as it was being closed.
        astray = [
            one
            for one in self.astray
            if one.get("message") != "SSL handshake failed"
            and "_finalize_close" not in str(one.get("message"))
        ]
        assert not astray, astray
        logged = b"".join(self.lines)
        for secret in (ALICE, BOB, FIRST.encode(), SECOND.encode()):
            assert secret not in logged


def descriptors() -> dict[str, str]:
    """Return what every open descriptor but the loop's own leads to; empty where the system does not tell."""
    found: dict[str, str] = {}
    listing = Path("/proc/self/fd")
    for entry in listing.iterdir() if listing.is_dir() else ():
        with contextlib.suppress(OSError):  # the listing's own
            found[entry.name] = str(entry.readlink())
    # libuv opens /dev/null when it first needs to, and keeps it.
    return {fd: to for fd, to in found.items() if to != "/dev/null" and not _wakes_a_loop(fd, to)}


def _wakes_a_loop(fd: str, to: str) -> bool:
    """Tell whether it is one of a pair of sockets without names, which only loops make here.

    uvloop makes a pair whenever it begins to run: for a fixture, for the test, and for the fixture's
    end. A thread that opens a file in between gets a number that the last pair had, and the next
    pair others.
    """
    if not to.startswith("socket:"):
        return False
    try:
        with socket.fromfd(int(fd), socket.AF_UNIX, socket.SOCK_STREAM) as one:
            return not one.getsockname() and not one.getpeername()
    except OSError:  # it is not connected, or just gone
        return False


async def none_left(before: Mapping[str, str]) -> None:
    """Wait until no descriptor is open that was not ``before``."""

    def left() -> dict[str, str]:
        return {fd: to for fd, to in descriptors().items() if fd not in before}

    await eventually(lambda: not left(), what=lambda: f"descriptors are left: {left()}")


def post(
    body: bytes = b"{}",
    *,
    path: bytes = b"/claude/v1/messages",
    token: bytes = ALICE,
    fields: bytes = b"",
    chunked: bool = False,
) -> bytes:
    """Return a plausible POST; ``fields`` are whole lines."""
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(body)
    return (
        b"POST %b HTTP/1.1\r\nHost: gate.example\r\nAuthorization: Bearer %b\r\n" % (path, token)
        + fields
        + framing
        + b"\r\n"
        + (b"" if chunked else body)
    )


def get(path: bytes = b"/claude/v1/models", *, method: bytes = b"GET", fields: bytes = b"") -> bytes:
    """Return a plausible bodyless request."""
    return b"%b %b HTTP/1.1\r\nHost: gate.example\r\nx-api-key: %b\r\n%b\r\n" % (method, path, ALICE, fields)


def ok(body: bytes = b"ok", fields: bytes = b"") -> bytes:
    """Return a response with a length."""
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body)
