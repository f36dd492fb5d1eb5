"""A whole ai-mux in this process, from its configuration file to its sockets, and providers for it.

When it is closed it asserts what must hold after every test whatsoever: no task or
descriptor is left, no request counts as running, no exception went astray, and no secret
stands in the log.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from engine.harness import descriptors, none_left
from engine.upstream import Upstream
from engine.wires import Message, Wire, eventually
from fakes.clock import FakeClock

from ai_mux.app import App, build
from ai_mux.config import load
from ai_mux.logs import Log
from ai_mux.providers import PROVIDERS
from ai_mux.providers.base import Backend, Provider
from ai_mux.providers.chatgpt import ChatGPT
from ai_mux.proxy.engine import Engine

# Without a word in them that could stand in a log by itself.
ALICE: Final = "zq7Kx1vBw9Rt4Hs5"
BOB: Final = "Lr3Wm8Tn5Xd2Fy60"
CAROL: Final = "Gm4Sx9Jt2Kb7Vq1Zc"  # nobody's, until a test says otherwise
ACCESS, REFRESH = "Wd6uHn3Lf0Gb5eTa1Qo7", "Xi8rMk2Vz4Pl9oBn6Wc"
USERS: Final = [{"name": "alice", "token": ALICE}, {"name": "bob", "token": BOB}]

Answer = Callable[[Message], bytes]


def ok(body: bytes = b"ok") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def refused(status: int, body: bytes = b"no") -> bytes:
    return b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


class Origin:
    """A provider that answers every request with ``answer``, and keeps what it was asked."""

    def __init__(self, answer: Answer = lambda _: ok()) -> None:
        self.answer = answer
        self.asked: list[Message] = []
        self.upstream = Upstream()
        self.upstream.serve(self._serve)
        self.url = f"http://127.0.0.1:{self.upstream.port}"

    async def _serve(self, wire: Wire) -> None:
        while True:
            self.asked.append(message := await wire.message())
            await wire.send(self.answer(message))

    @property
    def raw(self) -> bytes:
        """Every head that it was sent."""
        return b"".join(message.raw_head for message in self.asked)


def claude(origin: Origin | None, **more: object) -> dict[str, object]:
    """Return how Claude is configured, at ``origin`` if there is one."""
    return {"name": "claude", **({"base_url": origin.url} if origin else {}), **more}


class ChatGPTAt(ChatGPT):
    """ChatGPT itself, its two backends at other addresses."""

    def __init__(self, *, login: str, api_key: str) -> None:
        self._urls = {False: login, True: api_key}

    def backend(self, *, api_key: bool) -> Backend:
        return replace(super().backend(api_key=api_key), base_url=self._urls[api_key])


class Whole:
    """``Whole(directory)``, then ``configure``, ``start``, ``ask``, ``reload``.

    Attributes:
        app: The program.
        path: The configuration.
        state: Its ``state_dir``.
        clock: Its clock.
        secrets: What must never be logged, besides the users' tokens.
        port: Where it listens, once started.
    """

    def __init__(self, directory: Path, *, providers: Mapping[str, Provider] = PROVIDERS) -> None:
        self.directory = directory
        self.path = directory / "config.json"
        self.state = directory / "state"
        self.clock = FakeClock()
        self.secrets: list[str] = []
        self.providers = providers
        self._lines: list[bytes] = []
        self._marks = 0
        self._log: Log | None = None
        self._app: App | None = None
        self._astray: list[Mapping[str, Any]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def app(self) -> App:
        assert self._app is not None
        return self._app

    def configure(self, **settings: Any) -> None:
        """Write the configuration; what is not said is as in most tests. None leaves a key out."""
        whole = {
            "listen": "127.0.0.1:0",
            "state_dir": str(self.state),
            "log_level": "debug",
            "users": USERS,
            **settings,
        }
        kept = {key: value for key, value in whole.items() if value is not None}
        self.path.touch(0o600)
        self.path.write_text(json.dumps(kept, indent=1))

    async def start(self) -> None:
        """Start with the configuration that was written."""
        self._tasks = asyncio.all_tasks()
        log = Log(level="debug", write=self._write, clock=self.clock)
        self._app = build(
            load(self.path, known_providers=tuple(self.providers)),
            providers=self.providers,
            clock=self.clock,
            log=log,
            engine=Engine("asyncio"),
        )
        self._log = log
        await self._app.start()
        handler = self._app._loop_problem

        def astray(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
            self._astray.append(context)
            handler(loop, context)

        asyncio.get_running_loop().set_exception_handler(astray)
        port = self._app.addresses[0].rpartition(":")[2]
        self.port = int(port) if port.isdigit() else 0  # 0: a unix socket

    def _write(self, data: bytes, /) -> int:
        self._lines.append(bytes(data))
        return len(data)

    # Its log

    async def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the lines that were logged until now, or those with one of these events."""
        assert self._log is not None
        self._marks += 1
        self._log.error("test.mark", number=self._marks)  # what came before it is written when it is
        mark = b'"number":%d}' % self._marks
        await eventually(lambda: any(mark in line for line in self._lines[-2:]), what="the log is written")
        return self._events(*names)

    def _events(self, *names: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in b"".join(self._lines).decode().splitlines()]
        return [line for line in found if not names or line["event"] in names]

    async def logged(self, name: str, *, times: int = 1) -> list[dict[str, Any]]:
        """Wait for an event, and return every line of it."""
        await eventually(lambda: len(self._events(name)) >= times, what=lambda: f"{name} in {self._events()}")
        return self._events(name)

    # What a test does with it

    async def ask(
        self,
        line: str = "POST /claude/v1/messages",
        *fields: str,
        token: str = ALICE,
        body: bytes = b"{}",
    ) -> Message:
        """Ask one thing over a connection of its own, and return the answer."""
        wire = await Wire.to(self.port)
        try:
            return await self.ask_over(wire, line, *fields, token=token, body=body)
        finally:
            wire.close()

    async def ask_over(
        self, wire: Wire, line: str, *fields: str, token: str = ALICE, body: bytes = b"{}"
    ) -> Message:
        """Ask over a connection that may be used again."""
        await wire.send(request(line, *fields, token=token, body=body))
        return await wire.message(to_head=line.startswith("HEAD"))

    async def usage(self, *by: str, **options: str) -> list[dict[str, Any]]:
        """Return the groups that ``ai-mux usage --json`` prints in a process of its own, since ever."""
        since = {"since": "2020-01-01"} | options
        dashed = [part for name, value in since.items() for part in (f"--{name}", value)]
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ai_mux", "usage", "--config", self.path, "--json",
            "--by", ",".join(by), *dashed,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(self.directory), "PATH": os.environ["PATH"]},
        )  # fmt: skip
        out, err = await program.communicate()
        assert program.returncode == 0, err.decode()
        groups: list[dict[str, Any]] = json.loads(out, parse_float=Decimal)["groups"]
        return groups

    async def reload(self) -> None:
        """Reload as SIGHUP does, and wait for its end."""
        self.app.reload()
        await eventually(lambda: not self.app._reloads.is_running, what="it reloads")

    async def stop(self) -> None:
        """Stop in order, as SIGTERM does. ``start`` starts it again, with what its state_dir holds."""
        await self.app.stop()
        self._app = None
        assert self._log is not None
        self._log.close()

    # The end of every test

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        if self._app is not None:
            await self._app.stop()
            assert self._app._server is None or self._app.server.accounting.limiter.running == 0
            mine = {asyncio.current_task()}
            await eventually(
                lambda: not {task for task in asyncio.all_tasks() - self._tasks - mine if not task.done()},
                what=lambda: f"tasks are left: {asyncio.all_tasks() - self._tasks - mine}",
            )
        loop.set_exception_handler(None)
        if self._log is not None:
            self._log.close()
        logged = b"".join(self._lines).decode()
        for secret in (ALICE, BOB, *self.secrets):
            assert not pieces_in(secret, logged)
        assert not self._astray, self._astray
        assert not self._events("request.bug", "background.failed", "credential.bug")


@contextlib.asynccontextmanager
async def whole(
    directory: Path, *, origins: Iterable[Origin] = (), providers: Mapping[str, Provider] = PROVIDERS
) -> AsyncIterator[Whole]:
    """Give a whole ai-mux, not yet started, and close it and the origins in the end."""
    await asyncio.to_thread(int)  # the threads and their pipes are not leaks
    before = descriptors()
    it = Whole(directory, providers=providers)
    try:
        yield it
    finally:
        await it.close()
        for origin in origins:
            await origin.upstream.close()
    await none_left(before)


def request(line: str, *fields: str, token: str = ALICE, body: bytes = b"{}") -> bytes:
    """Return a request with a token, and a body unless it is a GET or HEAD."""
    bodyless = line.startswith(("GET", "HEAD"))
    lines = [f"{line} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *fields]
    if not bodyless:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if bodyless else body)


def pieces_in(secret: str, text: str) -> list[str]:
    """Return the 9-character pieces of a secret, after its public beginning, that stand in a text."""
    own = re.sub(r"^sk-(?:ant-|proj-)?(?:oat01-|api03-)?", "", secret)
    assert len(own) >= 9
    return [own[at : at + 9] for at in range(len(own) - 8) if own[at : at + 9] in text]
