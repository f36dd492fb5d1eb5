"""The last field of a request's line says how it ended for its client: done, refused, left or cut."""

import json

import pytest
from engine.conftest import Open
from engine.harness import BOB, Gate, get, ok, post
from engine.tunnels import CLOSE, CLOSE_MASKED, frame, handshake, leave, left_behind, opened_tunnel
from engine.wires import eventually

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"


async def _end(gate: Gate) -> tuple[int | None, str]:
    """Return the status and the end that stand in the only request's line."""
    await eventually(lambda: any(b'"request.done"' in line for line in gate.lines))
    (line,) = [json.loads(line) for line in b"".join(gate.lines).splitlines() if b'"request.done"' in line]
    return line["status"], line["end"]


async def test_a_whole_answer(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(ok())
    await client.message()
    assert await _end(gate) == (200, "done")


async def test_a_probe(gate: Gate):
    client = await gate.client()
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    await client.message()
    assert await _end(gate) == (200, "done")
    assert b'"level":"debug"' in gate.lines[-1]


@pytest.mark.parametrize("status", [401, 529])
async def test_a_providers_own_refusal_is_an_answer_like_any_other_but_for_a_401(gate: Gate, status: int):
    client, provider = await gate.ask(post())
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status
    await provider.message()
    await provider.send(answer)
    if status == 401:
        again = await gate.upstream.accept()
        await again.message()
        await again.send(answer)
    await client.message()
    assert await _end(gate) == ((503, "refused") if status == 401 else (529, "done"))


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (post(token=b"a-made-up-stranger"), 401),
        (get(b"/claude/v1/files"), 403),
        (handshake().replace(b"Version: 13", b"Version: 8"), 426),
        (post(chunked=True) + b"no chunk\r\n", 400),
    ],
    ids=["stranger", "closed path", "old handshake", "broken body"],
)
async def test_an_error_of_ours(gate: Gate, asked: bytes, status: int):
    client = await gate.client()
    await client.send(asked)
    assert (await client.message()).status == status
    assert await _end(gate) == (status, "refused")


async def test_a_provider_that_is_not_there_is_named_all_the_same(gate: Gate):
    gate.upstream.refuse_connections()
    client = await gate.client()
    await client.send(post())
    await client.message()
    assert await _end(gate) == (502, "refused")
    assert any(b'"upstream":"127.0.0.1"' in line for line in gate.lines)


async def test_an_error_of_ours_in_the_providers_place(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    provider.close()
    assert (await client.message()).status == 502
    assert await _end(gate) == (502, "refused")


@pytest.mark.parametrize("how", ["close", "reset", "end_writing"])
@pytest.mark.parametrize("answered", [b"", HALF], ids=["before the answer", "in the answer"])
async def test_a_client_that_leaves(gate: Gate, answered: bytes, how: str):
    client, provider = await gate.ask(post())
    await provider.message()
    if answered:
        await provider.send(answered)
        await client.until(b"hello")
    await leave(client, how)
    await gate.at_rest()
    assert await _end(gate) == (200 if answered else None, "left")


async def test_a_provider_that_breaks_off(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(HALF)
    await client.until(b"hello")
    provider.close()
    await client.end()
    assert await _end(gate) == (200, "cut")


@pytest.mark.parametrize("answered", [b"", HALF], ids=["before the answer", "in the answer"])
async def test_a_stop_that_waits_no_longer(gate: Gate, answered: bytes):
    client, provider = await gate.ask(post())
    await provider.message()
    if answered:
        await provider.send(answered)
        await client.until(b"hello")
    await gate.server.end()
    await client.end()
    assert await _end(gate) == (200 if answered else None, "cut")


async def test_a_client_that_leaves_while_the_others_are_waited_for(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    gate.server.drain()
    client.reset()
    await gate.at_rest()
    assert await _end(gate) == (None, "left")


# Tunnels


@pytest.mark.parametrize("how", ["close", "reset", "end_writing"])
@pytest.mark.parametrize("whose", ["client", "provider"])
@pytest.mark.parametrize("closed", [False, True], ids=["without a Close frame", "with one"])
async def test_a_tunnel_that_one_side_leaves(gate: Gate, whose: str, how: str, closed: bool):
    """A reset is no end, unless WebSocket's own came before it."""
    client, provider, _, _ = await opened_tunnel(gate)
    leaver, stays = (client, provider) if whose == "client" else (provider, client)
    if closed:
        close = CLOSE_MASKED if whose == "client" else CLOSE
        await leaver.send(close)
        await stays.exactly(len(close))
    await leave(leaver, how)
    await stays.end()
    stays.close()
    lost = "left" if whose == "client" else "cut"
    assert await _end(gate) == (101, lost if how == "reset" and not closed else "done")


@pytest.mark.parametrize("half", [b"", frame(b"half of it")[:-1]], ids=["between two frames", "inside one"])
async def test_a_tunnel_at_the_stop(gate: Gate, half: bytes):
    client, provider, _, _ = await opened_tunnel(gate)
    await provider.send(half)
    assert await client.exactly(len(half)) == half
    await gate.server.end()
    assert await _end(gate) == (101, "cut" if half else "done")


@pytest.mark.parametrize("slow", ["client", "provider"])
async def test_a_tunnel_of_which_one_side_takes_nothing(opened: Open, slow: str):
    gate, client, provider, _ = await left_behind(opened, slow)
    await gate.later(61)
    assert await _end(gate) == (101, "cut")
    client.close()
    provider.close()


async def test_a_tunnel_through_which_its_client_may_ask_no_more(gate: Gate):
    client, provider = await gate.ask(handshake(token=BOB))
    await provider.message()
    await provider.send(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    await client.message()
    gate.server.go_by(gate.gateway(users=False), None, max_connections=10)
    await client.send(frame(b"asked again", masked=True))
    assert (await client.end()).got
    assert await _end(gate) == (101, "done")
