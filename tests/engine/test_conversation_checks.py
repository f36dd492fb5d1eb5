"""Who may ask for certain things only is held to it in a tunnel, whatever the bytes look like."""

import asyncio
import json
import random
from itertools import pairwise
from typing import Any

import pytest
from engine.conftest import Open
from engine.events import ask, create, created, delta, ended, message, opening, pass_on
from engine.harness import Gate
from engine.tunnels import GOODBYE, SWITCH, frame, handshake, is_goodbye, opened_tunnel
from engine.wires import Wire, eventually, turns

from ai_mux.limits import Limits, Quantity, Rule
from ai_mux.users import User

MODELS = {"models": ("gpt-5.5", "GPT-4*-mini")}
ONE_A_MINUTE = Limits(rules=(Rule(quantity=Quantity.REQUESTS, amount=1, window_s=60, text="1/min"),))
FORBIDDEN = b"\x88\x02\x03\xf0"  # a Close frame of 1008
ANSWER = created() + delta() + ended()


async def refused(client: Wire, provider: Wire, *, passed: bytes = b"", begun: bytes = b"") -> dict[str, Any]:
    """Return the event that tells the client why; the provider has got no more than ``passed``.

    Args:
        client: Who asked.
        provider: Whom.
        passed: What has passed, to its last byte.
        begun: What may have begun to pass after it, in an order that is cut off then.
    """
    event, close = opening((await client.end()).got)
    assert close == FORBIDDEN
    got = (await provider.end()).got
    assert got[: len(passed)] == passed
    rest = got[len(passed) :]
    assert begun.startswith(rest) or is_goodbye(rest)
    told: dict[str, Any] = json.loads(event)
    assert told["type"] == "error"
    assert told["headers"]["x-request-id"].startswith("amx_")
    client.close()
    provider.close()
    return told


def text(payload: bytes, first: int = 0x81) -> bytes:
    return frame(payload, masked=True, first=first)


# What is allowed passes


@pytest.mark.parametrize("model", ["gpt-5.5", "GPT-5.5", "gpt-4.1-mini"])
async def test_an_allowed_model_passes_as_it_came(opened: Open, model: str):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask(model, text="x" * 100_000))
    await pass_on(provider, client, ANSWER)
    await pass_on(client, provider, text(message(type="response.processed", response_id="resp_1")))
    await pass_on(client, provider, ask(model) + text(b"", first=0x89))
    await eventually(lambda: len(gate.rows.records) == 1)


@pytest.mark.parametrize("alice", [MODELS, {"limits": Limits(concurrent=9)}], ids=["models", "limits"])
@pytest.mark.parametrize("seed", range(4))
async def test_however_it_is_cut_and_framed(opened: Open, alice: dict[str, Any], seed: int):
    gate = await opened(alice=alice)
    client, provider, _, _ = await opened_tunnel(gate)
    dice = random.Random(seed)
    said = b""
    for number in range(8):
        body = create(text="é" * dice.randrange(3000))
        edges = [0, *sorted(dice.randrange(len(body)) for _ in range(dice.randrange(4))), len(body)]
        for index, (begin, end) in enumerate(pairwise(edges)):
            first = (0x80 if end == len(body) else 0) | (0 if index else 1)
            said += text(body[begin:end], first=first)
            if dice.random() < 0.3:
                said += text(b"%d" % number, first=0x89)
            if end == len(body):
                break
    cuts = sorted(dice.randrange(len(said)) for _ in range(dice.choice([0, 5, 200])))
    await client.send_slowly(said, cuts)
    assert await provider.exactly(len(said)) == said
    assert gate.server.accounting.limiter.running == 8


@pytest.mark.parametrize("alice", [MODELS, {"limits": Limits(concurrent=9)}], ids=["models", "limits"])
async def test_byte_by_byte(opened: Open, alice: dict[str, Any]):
    gate = await opened(alice=alice)
    client, provider, _, _ = await opened_tunnel(gate)
    said = ask() + text(b"ping", first=0x89) + text(message(type="response.processed")) + ask()
    for at in range(len(said)):
        await client.send(said[at : at + 1])
        await turns(1)
    assert await provider.exactly(len(said)) == said


