"""A WebSocket that is cut anywhere, by either side, in any way, leaves nothing behind.

Each test ends with ``at_rest``: nobody is connected, no task runs, nothing is reserved;
and the fixture asserts that no descriptor is left.
"""

import asyncio
import contextlib
from pathlib import Path

import pytest
from engine.conftest import Open
from engine.harness import Gate, ok
from engine.test_leaving import _full_backlog
from engine.tunnels import REFUSED, SWITCH, frame, handshake, leave, opened_tunnel, tunnel_over
from engine.wires import Wire, eventually, turns

WAYS = pytest.mark.parametrize("how", ["close", "reset", "end_writing"])
WHOLE = frame(b"a whole frame", masked=True)


# The client, before there is a tunnel


@WAYS
@pytest.mark.parametrize("sent", [1, 40, len(handshake()) - 1])
async def test_in_the_middle_of_the_handshake(gate: Gate, how: str, sent: int):
    client = await gate.client()
    await client.send(handshake()[:sent])
    await eventually(lambda: gate.server.connections)
    await leave(client, how)
    await gate.at_rest()
    assert await gate.upstream.nobody_comes()


@WAYS
@pytest.mark.parametrize("early", [b"", WHOLE], ids=["silent", "with early data"])
async def test_while_connecting(gate: Gate, how: str, early: bytes):
    full = _full_backlog(gate.upstream)
    client = await gate.client()
    await client.send(handshake() + early)
    await eventually(lambda: gate.server.requests)
    await turns(20)
    await leave(client, how)
    await gate.at_rest()
    for wire in full:
        wire.close()


@WAYS
async def test_during_the_second_try(gate: Gate, how: str):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(REFUSED)
    again = await gate.upstream.accept()
    await again.message()
    await leave(client, how)
    assert (await again.end()).got == b""
    await gate.at_rest()


@WAYS
@pytest.mark.parametrize("sent", [0, 9, len(SWITCH) - 1])
async def test_while_the_101_is_awaited_or_half_there(gate: Gate, how: str, sent: int):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(SWITCH[:sent])
    await turns(5)
    await leave(client, how)
    assert (await provider.end()).got == b""
    await gate.at_rest()
    assert gate.upstream_connections == 0


async def test_at_every_turn_of_the_loop(gate: Gate):
    """Whichever step the handshake or the tunnel has reached, nothing is left behind."""

    async def serve(wire: Wire) -> None:
        await wire.message()
        await wire.send(SWITCH[:20], SWITCH[20:] + frame(b"hello"), frame(b"world"))
        await wire.end()

    gate.upstream.serve(serve)
    for count in range(90):
        client = await gate.client()
        await client.send(handshake() + WHOLE)
        await turns(count % 30)
        await leave(client, ["close", "reset", "end_writing"][count % 3])
    await gate.at_rest()
    await eventually(lambda: gate.upstream_connections == 0)


# The provider, before there is a tunnel


@WAYS
@pytest.mark.parametrize("sent", [0, 9, len(SWITCH) - 1])
async def test_a_provider_that_leaves_before_its_101_was_whole_is_a_502(gate: Gate, how: str, sent: int):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(SWITCH[:sent])
    await turns(5)
    await leave(provider, how)
    answer = await client.message()
    assert (answer.status, answer.get(b"x-should-retry")) == (502, b"true")
    assert (await client.end()).got == b""
    await gate.at_rest()
    assert await gate.upstream.nobody_comes()


async def test_a_provider_that_is_not_there_is_a_502(gate: Gate):
    gate.upstream.refuse_connections()
    client = await gate.client()
    await client.send(handshake() + WHOLE)
    answer = await client.message()
    assert (answer.status, answer.get(b"x-should-retry")) == (502, b"true")
    await client.end()
    client.close()
    await gate.at_rest()


async def test_a_provider_that_says_nothing_is_a_504(gate: Gate):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await gate.later(59)
    assert gate.server.requests == 1
    await gate.later(2)
    assert (await client.message()).status == 504
    assert (await provider.end()).got == b""
    await gate.at_rest()


@WAYS
async def test_a_provider_that_leaves_with_its_101(gate: Gate, how: str):
    """In the same packet, or as good as: what it said reaches the client, and then its end."""
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(SWITCH + frame(b"and out"))
    if how == "reset":  # which overtakes what was sent
        await client.until(b"and out")
    await leave(provider, how)
    if how != "reset":
        assert (await client.message()).status == 101
        assert await client.exactly(9) == frame(b"and out")
    assert (await client.end()).got == b""
    client.close()
    await gate.at_rest()


