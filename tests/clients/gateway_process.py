"""A gateway process, as an operator would run it."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TOKEN: Final = "made-up-user-token-of-alice"
STRANGER: Final = "made-up-token-of-a-stranger"

_START_LIMIT_S: Final = 20
_STOP_LIMIT_S: Final = 30  # shutdown_timeout is 10 s by default


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A running gateway.

    Attributes:
        url: Its address, without a path.
        log: The file that its stderr goes to.
        program: The process.
    """

    url: str
    log: Path
    program: Process

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

    async def requests(self) -> list[tuple[str, str, int]]:
        """Stop it, so that its log is whole, and return (method, path, status) of each logged request."""
        await self.stop()
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [(line["method"], line["path"], line["status"]) for line in lines if "status" in line]


@contextlib.asynccontextmanager
async def running(directory: Path, *, providers: list[dict[str, Any]]) -> AsyncIterator[Gateway]:
    """Run ``python -m ai_mux`` with one user and ``directory``/state until the block ends."""
    port = _free_port()
    config, log = directory / "config.json", directory / "gateway.log"
    config.touch(0o600)
    config.write_text(json.dumps({
        "listen": f"127.0.0.1:{port}",
        "state_dir": str(directory / "state"),
        "providers": providers,
        "users": [{"name": "alice", "token": TOKEN}],
    }))  # fmt: skip
    with log.open("wb") as stderr:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ai_mux", "--config", str(config), stdin=subprocess.DEVNULL, stderr=stderr,
            env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        )  # fmt: skip
    gateway = Gateway(url=f"http://127.0.0.1:{port}", log=log, program=program)
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            while not await _accepts(port):
                assert program.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield gateway
    finally:
        await gateway.stop()


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
