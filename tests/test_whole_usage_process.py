"""Usage and limits of a real process: what signals and packed bodies do, and what its verbs then tell."""

import asyncio
import json
import signal

import pytest
import zstandard
from clients.gateway_process import TOKEN, running, verb
from engine.wires import Wire, eventually
from fakes.claude_answers import MODEL, TOTAL, answer
from fakes.renewing import claude_file
from how_to.programs import free_port
from whole import ACCESS, Origin, claude, request

MESSAGES = "POST /claude/v1/messages"
FIELDS = ("Content-Type: application/json", "Content-Encoding: zstd")
BOB = "made-up-user-token-of-bob"


@pytest.fixture
async def origin(tmp_path):
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", access=ACCESS, refresh=None, ends=None)
    it = Origin(lambda _: answer())
    yield it
    await it.upstream.close()


def users(**alices):
    return [{"name": "alice", "token": TOKEN, **alices}, {"name": "bob", "token": BOB}]


def packed(model):
    return zstandard.compress(json.dumps({"max_tokens": 9, "model": model}).encode())


async def ask(wire, body, token=TOKEN):
    await wire.send(request(MESSAGES, *FIELDS, token=token, body=body))
    return (await wire.message()).status


async def ask_once(port, body, token=TOKEN):
    wire = await Wire.to(port)
    try:
        return await ask(wire, body, token)
    finally:
        wire.close()


def hang_up(gateway, directory, **changes):
    """Change the configuration and send SIGHUP; return what is true once it is taken over."""
    config = directory / "config.json"
    before = gateway.log.read_text().count('"config.reloaded"')
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    gateway.program.send_signal(signal.SIGHUP)
    return lambda: gateway.log.read_text().count('"config.reloaded"') > before


async def test_packed_bodies_are_looked_into_and_sighup_under_load_loses_no_count(tmp_path, origin):
    admin = free_port()
    settings = {
        "users": users(models=["claude-sonnet-*"]),
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "audit": str(tmp_path / "audit-0.jsonl"),
    }
    async with running(tmp_path, providers=[claude(origin)], settings=settings) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        wires = [await Wire.to(port) for _ in range(3)]
        assert await ask_once(port, packed(MODEL)) == 200
        assert origin.asked[-1].body == packed(MODEL)
        assert await ask_once(port, packed("claude-opus-4-8")) == 403
        assert await ask_once(port, b"not zstd at all") == 415
        assert len(origin.asked) == 1

        reloaded = asyncio.Event()

        async def load(wire):
            asked = 0
            while not reloaded.is_set() or asked < 20:
                assert await ask(wire, packed(MODEL), BOB) == 200
                asked += 1
            return asked

        loads = [asyncio.create_task(load(wire)) for wire in wires]
        for number in range(1, 4):
            taken_over = hang_up(
                gateway,
                tmp_path,
                limits={"requests": [f"{100_000 + number}/hour"]},
                usage={"prices": {"claude-*": {"input": number, "output": number, "cache_read": number}}},
                audit=str(tmp_path / f"audit-{number}.jsonl"),
            )
            await eventually(taken_over, what="it reloads")
        reloaded.set()
        bobs = sum(await asyncio.gather(*loads))
        await eventually(hang_up(gateway, tmp_path, limits={"requests": ["1/hour"]}), what="it reloads")
        assert await ask_once(port, packed(MODEL), BOB) == 429
        code, status = await verb(tmp_path, "status", "--json")
        assert code == 0, status
        for wire in wires:
            wire.close()
        await gateway.stop()

    code, printed = await verb(tmp_path, "usage", "--json", "--by", "user")
    assert code == 0, printed
    groups = {group["user"]: group for group in json.loads(printed)["groups"]}
    assert (groups["alice"]["requests"], groups["alice"]["errors"]) == (3, 2)
    assert (groups["bob"]["requests"], groups["bob"]["errors"]) == (bobs + 1, 1)
    assert groups["bob"]["tokens"]["total"] == bobs * TOTAL
    counted = json.loads(status)["since_start"]
    assert (counted["requests"], counted["tokens"]) == (3 + bobs + 1, (1 + bobs) * TOTAL)
    audits = [tmp_path / f"audit-{number}.jsonl" for number in range(4)]
    lines = [json.loads(line) for file in audits for line in file.read_text().splitlines()]
    assert len({line["request_id"] for line in lines}) == len(lines) == 3 + bobs + 1
