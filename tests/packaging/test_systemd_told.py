"""What ai-mux tells the systemd that started it, over a real socket: ready, reloading, stopping, alive."""

import asyncio
import json
import os
import signal
import socket
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_manager import LIMIT_S, TOKEN, ask, configure, fields, service, told
from whole import pieces_in

from ai_mux.systemd import Manager

WATCHDOG_S = 0.4
ACCESS = "Wd6uHn3Lf0Gb5eTa1Qo7"


def login(directory, **members):
    file = directory / "state" / "claude" / ".credentials.json"
    file.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    file.touch(0o600)
    file.write_text(json.dumps({"claudeAiOauth": {"accessToken": ACCESS, "expiresAt": None, **members}}))


def watched(pid="its own"):
    return {"WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)), "WATCHDOG_PID": pid}


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_a_service_says_when_it_is_ready_reloads_and_stops(tmp_path, kind):
    login(tmp_path)
    config = configure(tmp_path)
    where = tmp_path / "notify" if kind == "path" else f"@ai-mux-test-{os.getpid()}"
    with told(where) as systemd:
        async with service(config, environ={"NOTIFY_SOCKET": systemd.address}) as it:
            ready = await systemd.next()
            port = int((await it.logged("listening"))["addresses"][0].rpartition(":")[2])
            assert ready == {
                "READY": "1",
                "STATUS": f"serving claude on http://127.0.0.1:{port}; 1 credential usable",
            }
            assert (await ask(port)).endswith(b"ok\n")

            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            it.program.send_signal(signal.SIGHUP)
            reloading = await systemd.until("RELOADING")
            assert reloading["RELOADING"] == "1"
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            assert before <= int(reloading["MONOTONIC_USEC"]) <= now
            assert (await systemd.until("READY"))["READY"] == "1"
            await it.logged("config.reloaded")

            await it.stop()
            stopping = await systemd.until("STOPPING")
            # 10 s for requests, 60 for a renewal, and the last rows.
            assert 70e6 < int(stopping["EXTEND_TIMEOUT_USEC"]) < 90e6
            assert systemd.left() == []


async def test_after_a_reload_that_is_refused_it_is_ready_again(tmp_path):
    config = configure(tmp_path)
    with told(tmp_path / "notify") as systemd:
        async with service(config, environ={"NOTIFY_SOCKET": systemd.address}) as it:
            await systemd.until("READY")
            config.write_text('{"listen": 8080}')
            it.program.send_signal(signal.SIGHUP)
            await systemd.until("RELOADING")
            await systemd.until("READY")
            await it.logged("config.not_reloaded")
            await it.stop()


async def test_what_is_wrong_with_a_credential_is_its_status_without_any_token(tmp_path):
    config = configure(tmp_path, providers=["claude", "chatgpt"])
    login(tmp_path, expiresAt=1000)
    with told(tmp_path / "notify") as systemd:
        async with service(config, environ={"NOTIFY_SOCKET": systemd.address, **watched()}) as it:
            status = (await systemd.until("READY"))["STATUS"]
            assert "claude:login has ended" in status
            assert "chatgpt:login is missing" in status
            assert "ai-mux login chatgpt" in status
            assert not pieces_in(ACCESS, status) and not pieces_in(TOKEN, status)
            login(tmp_path)  # mended: said by itself
            while "claude:" in (await systemd.until("STATUS"))["STATUS"]:
                pass
            await it.stop()


# The watchdog


async def test_a_service_that_lives_says_so_twice_as_often_as_is_asked(tmp_path):
    config = configure(tmp_path)
    with told(tmp_path / "notify") as systemd:
        async with service(config, environ={"NOTIFY_SOCKET": systemd.address, **watched()}) as it:
            await systemd.until("READY")
            await systemd.until("WATCHDOG")
            heard = [time.monotonic()]
            for _ in range(5):
                await systemd.until("WATCHDOG")
                heard.append(time.monotonic())
            # On a busy machine one may be late: what counts is that it is not the whole interval.
            assert min(after - before for before, after in pairwise(heard)) < 0.75 * WATCHDOG_S
            await it.stop()


async def test_a_service_that_stands_still_says_nothing(tmp_path):
    config = configure(tmp_path)
    with told(tmp_path / "notify") as systemd:
        async with service(config, environ={"NOTIFY_SOCKET": systemd.address, **watched("")}) as it:
            await systemd.until("WATCHDOG")
            it.program.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(os.waitid, os.P_PID, it.program.pid, os.WSTOPPED)
            systemd.left()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2 * WATCHDOG_S):
                    await systemd.next()
            it.program.send_signal(signal.SIGCONT)
            await systemd.until("WATCHDOG")
            await it.stop()


