"""A gateway process, as an operator would run it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TOKEN: Final = "made-up-user-token-of-alice"
STRANGER: Final = "made-up-token-of-a-stranger"

_PASSED: Final = frozenset({"PATH", "AI_MUX_ENGINE"})
_START_LIMIT_S: Final = 20
_STOP_LIMIT_S: Final = 30  # shutdown_timeout is 10 s by default


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A running gateway.

    Attributes:
        log: The file that its stderr goes to.
        program: The process.
    """

    log: Path
    program: Process

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return self.addresses()[0]

    def addresses(self) -> list[str]:
        """Return where it says that it listens, or nothing while it does not.

        Its own word is better than a connection that succeeds: a port of the range that
        outgoing connections use can belong to another, and on loopback even to the caller.
        """
        lines = self.log.read_text().splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return next((line["addresses"] for line in whole if line["event"] == "listening"), [])

    async def stop(self) -> None:
        """Stop it as a supervisor would, and check that it ends well."""
        if self.program.returncode is None:
            self.program.terminate()
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await self.program.wait()
        except TimeoutError:
            self.program.kill()
            await self.program.wait()
        assert self.program.returncode == 0, self.log.read_text()

    async def kill(self) -> None:
        """End it as a machine that loses its power would, so far as a process can."""
        self.program.kill()
        await self.program.wait()

    async def requests(self) -> list[tuple[str, str, int]]:
        """Stop it, so that its log is whole, and return (method, path, status) of each logged request."""
        await self.stop()
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [(line["method"], line["path"], line["status"]) for line in lines if "method" in line]


@contextlib.asynccontextmanager
async def running(
    directory: Path, *, providers: list[dict[str, Any]], settings: dict[str, Any] | None = None
) -> AsyncIterator[Gateway]:
    """Run ``python -m ai_mux`` with one user and ``directory``/state until the block ends.

    ``settings`` are further keys of the configuration, and replace those that stand here.
    """
    config = directory / "config.json"
    config.touch(0o600)
    config.write_text(json.dumps({
        "listen": "127.0.0.1:0",
        "state_dir": str(directory / "state"),
        "providers": providers,
        "users": [{"name": "alice", "token": TOKEN}],
    } | (settings or {})))  # fmt: skip
    async with _process(config, directory / "gateway.log") as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def restarted(gateway: Gateway, directory: Path) -> AsyncIterator[Gateway]:
    """Stop a gateway as who does not wait for its requests to end, and run it again at the same address."""
    gateway.program.terminate()
    async with asyncio.timeout(_STOP_LIMIT_S):
        while '"stopping"' not in gateway.log.read_text():
            assert gateway.program.returncode is None, gateway.log.read_text()
            await asyncio.sleep(0.02)
    await gateway.stop()
    config = directory / "config.json"
    configured = json.loads(config.read_text())
    config.write_text(json.dumps(configured | {"listen": gateway.url.removeprefix("http://")}))
    async with _process(config, directory / "gateway-again.log") as again:
        yield again


async def verb(directory: Path, *arguments: str) -> tuple[int, str]:
    """Run a verb with the configuration in ``directory``; return its exit code and what it printed."""
    passed = {name: os.environ[name] for name in _PASSED & os.environ.keys()}
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ai_mux", *arguments, "--config", str(directory / "config.json"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"HOME": str(directory)} | passed,
    )  # fmt: skip
    async with asyncio.timeout(_START_LIMIT_S):
        out, err = await program.communicate()
    assert program.returncode is not None
    return program.returncode, (out + err).decode()


@contextlib.asynccontextmanager
async def _process(config: Path, log: Path) -> AsyncIterator[Gateway]:
    passed = {name: os.environ[name] for name in _PASSED & os.environ.keys()}
    with log.open("wb") as stderr:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ai_mux", "--config", str(config), stdin=subprocess.DEVNULL, stderr=stderr,
            env={"HOME": str(config.parent)} | passed,
        )  # fmt: skip
    gateway = Gateway(log=log, program=program)
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            while not gateway.addresses():
                assert gateway.program.returncode is None, gateway.log.read_text()
                await asyncio.sleep(0.02)
        yield gateway
    finally:
        if gateway.program.returncode != -signal.SIGKILL:
            await gateway.stop()
