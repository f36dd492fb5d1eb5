"""Metering, ledger, limits and metrics of a whole ai-mux: they agree, last, and tell no secret."""

import gzip
import json
import random
import zlib
from contextlib import suppress

import brotli
import pytest
import zstandard
from engine.wires import Ended, Wire
from fakes.claude_answers import COST_MICRO_USD, MODEL, PRICES, TOKENS, TOTAL, answer, events, message
from fakes.renewing import claude_file
from how_to.programs import free_port
from prometheus_client.parser import text_string_to_metric_families as parsed
from whole import ACCESS, ALICE, BOB, REFRESH, USERS, Origin, claude, pieces_in, request, whole

ADMIN = "Pv4Jd8Sx1Nq6Ry3Ke7"
MESSAGES = "POST /claude/v1/messages"
PROMPT = "Zebras Whisper Quietly Underneath Jagged Volcanoes"
REPLY = "Kelp Forests Dream Vividly Of Xylophones"
EMAIL = "quincy.barnaby@nowhere-at-all.example"

CODINGS = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.fixture
async def origin():
    return Origin(lambda _: answer())


@pytest.fixture
async def mux(tmp_path, origin):
    """A whole ai-mux that counts all there is to count, not yet started."""
    async with whole(tmp_path, origins=[origin]) as it:
        it.secrets += [ACCESS, REFRESH, ADMIN]
        claude_file(it.state / "claude" / ".credentials.json", access=ACCESS, refresh=None, ends=None)
        it.admin = free_port()
        it.settings = {
            "providers": [claude(origin)],
            "admin": {"listen": f"127.0.0.1:{it.admin}", "token": ADMIN},
            "audit": str(tmp_path / "audit.jsonl"),
            "usage": {"prices": PRICES},
        }
        it.configure(**it.settings)
        yield it


async def told(mux, path):
    wire = await Wire.to(mux.admin)
    try:
        await wire.send(request(f"GET {path}", token=ADMIN))
        message = await wire.message()
        assert message.status == 200
        return message.body.decode()
    finally:
        wire.close()


