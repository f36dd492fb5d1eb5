"""What a service manager is to a program: a socket that is told, variables, descriptors from 3 on.

A launcher gives itself the descriptors and becomes the program, as systemd's own child does,
because the variables hold the program's process id.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LIMIT_S: Final = 20
TOKEN: Final = "made-up-user-token-of-alice"

_LAUNCHER: Final = """
import os, sys
given, *program = sys.argv[1:]
# Copied up first, so that none is overwritten before it has been copied itself.
up = [os.dup2(int(one), 500 + at) for at, one in enumerate(given.split())]
for at, one in enumerate(up):
    os.dup2(one, 3 + at)
    os.close(one)
for name in ("LISTEN_PID", "WATCHDOG_PID"):
    if os.environ.get(name) == "its own":
        os.environ[name] = str(os.getpid())
os.execv(program[0], program)
"""


class Told:
    """A socket like systemd's, and what arrives on it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self.sock.setblocking(False)

    async def next(self) -> dict[str, str]:
        """Return the next message, by its fields."""
        async with asyncio.timeout(LIMIT_S):
            return fields(await asyncio.get_running_loop().sock_recv(self.sock, 4096))

    async def until(self, field: str) -> dict[str, str]:
        """Return the next message that has a field."""
        while field not in (message := await self.next()):
            pass
        return message

    def left(self) -> list[dict[str, str]]:
        """Return what has arrived and was not looked at."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(fields(self.sock.recv(4096)))
        return found


def fields(message: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in message.decode().split("\n"))


@contextlib.contextmanager
def told(address: object):
    """Give a socket like systemd's."""
    it = Told(str(address))
    try:
        yield it
    finally:
        it.sock.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running ai-mux.

    Attributes:
        program: Its process.
        log: What it writes on stderr.
    """

    program: Process
    log: Path

    def lines(self, *events: str) -> list[dict[str, Any]]:
        """Return the log's lines, or those with these events."""
        whole = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        found = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in found if not events or line["event"] in events]

    async def logged(self, event: str, *, times: int = 1) -> dict[str, Any]:
        """Wait for an event, and return its last line."""
        async with asyncio.timeout(LIMIT_S):
            while len(found := self.lines(event)) < times:
                assert self.program.returncode is None, self.log.read_text()
                await asyncio.sleep(0.01)
        return found[-1]

    async def ended(self) -> int:
        """Wait for its end, and return its exit code."""
        async with asyncio.timeout(LIMIT_S):
            return await self.program.wait()

    async def stop(self) -> None:
        self.program.terminate()
        assert await self.ended() == 0, self.log.read_text()


def configure(directory: Path, **settings: Any) -> Path:
    """Write a configuration and return it; None leaves a key out."""
    whole = {
        "listen": "127.0.0.1:0",
        "state_dir": str(directory / "state"),
        "providers": ["claude"],
        "users": [{"name": "alice", "token": TOKEN}],
        **settings,
    }
    config = directory / "config.json"
    config.touch(0o600)
    config.write_text(json.dumps({key: value for key, value in whole.items() if value is not None}))
    return config


@contextlib.asynccontextmanager
async def service(
    config: Path,
    *,
    environ: Mapping[str, str] | None = None,
    handed: Sequence[socket.socket] = (),
    program: Sequence[object] = (sys.executable, "-m", "ai_mux"),
) -> AsyncIterator[Service]:
    """Start ai-mux as a service, with sockets handed over as descriptors 3, 4 …; end it if it still runs."""
    given = [sock.fileno() for sock in handed]
    log = config.parent / "service.log"
    names = {"PATH": os.environ["PATH"], "HOME": str(config.parent)}
    with log.open("ab") as stderr:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _LAUNCHER, " ".join(map(str, given)), *map(str, program),
            "--config", str(config),
            stdin=subprocess.DEVNULL, stderr=stderr, pass_fds=given, env=names | dict(environ or {}),
        )  # fmt: skip
    it = Service(program=started, log=log)
    try:
        yield it
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def ask(to: int | str, path: str = "/healthz", *, host: str = "localhost", token: str = TOKEN) -> bytes:
    """Ask over a connection of its own, to a port of loopback or a unix socket; return the whole answer."""
    opening = asyncio.open_connection("127.0.0.1", to) if isinstance(to, int) else unix(to)
    reader, writer = await opening
    lines = (f"GET {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {token}", "Connection: close")
    writer.write("\r\n".join((*lines, "", "")).encode())
    async with asyncio.timeout(LIMIT_S):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def unix(path: str):
    return asyncio.open_unix_connection(path)
