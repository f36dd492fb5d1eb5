"""Design, section 2, step 10: what a user may do is asked before anything is sent, of handshakes as well."""

import json

import pytest
from engine.conftest import Open
from engine.harness import BOB, Gate, ok, post
from engine.tunnels import SWITCH, handshake
from engine.wires import Message, Wire

from ai_mux.limits import Limits, Quantity, Rule

RESPONSES = b"/chatgpt/v1/responses"
ONE_A_MINUTE = {
    "limits": Limits(rules=(Rule(quantity=Quantity.REQUESTS, amount=1, window_s=60, text="1/min"),))
}


async def told(gate: Gate, request: bytes) -> tuple[Wire, Message]:
    """Return what a client is told without the provider's knowledge."""
    client = await gate.client()
    await client.send(request)
    message = await client.message()
    assert await gate.upstream.nobody_comes()
    return client, message


async def served(gate: Gate, request: bytes, answer: bytes = ok()) -> None:
    """See that a request reaches the provider, and its answer the client."""
    client, provider = await gate.ask(request)
    await provider.message()
    await provider.send(answer)
    assert (await client.message()).status == int(answer.split(b" ")[1])
    client.close()
    provider.close()
    await gate.at_rest()


# Providers


@pytest.mark.parametrize(
    ("providers", "asked", "name"),
    [
        ({"chatgpt"}, post(), b"claude"),
        ({"chatgpt"}, post(path=b"/claude/v1/messages/count_tokens"), b"claude"),
        (set(), post(), b"claude"),
        ({"claude"}, post(path=RESPONSES), b"chatgpt"),
        ({"claude"}, handshake(), b"chatgpt"),
    ],
    ids=["a request", "what is free", "none at all", "the other", "a handshake"],
)
async def test_a_provider_that_is_not_the_users_is_a_403_and_has_a_row(
    opened: Open, providers: set[str], asked: bytes, name: bytes
):
    gate = await opened(alice={"providers": frozenset(providers)})
    client, message = await told(gate, asked)
    assert (message.status, message.get(b"x-should-retry")) == (403, b"false")
    assert b"not for " + name in message.body
    client.close()
    await gate.at_rest()
    (row,) = gate.rows.records
    assert (row.status, row.user, row.provider, row.metering) == (403, "alice", name.decode(), "none")
    assert gate.server.accounting.limiter.running == 0


@pytest.mark.parametrize(
    ("asked", "answer"),
    [(post(path=RESPONSES), ok()), (handshake(), SWITCH)],
    ids=["a request", "a handshake"],
)
async def test_one_that_is_serves_them_and_everyone_else_has_all(opened: Open, asked: bytes, answer: bytes):
    gate = await opened(alice={"providers": frozenset({"chatgpt"})})
    await served(gate, asked, answer)
    await served(gate, post(token=BOB))


async def test_a_request_that_may_not_go_there_uses_up_nothing(opened: Open):
    gate = await opened(alice=ONE_A_MINUTE | {"providers": frozenset({"chatgpt"})})
    for _ in range(3):
        client, message = await told(gate, post())
        assert message.status == 403
        client.close()
    await served(gate, post(path=RESPONSES))


# Limits of handshakes


async def test_a_handshake_is_a_429_while_a_window_is_used_up(opened: Open):
    gate = await opened(alice=ONE_A_MINUTE)
    await served(gate, post(path=RESPONSES))
    client, message = await told(gate, handshake())
    assert message.status == 429
    error = json.loads(message.body)["error"]
    assert error["type"] == "usage_limit_reached"
    retry_s = int(message.get(b"retry-after") or b"")
    assert 60 <= retry_s <= 61
    client.close()
    await gate.at_rest()
    assert [row.status for row in gate.rows.records] == [200, 429]
    gate.clock.now += retry_s
    await served(gate, handshake(), SWITCH)


async def test_a_handshake_is_a_429_while_as_many_run_as_may(opened: Open):
    gate = await opened(alice={"limits": Limits(concurrent=1)})
    running, provider = await gate.ask(post(path=RESPONSES))
    await provider.message()
    client, message = await told(gate, handshake())
    assert message.status == 429
    client.close()
    await provider.send(ok())
    assert (await running.message()).status == 200
    running.close()
    provider.close()
    await gate.at_rest()
    await served(gate, handshake(), SWITCH)


async def test_a_handshake_itself_counts_for_nothing(opened: Open):
    gate = await opened(alice=ONE_A_MINUTE)
    for _ in range(3):
        await served(gate, handshake(), SWITCH)
    assert not gate.rows.records
    await served(gate, post(path=RESPONSES))
