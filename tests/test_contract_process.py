"""The process as an operator sees it: what it imports, and what signals do to it."""

import asyncio
import json
import subprocess
import sys

from clients.gateway_process import TOKEN, running


def test_starting_imports_no_web_framework():
    """The design's section 6: aiohttp is imported when a credential is renewed, never at start."""
    program = "import sys, ai_mux.cli, ai_mux.app; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "ai_mux.app" in done.stdout.split()
    assert "aiohttp" not in done.stdout.split()


def _events(gateway):
    lines = gateway.log.read_text().splitlines(keepends=True)
    return [json.loads(line)["event"] for line in lines if line.endswith("\n")]


async def _until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not come true")


async def _status(gateway, path="/claude/v1/models"):
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nx-api-key: {TOKEN}\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


async def test_sighup_rereads_credentials_and_configuration(tmp_path):
    async with running(tmp_path, providers=[{"name": "claude", "base_url": "http://127.0.0.1:9"}]) as gateway:
        assert await _status(gateway) == 503
        file = tmp_path / "state" / "claude" / ".credentials.json"
        file.touch(0o600)
        file.write_text(json.dumps({"claudeAiOauth": {"accessToken": "made-up", "expiresAt": None}}))
        gateway.program.send_signal(1)
        await _until(lambda: {"config.reloaded", "credential.read"} <= set(_events(gateway)))
        assert await _status(gateway) == 502  # the credential is there, the provider is not
        config = tmp_path / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "providers": []}))
        gateway.program.send_signal(1)
        await _until(lambda: _events(gateway).count("config.reloaded") == 2)
        assert await _status(gateway) == 404
        assert gateway.program.returncode is None
        await gateway.stop()


async def test_sigterm_ends_it_in_order_with_exit_code_0(tmp_path):
    async with running(tmp_path, providers=[]) as gateway:
        assert await _status(gateway, "/healthz") == 200
        await gateway.stop()
        assert _events(gateway)[-2:] == ["stopping", "stopped"]


async def test_field_note_20_a_storm_of_count_tokens_passes_and_changes_nothing(tmp_path):
    """40 at once, each refused by the provider: each client hears so, and a message is served as before."""
    busy = b"HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\nContent-Length: 4\r\n\r\nbusy"
    fine = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

    async def serve(reader, writer):
        while head := await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            writer.write(busy if b"/v1/messages/count_tokens" in head else fine)
        writer.close()

    upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    file = tmp_path / "state" / "claude" / ".credentials.json"
    file.parent.mkdir(parents=True, mode=0o700)
    file.touch(0o600)
    file.write_text(json.dumps({"claudeAiOauth": {"accessToken": "made-up", "expiresAt": None}}))
    async with running(
        tmp_path, providers=[{"name": "claude", "base_url": f"http://127.0.0.1:{port}"}]
    ) as it:
        host = it.url.removeprefix("http://")

        async def ask(path):
            reader, writer = await asyncio.open_connection(*host.split(":"))
            fields = f"Host: {host}\r\nx-api-key: {TOKEN}\r\nConnection: close\r\nContent-Length: 2"
            writer.write(f"POST /claude{path} HTTP/1.1\r\n{fields}\r\n\r\n{{}}".encode())
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return answer

        refused = await asyncio.gather(*(ask("/v1/messages/count_tokens") for _ in range(40)))
        for answer in refused:
            assert answer.startswith(b"HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\n")
            assert answer.endswith(b"\r\n\r\nbusy")
        assert (await ask("/v1/messages")).endswith(b"fine")
        assert [status for *_, status in await it.requests()] == [429] * 40 + [200]
    upstream.close()


async def test_a_refused_requests_line_says_what_was_told_and_when(tmp_path):
    """The body of our own answers counts, and a refused path has its provider's name."""
    async with running(tmp_path, providers=[{"name": "claude", "base_url": "http://127.0.0.1:9"}]) as gateway:
        assert await _status(gateway, "/claude/v1/files") == 403
        await gateway.stop()
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    (line,) = [line for line in lines if line["event"] == "request.done"]
    assert (line["user"], line["provider"], line["status"]) == ("alice", "claude", 403)
    assert line["bytes_out"] > 100
    assert 0 < line["head_ms"] <= line["total_ms"]