async def metric(mux, name, **labels):
    """Return the sum of a metric's samples with these labels."""
    return sum(
        sample.value
        for family in parsed(await told(mux, "/metrics"))
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def audited(mux):
    return [json.loads(line) for line in (mux.directory / "audit.jsonl").read_text().splitlines()]


async def assert_all_agree(mux):
    """Assert that metrics, ledger and audit log tell the same, and return what the ledger tells."""
    by_metrics = {
        kind: await metric(mux, "ai_mux_tokens_total", kind=kind) for kind in (*TOKENS, "requests", "cost")
    }
    by_metrics["requests"] = await metric(mux, "ai_mux_requests_total")
    by_metrics["cost"] = round(await metric(mux, "ai_mux_notional_cost_dollars_total") * 1_000_000)
    await mux.stop()
    groups = await mux.usage("user", "model")
    by_ledger = {kind: sum(group["tokens"][kind] for group in groups) for kind in TOKENS}
    by_ledger["requests"] = sum(group["requests"] for group in groups)
    by_ledger["cost"] = round(sum(group["cost_usd"] for group in groups) * 1_000_000)
    lines = [line for line in audited(mux) if "provider" in line]  # not the pages of one's own use
    by_audit = {kind: sum(line["tokens"][kind] for line in lines) for kind in TOKENS}
    by_audit["requests"] = len(lines)
    by_audit["cost"] = sum(line["cost_microusd"] or 0 for line in lines)
    assert by_metrics == by_ledger == by_audit
    return by_ledger


# What is counted


async def test_metrics_ledger_audit_log_and_each_user_s_page_agree(mux, origin):
    mux.configure(**mux.settings, limits={"requests": ["5/hour"], "tokens": ["1M/day"]})
    await mux.start()
    for token, times in ((ALICE, 7), (BOB, 3)):
        for _ in range(times):
            await mux.ask(MESSAGES, token=token)
    await mux.ask("POST /claude/v1/messages/count_tokens")
    await mux.ask("GET /claude/v1/models")
    origin.answer = lambda _: b"HTTP/1.1 529 Busy\r\nContent-Length: 4\r\n\r\nbusy"
    await mux.ask(MESSAGES, token=BOB)
    page = json.loads((await mux.ask("GET /usage")).body)

    assert len(origin.asked) == 5 + 3 + 2 + 1
    assert page["usage"]["today"]["tokens"]["total"] == 5 * TOTAL
    assert [(one["limit"], one["used"]) for one in page["limits"]] == [("requests", 5), ("tokens", 5 * TOTAL)]
    found = await assert_all_agree(mux)
    assert found == {kind: 8 * tokens for kind, tokens in TOKENS.items()} | {
        "requests": 7 + 3 + 2 + 1, "cost": 8 * COST_MICRO_USD,
    }  # fmt: skip


async def test_the_sum_is_what_was_sent_wherever_it_was_cut_and_however_packed(mux, origin):
    """Forty answers of all codings, streamed or not, in pieces cut anywhere, over kept-alive connections."""
    chance = random.Random(4)
    sent = dict.fromkeys(TOKENS, 0)

    async def serve(wire):
        while True:
            await wire.message()
            figures = {name: chance.randrange(1, 5000) for name in ("input_tokens", "output_tokens")}
            streamed, coding = chance.random() < 0.7, chance.choice([*CODINGS])
            text = " ".join(f"{chance.getrandbits(64):x}" for _ in range(chance.randrange(1, 200)))
            body = CODINGS[coding]((events if streamed else message)(text, **figures))
            kind = b"text/event-stream" if streamed else b"application/json"
            head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Encoding: %b\r\n" % (
                kind,
                coding.encode(),
            )
            if chance.random() < 0.5:
                at = chance.randrange(len(body))
                pieces = [piece for piece in (body[:at], body[at:]) if piece]
                framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
                whole = head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
            else:
                whole = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            sent["input"] += figures["input_tokens"]
            sent["output"] += figures["output_tokens"]
            sent["cache_read"] += 3
            await wire.send_slowly(whole, [chance.randrange(len(whole)) for _ in range(chance.randrange(9))])

    origin.upstream.serve(serve)
    mux.configure(**mux.settings | {"providers": [claude(origin)]})
    await mux.start()
    wire = await Wire.to(mux.port)
    for _ in range(40):
        assert (await mux.ask_over(wire, MESSAGES)).status == 200
    wire.close()

    assert await metric(mux, "ai_mux_unmetered_requests_total") == 0
    found = await assert_all_agree(mux)
    assert {kind: found[kind] for kind in TOKENS} == sent


# What a user may not


@pytest.mark.parametrize("coding", sorted(CODINGS.keys() - {"deflate"}))
async def test_a_user_s_models_cannot_be_got_around_by_packing_the_body(mux, origin, coding):
    users = [USERS[0] | {"models": ["claude-sonnet-*"]}, USERS[1]]
    mux.configure(**mux.settings, users=users)
    await mux.start()
    fields = [] if coding == "identity" else [f"Content-Encoding: {coding}"]

    async def ask(text, token=ALICE):
        body = CODINGS[coding](text)
        asked = await mux.ask(MESSAGES, "Content-Type: application/json", *fields, token=token, body=body)
        return asked.status, body

    allowed, body = await ask(b'{"model":"claude-sonnet-5","messages":[]}')
    assert allowed == 200
    assert origin.asked[-1].body == body  # as it came
    for text, status in (
        (b'{"model":"claude-opus-4-8"}', 403),
        (b'{"messages":[],"m\\u006fdel":"claude-opus-4-8"}', 403),
        (b'{"model":"claude-sonnet-5","model":"claude-opus-4-8"}', 400),
        (b'{"messages":[]}', 400),
    ):
        assert (await ask(text))[0] == status, text
        assert (await ask(text, BOB))[0] == 200
    assert len(origin.asked) == 1 + 4
    assert (await mux.ask(MESSAGES, "Content-Encoding: made-up", body=b"{}")).status == 415