# Either, in the tunnel


@WAYS
@pytest.mark.parametrize("whose", ["client", "provider"])
@pytest.mark.parametrize("cut", [0, 1, 2, 5, 12], ids=lambda cut: f"{cut} bytes into a frame")
async def test_a_side_that_leaves_ends_the_tunnel_for_the_other(gate: Gate, how: str, whose: str, cut: int):
    client, provider, _, _ = await opened_tunnel(gate)
    leaver, stays = (client, provider) if whose == "client" else (provider, client)
    sent = frame(b"a whole frame", masked=whose == "client")[:cut]
    await leaver.send(sent)
    assert await stays.exactly(cut) == sent
    await leave(leaver, how)
    assert (await stays.end()).got == b""  # no frame of ours, least of all inside another
    stays.close()
    leaver.close()
    await gate.at_rest()
    await eventually(lambda: gate.upstream_connections == 0)


@pytest.mark.parametrize("how", ["close", "reset", "end_in_order"])
@pytest.mark.parametrize("whose", ["client", "provider"])
@pytest.mark.parametrize(("client_tls", "upstream_tls"), [(True, False), (False, True), (True, True)])
async def test_a_side_that_leaves_ends_the_tunnel_for_the_other_over_tls(
    opened: Open, certificate: Path, how: str, whose: str, client_tls: bool, upstream_tls: bool
):
    """At once, and where the tunnel ended in order with an end in order: no clock is moved here."""
    gate, client, provider = await tunnel_over(
        opened, certificate, client_tls=client_tls, upstream_tls=upstream_tls
    )
    leaver, stays = (client, provider) if whose == "client" else (provider, client)
    await leave(leaver, how)
    ended = await stays.end()
    assert ended.got == b""
    if how == "end_in_order":
        assert not ended.reset
    stays.close()
    await gate.at_rest()
    await eventually(lambda: gate.upstream_connections == 0)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("whose", ["client", "provider"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_side_that_leaves_in_the_middle_of_what_pours_in(
    opened: Open, certificate: Path, how: str, whose: str, tls: bool
):
    """What is on its way then is written to a connection that is going, or gone."""
    gate, client, provider = await tunnel_over(opened, certificate, client_tls=tls, upstream_tls=tls)
    leaver, stays = (client, provider) if whose == "client" else (provider, client)

    async def pour() -> None:
        with contextlib.suppress(OSError):
            for _ in range(200):
                await stays._put(frame(b"x" * 30_000))

    pouring = asyncio.ensure_future(pour())
    await leaver.exactly(500_000)
    await leave(leaver, how)
    await eventually(lambda: not gate.server.requests)
    pouring.cancel()
    await asyncio.gather(pouring, return_exceptions=True)
    stays.close()
    await gate.at_rest()
    await eventually(lambda: gate.upstream_connections == 0)


@pytest.mark.parametrize("whose", ["client", "provider"])
async def test_half_a_close_passes_and_what_the_other_side_still_says_arrives(gate: Gate, whose: str):
    client, provider, _, _ = await opened_tunnel(gate)
    leaver, stays = (client, provider) if whose == "client" else (provider, client)
    last = frame(b"the last word" * 50_000, masked=whose == "client")
    await leaver.send(last)
    leaver.end_writing()
    assert await stays.exactly(len(last)) == last
    assert (await stays.end()).got == b""
    answer = frame(b"and the answer to it" * 50_000, masked=whose != "client")
    await stays.send(answer)
    assert await leaver.exactly(len(answer)) == answer
    stays.end_writing()
    assert not (await leaver.end()).reset
    await gate.at_rest()


async def test_the_next_client_gets_a_connection_of_its_own(gate: Gate):
    """One that was switched serves nobody else, and one that served others before may be switched."""
    client, provider = await gate.ask(handshake().replace(b"Upgrade", b"X-None").replace(b"GET", b"POST", 1))
    await provider.message()
    await provider.send(ok())
    await client.message()
    await client.send(handshake())
    await provider.message()  # over the same connections on both sides
    await provider.send(SWITCH)
    assert (await client.message()).status == 101
    client.close()
    assert (await provider.end()).got == b""
    provider.close()
    await gate.at_rest()
    assert gate.server.pool.idle_count == 0
    _, again = await gate.ask(handshake())
    await again.message()
