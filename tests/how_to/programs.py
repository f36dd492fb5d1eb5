"""Programs that serve on loopback while a test runs: started as an operator does, ended by a signal."""

import asyncio
import contextlib
import os
import random
import socket
import subprocess
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_START_LIMIT_S: Final = 20
_STOP_LIMIT_S: Final = 15  # ai-mux's shutdown_timeout is 10 s by default
_STOP_SIGNALS: Final = 3


@contextlib.asynccontextmanager
async def started(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    log: Path,
    is_ready: Callable[[], bool],
) -> AsyncIterator[Process]:
    """Run a program until the block ends.

    Args:
        command: The program and its arguments.
        cwd: Where it runs.
        environment: All of its environment.
        log: Where what it prints goes.
        is_ready: Tells that it serves.
    """
    with log.open("wb") as out:
        program = await asyncio.create_subprocess_exec(
            *command, cwd=cwd, env=dict(environment),
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            while not is_ready():
                assert program.returncode is None, _said(log)
                await asyncio.sleep(0.02)
        yield program
    finally:
        await _stop(program)
    assert program.returncode == 0, f"ended with {program.returncode}: {_said(log)}"


async def _stop(program: Process) -> None:
    # Asked again, because nginx without a master looks for a signal first and then waits for events:
    # one that comes between the two is not noticed until something else happens.
    for _ in range(_STOP_SIGNALS):
        if program.returncode is None:
            program.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_LIMIT_S):
                await program.wait()
            return
    program.kill()
    await program.wait()


def _said(log: Path) -> str:
    return log.read_text(errors="replace")


def free_port() -> int:
    """Return a port that nobody listens on, and that no outgoing connection can take meanwhile."""
    for _ in range(1000):
        port = random.randrange(10_000, 32_000)  # Linux takes others from 32,768 on, macOS from 49,152
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is no free port")


def answers(port: int) -> bool:
    """Tell whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def bare(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of somebody who has set nothing."""
    return {"PATH": os.environ["PATH"] + ":/usr/sbin", "HOME": str(home), "LC_ALL": "C.UTF-8"} | more
