"""A reload changes limits, prices and the audit log, and what was counted stays counted."""

import asyncio
import json

import pytest
from engine.wires import Wire, eventually
from fakes.claude_answers import COST_MICRO_USD, PRICES, TOTAL, answer
from whole import ALICE, BOB, USERS, claude

MESSAGES = "POST /claude/v1/messages"


@pytest.fixture
def origin_answers(origin):
    origin.answer = lambda _: answer()


@pytest.fixture
def configure(mux, origin, origin_answers):
    """Configure what is reloaded here."""

    def configure(audit="audit.jsonl", price=1, **settings):
        prices = {"claude-*": dict.fromkeys(PRICES["claude-*"], price)}
        path = str(mux.directory / audit)
        mux.configure(providers=[claude(origin)], audit=path, usage={"prices": prices}, **settings)

    return configure


async def ask(mux, token=ALICE):
    return (await mux.ask(MESSAGES, token=token)).status


def lines(mux, name):
    file = mux.directory / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def test_a_limit_that_is_raised_or_lowered_goes_on_from_what_was_used(mux, configure):
    configure(limits={"requests": ["2/hour"]})
    await mux.start()
    assert [await ask(mux) for _ in range(3)] == [200, 200, 429]
    configure(limits={"requests": ["3/hour"]})
    await mux.reload()
    assert [await ask(mux) for _ in range(2)] == [200, 429]
    configure(limits={"requests": ["1/hour"]})
    await mux.reload()
    assert await ask(mux) == 429
    assert await ask(mux, BOB) == 200
    configure()
    await mux.reload()
    assert await ask(mux) == 200


async def test_a_limit_that_is_new_knows_what_the_ledger_knows(mux, configure):
    configure()
    await mux.start()
    assert [await ask(mux) for _ in range(3)] == [200] * 3
    configure(limits={"tokens": [f"{3 * TOTAL}/day"]})
    await mux.reload()
    assert await ask(mux) == 429
    assert await ask(mux, BOB) == 200


async def test_a_reload_without_a_change_counts_nothing_twice(mux, configure):
    configure(limits={"requests": ["10/hour"], "tokens": ["1M/day"]})
    await mux.start()
    assert await ask(mux) == 200
    for _ in range(3):
        await mux.reload()
    mux.configure(**json.loads(mux.path.read_text()) | {"limits": {"requests": ["11/hour", "20/day"]}})
    await mux.reload()
    page = json.loads((await mux.ask("GET /usage")).body)
    assert [one["used"] for one in page["limits"]] == [1, 1]


async def test_a_request_that_runs_over_a_reload_counts_by_the_limits_that_hold_at_its_end(mux, configure):
    configure(limits={"concurrent": 1, "tokens": ["1M/day"]})
    await mux.start()
    wire = await Wire.to(mux.port)
    head = f"{MESSAGES} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {ALICE}\r\nContent-Length: 2\r\n\r\n{{"
    await wire.send(head.encode())
    await eventually(lambda: mux.app.server.accounting.limiter.running == 1, what="it runs")
    assert await ask(mux) == 429
    configure(limits={"concurrent": 1, "tokens": [f"{TOTAL}/day"]})
    await mux.reload()
    assert await ask(mux) == 429
    await wire.send(b"}")
    assert (await wire.message()).status == 200
    wire.close()
    refused = await mux.ask(MESSAGES)
    assert refused.status == 429
    assert f"({TOTAL}/day)" in refused.body.decode()


async def test_models_and_expiry_hold_from_the_reload_on(mux, configure):
    configure()
    await mux.start()
    body = b'{"model":"claude-opus-4-8"}'
    assert (await mux.ask(MESSAGES, body=body)).status == 200
    configure(users=[USERS[0] | {"models": ["claude-haiku-*"]}, USERS[1] | {"expires": "2020-01-01"}])
    await mux.reload()
    json = "Content-Type: application/json"
    assert (await mux.ask(MESSAGES, json, body=body)).status == 403
    assert (await mux.ask(MESSAGES, json, body=body.replace(b"opus", b"haiku"))).status == 200
    assert (await mux.ask(MESSAGES, body=body, token=BOB)).status == 401


async def test_under_load_no_request_is_counted_twice_or_not_at_all(mux, configure):
    configure(limits={"requests": ["1000/hour"]})
    await mux.start()
    reloaded = asyncio.Event()

    async def one(token):
        asked = 0
        wire = await Wire.to(mux.port)
        while not reloaded.is_set() or asked < 20:
            assert (await mux.ask_over(wire, MESSAGES, token=token)).status == 200
            asked += 1
        wire.close()
        return asked

    clients = [asyncio.create_task(one(token)) for token in (ALICE, ALICE, BOB)]
    for number in range(6):
        configure(
            audit=f"audit-{number % 3}.jsonl",
            price=number + 1,
            limits={"requests": [f"{1_000_000 + number}/hour"]},
        )
        await mux.reload()
    reloaded.set()
    *alices, bobs = await asyncio.gather(*clients)
    page = json.loads((await mux.ask("GET /usage")).body)
    assert page["limits"][0]["used"] == sum(alices)
    await mux.stop()

    groups = {group["user"]: group for group in await mux.usage("user")}
    assert {name: group["requests"] for name, group in groups.items()} == {"alice": sum(alices), "bob": bobs}
    total = sum(alices) + bobs
    assert sum(group["tokens"]["total"] for group in groups.values()) == total * TOTAL
    files = ("audit.jsonl", *(f"audit-{n}.jsonl" for n in range(3)))
    audited = [line for at in files for line in lines(mux, at) if "provider" in line]  # not the page
    assert len({line["request_id"] for line in audited}) == len(audited) == total
    cost = sum(line["cost_microusd"] for line in audited)
    assert cost == round(sum(group["cost_usd"] for group in groups.values()) * 1_000_000)
    assert total * COST_MICRO_USD < cost < 6 * total * COST_MICRO_USD  # by the prices of their time


async def test_an_audit_log_that_was_renamed_is_begun_anew_and_each_line_stands_in_one_of_both(
    mux, configure
):
    configure()
    await mux.start()
    await ask(mux)
    (mux.directory / "audit.jsonl").rename(mux.directory / "audit.jsonl.1")
    await ask(mux)
    await mux.reload()
    await ask(mux, BOB)
    await mux.stop()
    assert [line["user"] for line in lines(mux, "audit.jsonl.1")] == ["alice", "alice"]
    assert [line["user"] for line in lines(mux, "audit.jsonl")] == ["bob"]