# What lasts


@pytest.mark.parametrize(
    "limit", [{"requests": ["1/hour"]}, {"tokens": [f"{TOTAL}/hour"]}, {"cost": ["$0.000018/hour"]}]
)
async def test_limits_survive_a_restart_and_say_when_to_come_back(mux, limit):
    mux.configure(**mux.settings, limits=limit)
    await mux.start()
    assert (await mux.ask(MESSAGES)).status == 200
    before = int((await mux.ask(MESSAGES)).get(b"retry-after"))
    await mux.stop()
    mux.clock.pass_s(600)
    await mux.start()
    refused = await mux.ask(MESSAGES)
    assert refused.status == 429
    after = int(refused.get(b"retry-after"))
    assert 3000 <= after <= 3060  # a sixtieth of the window at most beyond the hour
    assert abs(before - 600 - after) <= 60
    assert (await mux.ask(MESSAGES, token=BOB)).status == 200  # whose own it is
    mux.clock.pass_s(after - 1)
    assert (await mux.ask(MESSAGES)).status == 429
    mux.clock.pass_s(1)
    assert (await mux.ask(MESSAGES)).status == 200


# What nobody is told


async def test_no_secret_no_address_and_nothing_that_was_said_is_kept_or_shown(mux, origin):
    """In the ledger's own bytes, too, and in what refusals, errors and cut streams leave behind."""
    said = json.dumps({"model": MODEL, "metadata": {"user_id": EMAIL}, "messages": [{"content": PROMPT}]})
    fields = ["Content-Type: application/json", f"X-User-Email: {EMAIL}", f"Cookie: session={PROMPT}"]
    users = [USERS[0] | {"models": ["claude-*"], "limits": {"requests": ["6/hour"]}}, USERS[1]]
    mux.configure(**mux.settings, users=users)
    await mux.start()
    answers = [
        answer(message(REPLY)),
        answer(events(REPLY)),
        b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n%b" % (len(REPLY), REPLY.encode()),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n%b\r\nnonsense"
        % events(REPLY).ljust(1000),
        answer(REPLY.encode()),
    ]
    for token in (ALICE, BOB):
        for one in answers:
            origin.answer = lambda _, one=one: one
            with suppress(Ended):  # one of them breaks off
                await mux.ask(f"{MESSAGES}?email={EMAIL}", *fields, token=token, body=said.encode())
        origin.answer = lambda _: answer(message(REPLY))
        for body in (said[:-1].encode(), said.encode()[::-1], json.dumps({"model": 1, PROMPT: 1}).encode()):
            await mux.ask(f"{MESSAGES}?{PROMPT.replace(' ', '')}", *fields, token=token, body=body)
    await mux.ask(MESSAGES, *fields, token=PROMPT.replace(" ", "-"), body=said.encode())
    shown = [await told(mux, "/metrics"), await told(mux, "/status")]
    shown.append((await mux.ask("GET /usage")).body.decode())
    # What was refused here has not counted.
    more = [await mux.ask(MESSAGES, *fields, body=said.encode()) for _ in range(2)]
    assert [one.status for one in more] == [200, 429]
    # At debug it shows heads, and the beginnings of errors' bodies: that is what debug is for.
    shown.append(json.dumps([line for line in await mux.events() if line["level"] != "debug"]))
    await mux.stop()
    shown.append(json.dumps(await mux.usage("user", "model", "credential"), default=str))
    files = [mux.directory / "audit.jsonl", *mux.state.glob("usage.sqlite*")]
    assert len(files) >= 2
    shown += [file.read_bytes().decode("latin-1") for file in files]

    assert "alice" in shown[-1]  # these are the places
    for text in shown:
        for secret in (ALICE, BOB, ACCESS, ADMIN, PROMPT, PROMPT.replace(" ", ""), REPLY, EMAIL):
            assert not pieces_in(secret, text)