async def test_thousands_of_frames_in_one_read(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    body = create(text="x" * 5000)
    parts = [text(body[at : at + 1], first=0x00) for at in range(1, len(body) - 1)]
    said = text(body[:1], first=0x01) + b"".join(parts) + text(body[-1:], first=0x80)
    await client.send(said + ask("o9"))
    assert (await refused(client, provider, passed=said))["status"] == 403


# Nothing passes before that is known


async def test_nothing_of_a_message_passes_before_its_model_is_known(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    body = message(type="response.create", input="x" * 50_000, model="gpt-5.5", tools=[])
    said = text(body)
    known = len(said) - len(b',"tools":[]}')
    await client.send(said[:known])
    await turns(20)
    with pytest.raises(BlockingIOError):
        provider.sock.recv(1)
    await client.send(said[known:-1])
    assert await provider.exactly(len(said) - 1) == said[:-1]
    await pass_on(client, provider, said[-1:])


async def test_without_models_its_type_is_enough(opened: Open):
    gate = await opened(alice={"limits": Limits(concurrent=1)})
    client, provider, _, _ = await opened_tunnel(gate)
    said = text(b'{"type":"response.create","input":"' + b"x" * 1000 + b'"}')
    await client.send(said[:20])
    await turns(20)
    with pytest.raises(BlockingIOError):
        provider.sock.recv(1)
    await client.send(said[20:])
    assert await provider.exactly(len(said)) == said


@pytest.mark.parametrize("alice", [{"limits": ONE_A_MINUTE}, {"expires_at": 2e9}], ids=["limits", "expires"])
@pytest.mark.parametrize("padding", [1, 5000, 100_000])
async def test_no_other_type_comes_behind_the_first(opened: Open, alice: dict[str, Any], padding: int):
    gate = await opened(alice=alice)
    client, provider, _, _ = await opened_tunnel(gate)
    said = b'{"type":"response.cancel","x":"%b","type":"response.create","model":"o9"}' % (b"y" * padding)
    whole = text(said)
    await client.send(whole)
    told = await refused(client, provider, begun=whole[:-1])
    assert (told["status"], gate.server.accounting.limiter.running) == (400, 0)


async def test_a_model_deeper_in_is_none_either(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    await client.send(text(CREATE[:-1] + b',"Response":{"model":"o9"}}'))
    assert (await refused(client, provider))["status"] == 400


async def test_others_have_their_turn_while_a_message_of_brackets_is_looked_into(opened: Open):
    gate = await opened(alice={"limits": Limits(concurrent=9)})
    client, provider, _, _ = await opened_tunnel(gate)
    said = text(create()[:-1] + b',"x":[' + b"[]," * 60_000 + b"0]}")
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        asyncio.get_running_loop().call_soon(tick)

    tick()
    await client.send(said)
    begun = ticks
    assert await provider.exactly(len(said)) == said
    assert ticks - begun > len(said) / 2**14


@pytest.mark.parametrize(
    "tail", [b',"model":"o9"}', b',"Model":"gpt-5.5"}', b',"type":"x"}', b"}}", b'"', b"}\xff", b"} x", b",}"]
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_the_last_byte_passes_only_when_all_was_looked_into(opened: Open, tail: bytes, at_once: bool):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    said = text(create()[:-1] + tail)
    before = len(said) - len(tail)
    if not at_once:
        await client.send(said[:before])
        assert await provider.exactly(before) == said[:before]
    await client.send(said[before:] if not at_once else said)
    event, close = opening((await client.end()).got)
    assert (json.loads(event)["status"], close) == (400, FORBIDDEN)
    got = (await provider.end()).got
    assert is_goodbye(got) if at_once else got == b""  # cut, in the middle of the frame
    client.close()
    provider.close()
    await gate.at_rest()
    (row,) = gate.rows.records
    assert row.status == 400
    assert gate.server.accounting.limiter.running == 0


async def test_a_close_frame_is_not_kept_back_behind_what_is(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    close = text(b"\x03\xe8", first=0x88)
    await client.send(text(create()[:40], first=0x01) + close)
    assert await provider.exactly(len(close)) == close


async def test_who_leaves_in_the_middle_of_what_is_kept_back_leaves_nothing(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    await client.send(text(create()[:40], first=0x01))
    await turns(5)
    client.reset()
    assert (await provider.end()).got == b""
    provider.close()
    await gate.at_rest()
    assert gate.rows.records == []


# What is not allowed does not


async def test_another_model_is_refused_by_name(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    await pass_on(provider, client, ANSWER)
    await client.send(ask("gpt-9-\u202e" + "x" * 200))
    told = await refused(client, provider)
    shown = "gpt-9-?" + "x" * 93
    assert told["status"] == 403
    assert told["error"]["message"] == (
        f'Your token is not for the model "{shown}". Ask the operator which models it is for.'
    )
    assert (told["error"]["type"], told["error"]["code"]) == ("invalid_request_error", "forbidden")
    assert told["headers"]["x-should-retry"] == "false"
    await gate.at_rest()
    assert [row.status for row in gate.rows.records] == [200, 403]
    assert gate.rows.records[1].metering == "none"
    await eventually(lambda: any(b'"request.done"' in line for line in gate.lines))
    (line,) = [json.loads(line) for line in b"".join(gate.lines).splitlines() if b'"request.done"' in line]
    assert (line["status"], line["end"]) == (101, "refused")


CREATE = create()
TWO = create("gpt-5.5")[:-1] + b',"model":"gpt-5.5"}'


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (ask("o9"), 403),
        (ask(""), 400),
        (text(TWO), 400),
        (text(CREATE.replace(b'"model"', b'"Model"')), 400),
        (text(CREATE.replace(b'"model"', b'"mod\\u0065l"').replace(b"5.5", b"9")), 403),
        (text(CREATE.replace(b'"gpt-5.5"', b'"\\u006f9"')), 403),
        (text(CREATE.replace(b'"model":"gpt-5.5",', b"")), 400),
        (text(message(type="response.create", response={"model": "gpt-5.5"})), 400),
        (text(CREATE.replace(b'"type"', b'"kind"')), 400),
        (text(CREATE.replace(b'"type":"response.create"', b'"type":["response.create"]')), 400),
        (text(CREATE[:-1] + b',"type":"response.create"}'), 400),
        (text(CREATE.replace(b"response.create", b"Response.Create")), 400),
        (text(CREATE.replace(b"response.create", b"response.create\\u0000")), 400),
        (text(message(type="session.update", session={"model": "o9"})), 400),
        (text(message(type="response.steer", model="o9")), 403),
        (text(b"[" + CREATE + b"]"), 400),
        (text(CREATE + CREATE), 400),
        (text(b"\xef\xbb\xbf" + CREATE), 400),
        (text(CREATE.decode().encode("utf-16")), 400),
        (text(b""), 400),
        (text(CREATE[:-1]), 400),
        (text(b'{"input":"' + b"x" * 1_100_000), 400),
        (text(b'{"type":"response.create","input":"' + b"x" * 1_100_000), 400),
        (text(CREATE, first=0x82), 400),
        (text(CREATE, first=0xC1), 400),
        (text(CREATE, first=0x91), 400),
        (text(CREATE, first=0x83), 400),
        (text(CREATE, first=0x8B), 400),
        (text(CREATE, first=0x80), 400),
        (text(CREATE[:30], first=0x01) + text(CREATE), 400),
        (text(CREATE[:30], first=0x01) + text(CREATE[30:], first=0x81), 400),
        (text(CREATE[:30], first=0x01) + text(CREATE[30:], first=0xC0), 400),
        (frame(CREATE), 400),
        (text(b"x" * 200, first=0x89), 400),
        (text(b"x", first=0x09), 400),
        (b"\x81\xff\x80" + bytes(7) + b"abcd", 400),
        (b"\x89\xff\x00" + bytes(7) + b"abcd", 400),
        (text(CREATE[:-1] + b',"tools":[{"type":"image_generation","model":"o9"}]}'), 403),
    ],
    ids=range(38),
)
@pytest.mark.parametrize("step", [1, 10_000_000])
async def test_there_is_no_way_around(opened: Open, said: bytes, status: int, step: int):
    """A first message, that may pass, shows where the second begins."""
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    whole = ask()
    if step == 1 and len(said) < 2000:
        await pass_on(client, provider, whole)
        for byte in said:
            await client.send(bytes([byte]))
            await turns(1)
        told = await refused(client, provider, begun=said[:-1])
    else:
        await client.send(whole + said + whole)
        told = await refused(client, provider, passed=whole)
    assert told["status"] == status
    await gate.at_rest()
    assert gate.server.accounting.limiter.running == 0


@pytest.mark.parametrize(
    "said",
    [
        text(CREATE, first=0x82),
        text(b"not JSON"),
        text(TWO.replace(b"model", b"type")),
        text(b'{"input":"' + b"x" * 1_100_000),
        frame(CREATE),
    ],
    ids=["binary", "no JSON", "two types", "late", "unmasked"],
)
async def test_nor_around_limits(opened: Open, said: bytes):
    gate = await opened(alice={"limits": Limits(concurrent=1)})
    client, provider, _, _ = await opened_tunnel(gate)
    await client.send(said)
    assert (await refused(client, provider))["status"] == 400


async def test_no_more_than_a_mib_of_a_message_is_kept_back(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    said = text(b'{"type":"response.create","input":"' + b"x" * 2_000_000 + b'","model":"gpt-5.5"}')
    await client.send(said[:1_200_000])
    assert (await refused(client, provider))["status"] == 400


async def test_of_what_came_together_what_may_pass_passes(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    await client.send(ask() + text(b"", first=0x89) + ask("o9") + ask())
    await refused(client, provider, passed=ask() + text(b"", first=0x89))


# How it is told


async def test_inside_a_frame_of_the_providers_the_client_is_cut(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(provider, client, delta()[:-3])
    await client.send(ask("o9"))
    assert (await client.end()).got == b""
    assert is_goodbye((await provider.end()).got)
    client.close()
    provider.close()


async def test_between_the_frames_of_a_message_the_client_gets_the_close_alone(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(provider, client, frame(b"{", first=0x01))
    await client.send(ask("o9"))
    assert (await client.end()).got == FORBIDDEN
    client.close()
    provider.close()


async def test_after_the_providers_close_frame_the_client_gets_nothing_more(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(provider, client, b"\x88\x02\x03\xe8")
    await client.send(ask("o9"))
    assert (await client.end()).got == b""
    client.close()
    provider.close()


# Limits


async def test_a_limit_that_is_reached_is_told_as_codex_knows_it(opened: Open):
    gate = await opened(alice={"limits": ONE_A_MINUTE})
    client, provider, _, _ = await opened_tunnel(gate)
    gate.clock.now += 10
    await pass_on(client, provider, ask())
    await pass_on(provider, client, ANSWER)
    gate.clock.now += 15
    await client.send(ask())
    told = await refused(client, provider)
    assert told["status"] == 429
    assert told["error"]["type"] == "usage_limit_reached"
    assert told["error"]["code"] == "rate_limit_exceeded"
    wait_s = int(told["headers"]["retry-after"])
    assert 40 <= wait_s <= 60
    assert told["error"]["resets_at"] == pytest.approx(gate.clock.now + wait_s, abs=1)
    await gate.at_rest()
    assert [row.status for row in gate.rows.records] == [200, 429]
    gate.clock.now += wait_s
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())


async def test_a_steer_has_no_successor_where_the_limit_is_reached(opened: Open):
    gate = await opened(alice={"limits": ONE_A_MINUTE})
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    await pass_on(provider, client, created())
    await client.send(text(message(type="response.steer", input="Shorter.")))
    assert (await refused(client, provider))["status"] == 429


async def test_who_has_expired_meanwhile_asks_no_more(opened: Open):
    gate = await opened(alice={"expires_at": 1_000_100.0})
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    await pass_on(provider, client, ANSWER)
    gate.clock.now += 100
    await pass_on(client, provider, text(b"", first=0x8A))
    await client.send(ask())
    told = await refused(client, provider)
    assert told["status"] == 401
    assert "expired" in told["error"]["message"]


# Reload


async def test_a_reload_holds_the_next_message_to_the_new_models(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask("o9")[:12])
    gate.server.go_by(gate.gateway(alice=MODELS), None, max_connections=10)
    await pass_on(client, provider, ask("o9")[12:])
    await pass_on(client, provider, ask())
    await client.send(ask("o9"))
    assert (await refused(client, provider))["status"] == 403


async def test_what_is_kept_back_never_passes_for_who_is_gone_when_it_could(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    await client.send(ask()[:30])
    await turns(5)
    gate.server.go_by(gate.gateway(users=False), None, max_connections=10)
    await client.send(ask()[30:])
    assert (await client.end()).got == GOODBYE
    assert is_goodbye((await provider.end()).got)
    client.close()
    provider.close()
    await gate.at_rest()
    assert gate.rows.records == []


async def test_what_was_begun_may_end_and_is_looked_into_all_the_same(opened: Open):
    gate = await opened(alice=MODELS)
    client, provider, _, _ = await opened_tunnel(gate)
    said = text(create()[:-1] + b',"model":"o9"}')
    await pass_on(client, provider, said[:-20])
    gate.server.go_by(gate.gateway(users=False), None, max_connections=10)
    await client.send(said[-20:])
    event, _ = opening((await client.end()).got)
    assert json.loads(event)["status"] == 400
    assert (await provider.end()).got == b""
    client.close()
    provider.close()


async def test_everyone_where_nobody_is_configured_is_held_to_the_limits_for_all(opened: Open):
    anonymous = User(name="anonymous", limits=ONE_A_MINUTE)
    gate = await opened(users=False, anonymous=anonymous)
    client = await gate.client()
    await client.send(handshake().replace(b"gate.example", b"127.0.0.1"))
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(SWITCH)
    await client.message()
    await pass_on(client, provider, ask())
    await pass_on(provider, client, ANSWER)
    await client.send(ask())
    assert (await refused(client, provider))["status"] == 429
    assert {row.user for row in gate.rows.records} == {"anonymous"}
