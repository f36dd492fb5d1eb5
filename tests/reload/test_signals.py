"""SIGHUP, as a supervisor sends it to the program: often, early, late."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from clients.gateway_process import TOKEN, running

STORM = 500


def events(log: Path) -> list[dict[str, object]]:
    lines = log.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come true")


def configure(path: Path, **changes: object) -> None:
    """Change the configuration as a careful program does."""
    other = path.with_suffix(".new")
    other.touch(0o600)
    other.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    other.replace(path)


async def status(url: str, token: str = TOKEN) -> int:
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    writer.write(f"GET /claude/v1/models HTTP/1.1\r\nHost: localhost\r\nx-api-key: {token}\r\n\r\n".encode())
    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


def descriptors(pid: int) -> int:
    listing = Path(f"/proc/{pid}/fd")
    if not listing.is_dir():
        pytest.skip("this system does not tell what a process has open")
    return len(list(listing.iterdir()))


async def test_a_storm_of_signals_is_gathered_and_the_last_configuration_wins(tmp_path):
    async with running(tmp_path, providers=["claude"]) as gateway:
        config, pid = tmp_path / "config.json", gateway.program.pid
        gateway.program.send_signal(signal.SIGHUP)
        await until(lambda: has(gateway.log, "config.reloaded"))
        assert await status(gateway.url) == 503
        open_before = descriptors(pid)  # with those that the loop opens at its first connection
        for number in range(STORM):
            if number % 50 == 0:
                configure(config, users=[{"name": f"u{number}", "token": f"made-up-user-token-{number:04}"}])
            gateway.program.send_signal(signal.SIGHUP)
            if number % 10 == 0:
                await asyncio.sleep(0)
        configure(config, users=[{"name": "last", "token": "made-up-user-token-last"}], providers=[])
        gateway.program.send_signal(signal.SIGHUP)
        last = 0
        for _ in range(400):
            if (last := await status(gateway.url, "made-up-user-token-last")) != 401:
                break
            await asyncio.sleep(0.05)
        assert last == 404
        assert await status(gateway.url) == 401
        seen = [line["event"] for line in events(gateway.log)]
        assert "config.not_reloaded" not in seen
        assert 1 <= seen.count("config.reloaded") <= STORM // 2
        await until(lambda: descriptors(pid) <= open_before)
        assert gateway.program.returncode is None
        await gateway.stop()


@contextlib.asynccontextmanager
async def started(directory: Path, *command: str, **environment: str) -> AsyncIterator[tuple[Process, Path]]:
    """Start a program of ours with ``directory``/config.json; yield it and its log, and end it."""
    log = directory / "log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *(command or ("-m", "ai_mux")), "--config", str(directory / "config.json"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
            env={"PATH": os.environ["PATH"], "HOME": str(directory), **environment},
        )  # fmt: skip
    try:
        yield process, log
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def hang_up(process: Process) -> None:
    """Send SIGHUP, also to who has just ended.

    Not by ``send_signal``, which would look for the end itself, and take it from who waits for it.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGHUP)


def write(path: Path) -> None:
    path.touch(0o600)
    path.write_text(json.dumps({
        "listen": "127.0.0.1:0",
        "state_dir": str(path.parent / "state"),
        "providers": ["claude"],
        "users": [{"name": "alice", "token": TOKEN}],
    }))  # fmt: skip


def has(log: Path, event: str) -> bool:
    return any(line["event"] == event for line in events(log))


async def test_a_signal_that_comes_before_it_listens_does_no_harm(tmp_path):
    """It comes while the configuration is read for the first time: there is nothing to reload yet."""
    write(tmp_path / "config.json")
    program = (
        "import os, signal\n"
        "from ai_mux import cli\n"
        "load = cli._load\n"
        "cli._load = lambda path: (os.kill(os.getpid(), signal.SIGHUP), load(path))[1]\n"
        "cli.main()\n"
    )
    async with started(tmp_path, "-c", program) as (process, log):
        await until(lambda: process.returncode is not None or has(log, "listening"))
        assert process.returncode is None
        hang_up(process)
        await until(lambda: has(log, "config.reloaded"))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest.mark.parametrize("engine", ["asyncio", "uvloop"])
async def test_signals_while_it_stops_change_neither_what_it_does_nor_how_it_ends(tmp_path, engine):
    """To its very end: the loop gives its signals back to the system before the process is gone."""
    write(tmp_path / "config.json")
    async with started(tmp_path, AI_MUX_ENGINE=engine) as (process, log):
        await until(lambda: has(log, "listening"))
        process.terminate()
        configure(tmp_path / "config.json", providers=[])
        while process.returncode is None:
            hang_up(process)
            await asyncio.sleep(0.0005)
        assert process.returncode == 0
        assert [line["event"] for line in events(log)][-2:] == ["stopping", "stopped"]
        assert not has(log, "config.reloaded")


async def test_a_configuration_from_a_pipe_cannot_be_read_again_and_does_not_hang_the_end(tmp_path):
    """As of a shell's ``<(…)``: opening it a second time would wait for a writer who never comes."""
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe, 0o600)
    async with started(tmp_path) as (process, log):
        text = json.dumps({"listen": "127.0.0.1:0", "users": [{"name": "alice", "token": TOKEN}]})
        await asyncio.to_thread(pipe.write_text, text)
        await until(lambda: has(log, "listening"))
        hang_up(process)
        await until(lambda: has(log, "config.not_reloaded"))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest.mark.parametrize("key", ["token_file", "ca_file", "cert_path"])
async def test_a_named_file_that_became_a_pipe_is_refused_and_does_not_hang_anything(tmp_path, key):
    write(tmp_path / "config.json")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    async with started(tmp_path) as (process, log):
        await until(lambda: has(log, "listening"))
        more = {
            "token_file": {"users": [{"name": "alice", "token_file": str(pipe)}]},
            "ca_file": {"providers": [{"name": "claude", "ca_file": str(pipe)}]},
            "cert_path": {"tls": {"enabled": True, "cert_path": str(pipe), "key_path": str(pipe)}},
        }[key]
        configure(tmp_path / "config.json", **more)
        hang_up(process)
        await until(lambda: has(log, "config.not_reloaded"))
        write(tmp_path / "config.json")
        hang_up(process)
        await until(lambda: has(log, "config.reloaded"))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
