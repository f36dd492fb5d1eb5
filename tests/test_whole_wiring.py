"""What the configuration says of users and their use is what a whole ai-mux does."""

import json

import pytest
from engine.events import ask, ended
from engine.tunnels import SWITCH, handshake
from engine.wires import Ended, Wire, eventually
from fakes.claude_answers import MODEL, PRICES, TOTAL, answer
from fakes.machine import names
from fakes.renewing import claude_file
from whole import ACCESS, ALICE, BOB, USERS, Origin, claude, pieces_in, request, whole

MESSAGES = "POST /claude/v1/messages"
DAY_S = 86400
ENDS = 1_800_009_000
WINDOWS = (
    b"anthropic-ratelimit-unified-5h-utilization: 0.62\r\nanthropic-ratelimit-unified-5h-reset: %d\r\n" % ENDS
)
PROMPT = "Quiet Foxes Juggle Bright Vowels Exactly When Zithers Hum"
ASKED = ask(text=PROMPT)
OF_A_REQUEST = {
    "ts", "request_id", "remote", "method", "path", "user", "provider", "credential", "model", "status",
    "end", "metering", "tokens", "cost_microusd", "bytes_in", "bytes_out", "head_ms", "total_ms",
}  # fmt: skip
OF_TOKENS = {"input", "cache_read", "cache_write_5m", "cache_write_1h", "output"}
OPENAI_KEY = "sk-proj-Bn5Tq8Wc3Zr6Yk1Hd4"


class Talking(Origin):
    """A provider that speaks WebSocket, too: it answers what Codex asks once."""

    async def _serve(self, wire):
        while True:
            self.asked.append(message := await wire.message())
            if message.get(b"upgrade") is None:
                await wire.send(self.answer(message))
                continue
            await wire.send(SWITCH)
            assert await wire.exactly(len(ASKED)) == ASKED
            await wire.send(ended())
            await wire.end()


@pytest.fixture
async def origin():
    return Talking(lambda _: answer(fields=WINDOWS))


@pytest.fixture
async def mux(tmp_path, origin):
    """A whole ai-mux, not yet started, with credentials for both providers."""
    async with whole(tmp_path, origins=[origin]) as it:
        it.secrets += [ACCESS, OPENAI_KEY]
        claude_file(it.state / "claude" / ".credentials.json", access=ACCESS, refresh=None, ends=None)
        key = tmp_path / "openai-key"
        key.touch(0o600)
        key.write_text(OPENAI_KEY)
        it.settings = {
            "providers": [
                claude(origin),
                {"name": "chatgpt", "api_key_file": str(key), "base_url": origin.url},
            ],
            "audit": str(tmp_path / "audit.jsonl"),
        }
        it.configure(**it.settings)
        yield it


async def status(mux, line=MESSAGES, token=ALICE):
    return (await mux.ask(line, token=token)).status


async def page(mux, token=ALICE):
    mux.clock.pass_s(1)  # a page is remembered for so long
    return json.loads((await mux.ask("GET /usage", token=token)).body)


def audited(mux):
    return [json.loads(line) for line in (mux.directory / "audit.jsonl").read_text("ascii").splitlines()]


# Providers of a user


async def test_a_user_s_providers_hold_from_the_start_and_from_a_reload_on(mux, origin):
    mux.configure(**mux.settings, users=[USERS[0] | {"providers": ["chatgpt"]}, USERS[1]])
    await mux.start()
    assert [await status(mux), await status(mux, token=BOB)] == [403, 200]
    assert await status(mux, "POST /chatgpt/v1/responses") == 200
    assert (await page(mux))["providers"] == ["chatgpt"]
    mux.configure(**mux.settings, users=[USERS[0], USERS[1] | {"providers": ["chatgpt"]}])
    await mux.reload()
    assert [await status(mux), await status(mux, token=BOB)] == [200, 403]
    assert len(origin.asked) == 3


# usage.show_windows


async def test_field_note_12_the_owners_windows_are_shown_only_where_that_is_configured(mux):
    await mux.start()
    assert await status(mux) == 200
    shown = await page(mux)
    assert "provider_windows" not in shown
    assert "0.62" not in json.dumps(shown)
    mux.configure(**mux.settings, usage={"show_windows": True})
    await mux.reload()
    (window,) = (await page(mux, BOB))["provider_windows"]
    assert (window["provider"], window["window"], window["used"]) == ("claude", "5h", 0.62)
    mux.configure(**mux.settings)
    await mux.reload()
    assert "provider_windows" not in await page(mux, BOB)


async def test_where_it_is_configured_from_the_start_a_user_sees_those_of_their_providers(mux):
    users = [USERS[0], USERS[1] | {"providers": ["chatgpt"]}]
    mux.configure(**mux.settings, users=users, usage={"show_windows": True})
    await mux.start()
    assert await status(mux) == 200
    assert [one["used"] for one in (await page(mux))["provider_windows"]] == [0.62]
    assert (await page(mux, BOB))["provider_windows"] == []


# usage.enabled


