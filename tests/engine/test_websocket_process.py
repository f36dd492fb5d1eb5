"""The process as a supervisor stops it while a tunnel runs: the goodbye leaves, and the exit code is 0."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine.harness import Gate
from engine.tunnels import GOODBYE, SWITCH, frame, handshake, is_goodbye
from engine.upstream import Upstream
from engine.wires import Wire, eventually, turns

from ai_mux.proxy.engine import ENVIRONMENT

TOKEN = "made-up-token-of-a-user"
# How long a stop may take beyond what it was given: the goodbye's second, and a busy machine's.
MARGIN_S = 15.0


@pytest.fixture
def engine(gate: Gate) -> str:
    """The process runs on the engine on which the test does."""
    return gate.server._engine.name


@contextlib.asynccontextmanager
async def running(directory: Path, engine: str, upstream: Upstream, shutdown: str) -> AsyncIterator[Process]:
    """Run ai-mux with one user and a credential until the block ends."""
    state = directory / "state"
    (state / "chatgpt").mkdir(parents=True, mode=0o700)
    credential = state / "chatgpt" / "auth.json"
    credential.touch(0o600)
    credential.write_text(json.dumps({"access_token": "made-up-access", "account_id": "made-up"}))
    config = directory / "config.json"
    config.touch(0o600)
    config.write_text(json.dumps({
        "listen": "127.0.0.1:0",
        "state_dir": str(state),
        "shutdown_timeout": shutdown,
        "providers": [{"name": "chatgpt", "base_url": f"http://127.0.0.1:{upstream.port}"}],
        "users": [{"name": "alice", "token": TOKEN}],
    }))  # fmt: skip
    with (directory / "log").open("wb") as log:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ai_mux", "--config", str(config), stdin=subprocess.DEVNULL, stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": str(directory), ENVIRONMENT: engine},
        )  # fmt: skip
    try:
        yield program
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
        await upstream.close()


def events(directory: Path) -> list[dict[str, object]]:
    lines = (directory / "log").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


async def tunnel_through(directory: Path, program: Process, upstream: Upstream) -> tuple[Wire, Wire]:
    """Return both ends of a tunnel through the process, as soon as it listens."""
    async with asyncio.timeout(20):
        while not (found := [line for line in events(directory) if line["event"] == "listening"]):
            assert program.returncode is None, (directory / "log").read_text()
            await asyncio.sleep(0.02)
    client = await Wire.to(int(str(found[0]["addresses"]).rpartition(":")[2].rstrip("]'")))
    await client.send(handshake(token=TOKEN.encode()))
    provider = await upstream.accept()
    await provider.message()
    await provider.send(SWITCH)
    assert (await client.message()).status == 101
    return client, provider


async def stopping(directory: Path) -> None:
    """Wait until the process has heard of the stop."""
    await eventually(lambda: any(line["event"] == "stopping" for line in events(directory)))


async def exited(program: Process, began: float, within_s: float) -> float:
    """Return how long it took to end well, from ``began``."""
    async with asyncio.timeout(within_s + 10):
        await program.wait()
    took = time.monotonic() - began
    assert program.returncode == 0
    assert took < within_s + MARGIN_S
    return took


@pytest.mark.parametrize("leaves", [True, False], ids=["who leaves then", "who stays"])
async def test_sigterm_drains_then_says_goodbye_to_both_sides(tmp_path: Path, engine: str, leaves: bool):
    upstream = Upstream()
    async with running(tmp_path, engine, upstream, "1s") as program:
        client, provider = await tunnel_through(tmp_path, program, upstream)
        began = time.monotonic()
        program.terminate()
        await stopping(tmp_path)
        await provider.send(frame(b"still here"))
        assert await client.exactly(12) == frame(b"still here")
        told, heard = await asyncio.gather(client.end(), provider.end())
        assert told.got == GOODBYE
        assert is_goodbye(heard.got)
        assert time.monotonic() - began >= 1  # it had the whole of shutdown_timeout
        if leaves:
            client.close()
        await exited(program, began, 2)
        client.close()
    names = [line["event"] for line in events(tmp_path)]
    assert names[-4:] == ["stopping", "requests.ended", "request.done", "stopped"]
    assert TOKEN not in (tmp_path / "log").read_text()


async def test_a_second_signal_says_goodbye_at_once(tmp_path: Path, engine: str):
    upstream = Upstream()
    async with running(tmp_path, engine, upstream, "10m") as program:
        client, provider = await tunnel_through(tmp_path, program, upstream)
        program.terminate()
        await stopping(tmp_path)
        began = time.monotonic()
        program.send_signal(signal.SIGINT)
        told, heard = await asyncio.gather(client.end(), provider.end())
        assert told.got == GOODBYE
        assert is_goodbye(heard.got)
        client.close()
        await exited(program, began, 1)


async def test_a_tunnel_that_ends_by_itself_ends_the_stop(tmp_path: Path, engine: str):
    upstream = Upstream()
    async with running(tmp_path, engine, upstream, "10m") as program:
        client, provider = await tunnel_through(tmp_path, program, upstream)
        began = time.monotonic()
        program.terminate()
        await turns(5)
        client.close()
        assert (await provider.end()).got == b""
        provider.close()
        await exited(program, began, 0)