async def test_a_loop_that_is_blocked_says_nothing_although_its_process_runs(tmp_path):
    with told(tmp_path / "notify") as systemd:
        manager = Manager(systemd.address, watchdog_s=0.05)
        alive = asyncio.create_task(manager.keep_informed(lambda: "well"))
        await systemd.until("WATCHDOG")
        systemd.left()
        systemd.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            systemd.sock.recv(4096)  # which blocks the loop as well
        systemd.sock.setblocking(False)
        await systemd.until("WATCHDOG")
        alive.cancel()
        await asyncio.gather(alive, return_exceptions=True)


async def test_a_watchdog_that_is_meant_for_another_process_is_not_answered(tmp_path):
    config = configure(tmp_path)
    with told(tmp_path / "notify") as systemd:
        environ = {"NOTIFY_SOCKET": systemd.address, **watched(str(os.getpid()))}
        async with service(config, environ=environ) as it:
            await systemd.until("READY")
            await it.stop()
            await systemd.until("STOPPING")
        environ = {"NOTIFY_SOCKET": "x", **watched(str(os.getpid()))}
        assert Manager.taken_from(environ, pid=os.getpid() + 1)._watchdog_s is None
        assert environ == {}


# What cannot be told


@pytest.mark.parametrize("address", ["/absent/notify", "@" + "x" * 200, "vsock:2:1234", "@"])
async def test_a_manager_that_is_not_there_harms_nobody(tmp_path, address):
    config = configure(tmp_path)
    async with service(config, environ={"NOTIFY_SOCKET": address, **watched()}) as it:
        line = await it.logged("listening")
        assert (await ask(int(line["addresses"][0].rpartition(":")[2]))).endswith(b"ok\n")
        await it.stop()


async def test_what_systemd_has_no_time_to_read_is_said_again(tmp_path):
    with told(tmp_path / "notify") as systemd:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as busy:
            busy.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    busy.sendto(b"BUSY=1", systemd.address)
        manager = Manager(systemd.address, watchdog_s=0.05)
        manager.ready("well")
        assert all("READY" not in message for message in systemd.left())
        alive = asyncio.create_task(manager.keep_informed(lambda: "well"))
        assert (await systemd.next())["READY"] == "1"
        await systemd.until("WATCHDOG")
        alive.cancel()
        await asyncio.gather(alive, return_exceptions=True)


@given(st.text(max_size=3000))
def test_no_status_is_more_than_one_field_or_longer_than_systemd_reads(text):
    with told(f"@ai-mux-status-{os.getpid()}") as systemd:
        Manager(systemd.address).ready(text)
        message = systemd.sock.recv(8192)
        assert len(message) <= 4096
        assert list(fields(message)) == ["READY", "STATUS"]


def test_without_a_manager_nothing_is_done_and_the_environment_stays():
    environ = {"HOME": "/nonexistent"}
    manager = Manager.taken_from(environ, pid=1)
    manager.ready("well")
    manager.reloading()
    manager.stopping("going", within_s=1)
    asyncio.run(asyncio.wait_for(manager.keep_informed(lambda: "well"), LIMIT_S))
    assert environ == {"HOME": "/nonexistent"}