async def test_with_usage_off_nothing_is_kept_or_read_and_limits_of_number_hold(mux, origin):
    limits = {"requests": ["2/hour"], "concurrent": 1}
    mux.configure(**mux.settings, usage={"enabled": False}, limits=limits)
    await mux.start()
    assert [await status(mux) for _ in range(3)] == [200, 200, 429]
    assert await status(mux, token=BOB) == 200
    shown = await page(mux)
    assert shown["usage"] is None
    assert "keeps no record" in shown["problem"]
    assert [(one["limit"], one["used"]) for one in shown["limits"]] == [("requests", 2)]

    mux.clock.pass_s(3700)
    running = await Wire.to(mux.port)
    await running.send(request(MESSAGES, body=b"{}")[:-1])
    await eventually(lambda: mux.app.server.accounting.limiter.running == 1, what="it runs")
    assert await status(mux) == 429
    await running.send(b"}")
    assert (await running.message()).status == 200
    assert await status(mux) == 200
    running.close()
    await mux.stop()

    assert not [name for name in names(mux.state) if "usage" in name]
    lines = [line for line in audited(mux) if line["status"] == 200 and "tokens" in line]
    assert len(lines) == 5
    for line in lines:
        assert (line["metering"], line["cost_microusd"]) == ("none", None)
        assert set(line["tokens"].values()) == {0}
        assert line["model"] != MODEL  # which only the answer said


# usage.keep


@pytest.mark.parametrize(("keep", "left"), [("400d", 2), ("2d", 1)])
async def test_a_reload_takes_over_how_long_rows_are_kept(mux, keep, left):
    await mux.start()
    assert await status(mux) == 200
    await eventually(lambda: mux.app._books.ledger.written == 1, what="it is written")
    mux.configure(**mux.settings, usage={"keep": keep})
    await mux.reload()
    mux.clock.pass_s(10 * DAY_S)
    assert await status(mux) == 200  # with its row the ledger looks what is too old
    await eventually(lambda: mux.app._books.ledger.written == 2, what="it is written")
    await mux.stop()
    assert sum(group["requests"] for group in await mux.usage("user")) == left


# audit


async def test_a_line_of_the_audit_log_has_its_members_and_nothing_that_was_said(mux, origin):
    """Of requests that were served, refused, cut or in a tunnel, of strangers, and of one's own page."""
    users = [USERS[0] | {"limits": {"requests": ["5/hour"]}}, USERS[1] | {"models": ["claude-*"]}]
    mux.configure(**mux.settings, users=users, usage={"prices": PRICES})
    await mux.start()
    in_words = [PROMPT, PROMPT.replace(" ", "+"), PROMPT.replace(" ", "-")]
    asked = f"?q={in_words[1]}"
    fields = [
        "Content-Type: application/json",
        f"User-Agent: {PROMPT}",
        f"X-Session: {PROMPT}",
        f"Cookie: s={PROMPT}",
    ]
    messages = [{"role": "user", "content": PROMPT}]
    whole_body = json.dumps({"model": MODEL, "system": PROMPT, "messages": messages}).encode()

    async def send(line, token=ALICE, body=whole_body):
        return (await mux.ask(line + asked, *fields, token=token, body=body)).status

    assert await send(MESSAGES) == 200
    assert await send("GET /claude/v1/models") == 200
    origin.answer = lambda _: answer(PROMPT.encode())
    assert await send(MESSAGES) == 200  # unmetered
    origin.answer = lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense"
    with pytest.raises(Ended):
        await send(MESSAGES, token=BOB)
    origin.answer = lambda _: answer()
    assert await send(MESSAGES, token=BOB, body=whole_body[:-1]) == 400
    assert await send("POST /claude/v1/files") == 403
    assert await send("POST /nowhere") == 404
    assert await send("GET /usage") == 200
    assert await send(MESSAGES, token=in_words[2]) == 401
    wire = await Wire.to(mux.port)
    path = f"/chatgpt/v1/responses{asked}".encode()
    await wire.send(handshake(b"User-Agent: %b\r\n" % PROMPT.encode(), path=path, token=ALICE.encode()))
    assert (await wire.message()).status == 101
    await wire.send(ASKED)
    assert await wire.exactly(len(ended())) == ended()
    wire.close()
    while await send(MESSAGES) != 429:
        pass
    await mux.stop()

    lines = audited(mux)
    served = [line for line in lines if "provider" in line]
    assert {line["end"] for line in served} == {"done", "refused", "cut"}
    assert {line["status"] for line in served} == {200, 400, 403, 429}
    assert {line["provider"] for line in served} == {"claude", "chatgpt"}
    for line in served:
        assert line.keys() == OF_A_REQUEST
        assert line["tokens"].keys() == OF_TOKENS
    for line in lines:
        assert line.keys() <= OF_A_REQUEST
        assert "?" not in line["path"]
    first = served[0]
    assert sum(first["tokens"].values()) == first["cost_microusd"] == TOTAL
    assert (first["user"], first["credential"], first["model"]) == ("alice", "claude:login", MODEL)
    written = (mux.directory / "audit.jsonl").read_text()
    for secret in (
        ALICE,
        BOB,
        ACCESS,
        OPENAI_KEY,
        PROMPT,
        PROMPT.replace(" ", "+"),
        PROMPT.replace(" ", "-"),
    ):
        assert not pieces_in(secret, written)
