"""The admin listener of a whole ai-mux: what goes through the proxy is what it tells of."""

import asyncio
import json
import os
import socket
import subprocess
import sys

import pytest
from engine.wires import Wire, eventually
from fakes.renewing import claude_file
from how_to.programs import free_port
from prometheus_client.parser import text_string_to_metric_families as parsed
from whole import ACCESS, ALICE, BOB, REFRESH, Origin, claude, pieces_in, request, whole

ADMIN = "Pv4Jd8Sx1Nq6Ry3Ke7"
ANSWER = json.dumps(
    {
        "type": "message",
        "model": "claude-sonnet-4-5-20250929",
        "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3},
    }
).encode()


def answer(_) -> bytes:
    fields = (
        b"Content-Type: application/json\r\n"
        b"anthropic-ratelimit-unified-5h-utilization: 0.62\r\n"
        b"anthropic-ratelimit-unified-5h-reset: 1800009000\r\n"
    )
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(ANSWER), ANSWER)


@pytest.fixture
async def origin():
    return Origin(answer)


@pytest.fixture
async def mux(tmp_path, origin):
    """A whole ai-mux with an admin listener, not yet started."""
    async with whole(tmp_path, origins=[origin]) as it:
        it.secrets += [ACCESS, REFRESH, ADMIN]
        ends = it.clock.wall + 7200
        claude_file(it.state / "claude" / ".credentials.json", access=ACCESS, refresh=REFRESH, ends=ends)
        it.admin = free_port()
        it.configure(providers=[claude(origin)], admin={"listen": f"127.0.0.1:{it.admin}", "token": ADMIN})
        yield it


async def asked(mux, path, token=ADMIN):
    wire = await Wire.to(mux.admin)
    try:
        await wire.send(request(f"GET {path}", token=token))
        return await wire.message()
    finally:
        wire.close()


async def samples(mux):
    text = (await asked(mux, "/metrics")).body.decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parsed(text)
        for sample in family.samples
    }


async def test_requests_are_told_with_what_they_used_and_without_a_secret(mux):
    await mux.start()
    assert (await mux.ask()).status == 200
    assert (await mux.ask(token="made-up-and-unknown")).status == 401
    found = await samples(mux)
    by_provider = ("provider", "claude")
    assert found["ai_mux_requests_total", ("end", "done"), by_provider, ("status", "200")] == 1
    assert found["ai_mux_unidentified_requests_total", ("status", "401")] == 1
    model = ("model", "claude-sonnet-4-5")
    assert found["ai_mux_tokens_total", ("kind", "output"), model, by_provider] == 5
    assert found["ai_mux_user_tokens_total", ("user", "alice")] == 18
    assert found["ai_mux_notional_cost_dollars_total", model, by_provider] > 0
    login = ("credential", "claude:login")
    assert found["ai_mux_credential_usable", login] == 1
    assert found["ai_mux_credential_expires_in_seconds", login] == 7200
    assert found["ai_mux_provider_window_used_ratio", login, ("window", "5h")] == 0.62
    assert found["ai_mux_model_requests_running",] == 0
    shown = "".join([(await asked(mux, path)).body.decode() for path in ("/metrics", "/status")])
    for secret in (ACCESS, REFRESH, ADMIN, ALICE, BOB):
        assert not pieces_in(secret, shown)


async def test_the_token_of_a_user_opens_nothing_here_and_this_one_nothing_there(mux):
    await mux.start()
    assert (await asked(mux, "/status", token=ALICE)).status == 401
    assert (await mux.ask(token=ADMIN)).status == 401


async def test_while_it_stops_it_is_alive_and_not_ready(mux, origin):
    """A balancer must learn of the end while the last answers are still on their way."""
    waits, asked_for = asyncio.Event(), asyncio.Event()

    async def slowly(wire):
        message = await wire.message()
        asked_for.set()
        await waits.wait()
        await wire.send(answer(message))

    origin.upstream.serve(slowly)
    await mux.start()
    assert (await asked(mux, "/readyz")).status == 200
    running = asyncio.create_task(mux.ask())
    await asked_for.wait()
    assert (await samples(mux))["ai_mux_model_requests_running",] == 1
    stopping = asyncio.create_task(mux.app.stop())
    await eventually(lambda: mux.app.server.draining, what="it drains")
    ready, alive = await asked(mux, "/readyz"), await asked(mux, "/healthz")
    assert (ready.status, ready.body) == (503, b"draining\n")
    assert alive.status == 200
    waits.set()
    assert (await running).status == 200
    await stopping
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", mux.admin)


async def test_status_says_to_a_person_how_it_is(mux):
    await mux.start()
    await mux.ask()
    env = {"PATH": os.environ["PATH"], "HOME": str(mux.directory)}
    env |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = [sys.executable, "-m", "ai_mux", "status", "--config", str(mux.path)]
    done = await asyncio.to_thread(
        subprocess.run, command, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "claude:login  live   2h       yes        0         0" in done.stdout
    assert "claude:login  5h      62%   2h30m" in done.stdout
    assert "since the start: 1 requests (0 errors, 0 unmetered), 18 tokens" in done.stdout


def test_an_admin_address_that_is_taken_ends_the_program_with_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admin = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        path = tmp_path / "c.json"
        path.write_text(
            json.dumps({"listen": "127.0.0.1:0", "state_dir": str(tmp_path / "state"), "admin": admin})
        )
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        env |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        command = [sys.executable, "-m", "ai_mux", "--config", str(path)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "ai-mux: admin.listen: cannot listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
