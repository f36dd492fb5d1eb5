"""On the way to a WebSocket: what either side sends early, late, in crumbs, or instead of it."""

import asyncio
import json

import pytest
from engine.conftest import Open
from engine.harness import ALICE, FIRST, Gate, get, ok
from engine.tunnels import (
    KEY,
    REFUSED,
    SWITCH,
    end_of,
    frame,
    handshake,
    narrow_towards_the_provider,
    opened_tunnel,
)
from engine.wires import Wire, eventually, turns

REFUSAL = b"HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\nContent-Length: 4\r\n\r\nbusy"


@pytest.mark.parametrize("step", [1, 7, 100])
async def test_in_crumbs_it_is_the_same_handshake(gate: Gate, step: int):
    client = await gate.client()
    asked = handshake()
    await client.send_slowly(asked, list(range(step, len(asked), step)))
    provider = await gate.upstream.accept()
    assert (await provider.message()).get(b"authorization") == b"Bearer " + FIRST.encode()
    first = SWITCH + frame(b"hello")
    await provider.send_slowly(first, list(range(step, len(first), step)))
    assert (await client.message()).status == 101
    assert await client.exactly(7) == frame(b"hello")


@pytest.mark.parametrize("size", [1, 125, 65_536, 128 * 1024 - 20, 128 * 1024 + 1, 300_000, 5_000_000])
@pytest.mark.parametrize("together", [True, False], ids=["in one piece", "afterwards"])
async def test_what_the_client_sends_before_the_101_waits_for_it(gate: Gate, size: int, together: bool):
    """More than a head's worth of it is not read, so that it cannot fill our memory."""
    early = frame(bytes(range(256)) * (size // 256 + 1), masked=True)[:size]
    client = await gate.client()
    if together:
        sending = asyncio.ensure_future(client.send(handshake() + early))
    else:
        await client.send(handshake())
        sending = asyncio.ensure_future(client.send(early))
    provider = await gate.upstream.accept()
    await provider.message()
    one = next(iter(gate.server._clients))
    await eventually(lambda: one._read_paused or sending.done())
    await turns(20)
    assert len(one._buffer) < 128 * 1024 + 256 * 1024 + 1  # a head and a read
    with pytest.raises(BlockingIOError):
        provider.sock.recv(1)
    await provider.send(SWITCH)
    assert await provider.exactly(size) == early
    await sending
    assert (await client.message()).status == 101
    await provider.send(frame(b"back"))
    assert await client.exactly(6) == frame(b"back")


async def test_early_data_waits_over_a_renewal_too(gate: Gate):
    early = frame(b"early", masked=True)
    client, provider = await gate.ask(handshake() + early)
    await provider.message()
    await provider.send(REFUSED)
    again = await gate.upstream.accept()
    await again.message()
    await client.send(early)
    await turns(5)
    await again.send(SWITCH)
    assert await again.exactly(2 * len(early)) == early + early
    assert (await client.message()).status == 101
    assert (await provider.end()).got == b""


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
async def test_interim_responses_before_the_101_are_swallowed(gate: Gate, interim: bytes):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(b"HTTP/1.1 %b\r\nLink: </x>\r\n\r\n" % interim)
    await provider.send(b"HTTP/1.1 %b\r\n\r\n" % interim + SWITCH + frame(b"1"))
    answer = await client.message()
    assert answer.status == 101
    assert answer.get(b"link") is None
    assert await client.exactly(3) == frame(b"1")


async def test_interim_responses_without_end_are_a_502(gate: Gate):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + SWITCH)
    assert (await client.message()).status == 502
    await provider.end()
    await gate.at_rest()


async def test_a_101_that_nobody_asked_for_is_a_502(gate: Gate):
    client, provider = await gate.ask(get())
    await provider.message()
    await provider.send(SWITCH + frame(b"surprise"))
    answer = await client.message()
    assert answer.status == 502
    assert b"surprise" not in (await client.end()).got
    assert (await provider.end()).got == b""


@pytest.mark.parametrize(
    "junk",
    [
        b"HTTP/1.1 101\r\n\r\n",
        b"\x81\x05hello\r\n\r\n",
        b"HTTP/2 101 X\r\n\r\n",
        SWITCH.replace(b": ", b" : "),
    ],
)
async def test_junk_instead_of_a_101_is_refused_and_its_connection_not_kept(gate: Gate, junk: bytes):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(junk)
    assert (await client.message()).status in {426, 502}
    assert (await provider.end()).got == b""
    await gate.at_rest()
    assert gate.upstream_connections == 0


@pytest.mark.parametrize("answer", [REFUSAL, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", ok()])
@pytest.mark.parametrize("when", ["with it", "before", "after"])
async def test_what_follows_a_refused_handshake_is_never_a_request(gate: Gate, answer: bytes, when: str):
    """It may be frames, and what is in frames is chosen by others than the client's owner."""
    smuggled = get(b"/chatgpt/v1/models")
    client, provider = await gate.ask(handshake() + (smuggled if when == "with it" else b""))
    await provider.message()
    if when == "before":
        await client.send(smuggled)
        await turns(10)
    await provider.send(answer)
    told = await client.message()
    assert told.status in {426, 429}
    assert b"close" in (told.get(b"connection") or b"")
    if when == "after":
        await client.send(smuggled)
    assert (await client.end()).got == b""
    client.close()
    await gate.at_rest()
    assert await gate.upstream.nobody_comes()
    assert sum(b'"status":' in line for line in gate.lines if b"request." in line) <= 1


async def test_a_refusal_passes_whole_however_it_is_framed(gate: Gate):
    client, provider = await gate.ask(handshake())
    await provider.message()
    head = b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\nx-codex-a: b\r\n\r\n"
    await provider.send(head, b"5\r\nhello\r\n", b"0\r\n\r\n")
    answer = await client.message()
    assert (answer.status, answer.body, answer.get(b"x-codex-a")) == (403, b"hello", b"b")
    assert not (await client.end()).reset
    await gate.at_rest()


# Time


async def test_a_handshake_that_trickles_in_is_a_408_after_ten_seconds(gate: Gate):
    client = await gate.client()
    asked = handshake()
    for second in range(10):
        await client.send(asked[second : second + 1])
        await eventually(lambda sent=second + 1: any(len(c._buffer) == sent for c in gate.server._clients))
        await gate.later(1)
    await gate.later(1)
    assert (await client.message()).status == 408
    assert await gate.upstream.nobody_comes()


async def test_a_101_that_trickles_in_is_a_504_at_the_requests_deadline(gate: Gate):
    client, provider = await gate.ask(handshake())
    await provider.message()
    for second in range(60):
        await provider.send(SWITCH[second : second + 1])
        await gate.later(1)
    await gate.later(1)
    assert (await client.message()).status == 504
    assert (await provider.end()).got == b""


async def test_the_second_try_has_a_deadline_of_its_own(gate: Gate):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await gate.later(50)
    await provider.send(REFUSED)
    again = await gate.upstream.accept()
    await again.message()
    await gate.later(50)
    assert gate.server.requests == 1
    await again.send(SWITCH)
    assert (await client.message()).status == 101


async def test_a_head_that_the_provider_has_not_read_yet_does_not_end_the_tunnel(opened: Open):
    """What waited from before the 101 has a minute from then on, and no deadline but the tunnel's."""
    gate = await opened(upstream_window=4096)
    narrow_towards_the_provider(gate)
    client = await gate.client()
    padding = b"".join(b"x-padding-%d: %b\r\n" % (n, b"x" * 8000) for n in range(15))
    await client.send(handshake(padding))
    provider = await gate.upstream.accept()
    await eventually(lambda: any(one.write_paused for one in gate.server.pool._all))
    await provider.send(SWITCH)
    assert (await client.message()).status == 101
    assert end_of(gate, "client")._read_paused
    await gate.later(2)
    assert gate.server.requests == 1
    await provider.message()
    await client.send(frame(b"on", masked=True))
    assert await provider.exactly(8) == frame(b"on", masked=True)
    await gate.later(120)
    assert gate.server.requests == 1
    await provider.send(frame(b"and on"))
    assert await client.exactly(8) == frame(b"and on")


# The connection's limits, and what is said of it


async def test_a_tunnel_counts_among_the_connections(opened: Open):
    gate = await opened(max_connections=1)
    client, provider, _, _ = await opened_tunnel(gate)
    second: Wire = await gate.client()
    await second.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    await gate.later(3)
    assert gate.server.connections == 1
    client.close()
    await provider.end()
    provider.close()
    assert (await second.message()).status == 200


async def test_the_log_says_who_had_a_tunnel_and_how_much_went_each_way(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    there, back = frame(b"words in a frame" * 10, masked=True), frame(b"words in a frame" * 1000)
    await client.send(there)
    await provider.exactly(len(there))
    await provider.send(back)
    await client.exactly(len(back))
    gate.clock.now += 90
    client.close()
    provider.close()
    await gate.at_rest()
    await eventually(lambda: any(b'"request.done"' in line for line in gate.lines))
    (line,) = [json.loads(line) for line in b"".join(gate.lines).splitlines() if b'"request.done"' in line]
    told = {name: line[name] for name in ("method", "path", "user", "provider", "status")}
    assert told == {
        "method": "GET", "path": "/chatgpt/v1/responses", "user": "alice", "provider": "chatgpt",
        "status": 101,
    }  # fmt: skip
    assert (line["bytes_in"], line["bytes_out"]) == (len(there), len(back))
    assert line["head_ms"] == 0
    assert line["total_ms"] == 90_000
    for secret in (ALICE, FIRST.encode(), KEY, b"words in a frame"):
        assert secret not in b"".join(gate.lines)
