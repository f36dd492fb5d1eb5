"""A stop lets tunnels drain, then says goodbye to both sides, between two frames or not at all."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from engine.conftest import Open
from engine.harness import Gate, get
from engine.test_leaving import _full_backlog
from engine.tunnels import (
    CLOSE,
    CLOSE_MASKED,
    GOODBYE,
    REFUSED,
    SWITCH,
    end_of,
    frame,
    handshake,
    is_goodbye,
    left_behind,
    opened_tunnel,
    tunnel_over,
)
from engine.wires import DEADLINE_S, Ended, Wire, eventually, turns

from ai_mux.proxy import server


async def _ended(gate: Gate, *wires: Wire) -> list[Ended]:
    """End the server, and return how each of these was ended; they leave when they are."""

    async def hear(wire: Wire) -> Ended:
        ended = await wire.end()
        wire.close()
        return ended

    with pytest.MonkeyPatch.context() as patched:
        # They leave as soon as they have heard, which takes a busy machine more than a second.
        patched.setattr(server, "_GOODBYE_S", DEADLINE_S)
        _, *heard = await asyncio.gather(gate.server.end(), *map(hear, wires))
    return heard


async def _waited_s(gate: Gate) -> float:
    """End the server, and return how long that takes, in naps of the loop: a machine's stops are none."""
    ending = asyncio.ensure_future(gate.server.end())
    naps = 0
    while not ending.done():
        await asyncio.sleep(0.01)
        naps += 1
    await ending
    return naps * 0.01


# Draining


async def test_a_tunnel_goes_on_while_others_are_waited_for(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    gate.server.drain()
    waiting = asyncio.ensure_future(gate.server.drained(DEADLINE_S))
    for _ in range(3):
        await client.send(frame(b"more", masked=True))
        assert await provider.exactly(10) == frame(b"more", masked=True)
        await provider.send(frame(b"more"))
        assert await client.exactly(6) == frame(b"more")
    assert not waiting.done()
    client.close()
    provider.close()
    await waiting
    assert not gate.server.connections


async def test_a_handshake_that_runs_becomes_a_tunnel_and_a_new_one_is_sent_elsewhere(gate: Gate):
    late = await gate.client()
    await late.send(handshake()[:-2])
    client, provider = await gate.ask(handshake())
    await provider.message()
    await eventually(lambda: gate.server.connections == 2 and gate.server.requests == 1)
    await turns(5)
    gate.server.drain()
    await late.send(b"\r\n")
    answer = await late.message()
    assert (answer.status, answer.get(b"x-should-retry")) == (503, b"true")
    await provider.send(SWITCH)
    assert (await client.message()).status == 101
    told, heard = await _ended(gate, client, provider)
    assert told.got == GOODBYE
    assert is_goodbye(heard.got)


# The goodbye


@pytest.mark.parametrize("client_tls", [False, True], ids=["plain client", "TLS client"])
@pytest.mark.parametrize("upstream_tls", [False, True], ids=["plain provider", "TLS provider"])
async def test_both_sides_are_told_and_closed_in_order(
    opened: Open, certificate: Path, client_tls: bool, upstream_tls: bool
):
    gate, client, provider = await tunnel_over(
        opened, certificate, client_tls=client_tls, upstream_tls=upstream_tls
    )
    last, first = frame(b"the last" * 9000), frame(b"the first" * 9000, masked=True)
    await provider.send(last)
    await client.send(first)
    await client.exactly(10)
    await provider.exactly(10)
    await eventually(lambda: end_of(gate, "client").passed == len(first))
    await eventually(lambda: end_of(gate, "provider").passed == len(last))
    told, heard = await _ended(gate, client, provider)
    assert told.got == last[10:] + GOODBYE
    assert heard.got[:-8] == first[10:]
    assert is_goodbye(heard.got[-8:])
    assert (told.reset, heard.reset) == (False, False)


TWO = frame(b"one") + frame(b"x" * 200, first=0x82)
TWO_MASKED = frame(b"one", masked=True) + frame(b"x" * 200, masked=True, first=0x82)


@pytest.mark.parametrize("cut", [1, 2, 4, 5, 6, 7, 8, 9, 100, len(TWO) - 1, len(TWO)])
async def test_the_client_is_told_between_two_frames_of_the_provider_only(gate: Gate, cut: int):
    client, provider, _, _ = await opened_tunnel(gate)
    await provider.send(TWO[:cut])
    assert await client.exactly(cut) == TWO[:cut]
    told, heard = await _ended(gate, client, provider)
    assert told.got == (GOODBYE if cut in {5, len(TWO)} else b"")
    assert is_goodbye(heard.got)  # its own direction stands between two frames


@pytest.mark.parametrize("cut", [1, 2, 5, 6, 8, 9, 10, 11, 12, 16, 17, len(TWO_MASKED) - 1, len(TWO_MASKED)])
async def test_the_provider_is_told_between_two_frames_of_the_client_only(gate: Gate, cut: int):
    client, provider, _, _ = await opened_tunnel(gate)
    await client.send(TWO_MASKED[:cut])
    assert await provider.exactly(cut) == TWO_MASKED[:cut]
    told, heard = await _ended(gate, client, provider)
    if cut in {9, len(TWO_MASKED)}:
        assert is_goodbye(heard.got)
    else:
        assert heard.got == b""
    assert told.got == GOODBYE


@pytest.mark.parametrize("client_tls", [False, True], ids=["plain client", "TLS client"])
@pytest.mark.parametrize("upstream_tls", [False, True], ids=["plain provider", "TLS provider"])
async def test_a_client_that_is_cut_takes_nothing_from_the_provider(
    opened: Open, certificate: Path, client_tls: bool, upstream_tls: bool
):
    """It is gone within a turn of the loop, and with it the last one whom the stop waits for."""
    gate, client, provider = await tunnel_over(
        opened, certificate, client_tls=client_tls, upstream_tls=upstream_tls
    )
    await provider.send(TWO[:7])
    await client.exactly(7)
    told, heard = await _ended(gate, client, provider)
    # Without close_notify: no end that TLS would vouch for.
    assert (told.got, told.reset) == (b"", client_tls)
    assert is_goodbye(heard.got)


@pytest.mark.parametrize("client_tls", [False, True], ids=["plain client", "TLS client"])
async def test_a_provider_that_is_cut_takes_nothing_from_the_client(
    opened: Open, certificate: Path, client_tls: bool
):
    gate, client, provider = await tunnel_over(opened, certificate, client_tls=client_tls, upstream_tls=True)
    await client.send(TWO_MASKED[:7])
    await provider.exactly(7)
    told, heard = await _ended(gate, client, provider)
    assert (heard.got, heard.reset) == (b"", True)
    assert (told.got, told.reset) == (GOODBYE, False)


async def test_what_waits_for_a_provider_inside_a_frame_is_not_sent_on_to_it(opened: Open):
    """It could not be told, so it is cut, at once: half a frame more is of no use to anybody."""
    gate, client, provider, sent = await left_behind(opened, "provider", short_of=1)
    (one,) = gate.server._clients
    assert one._tunnel is not None
    one._tunnel.end()  # as after a silence
    await eventually(lambda: gate.upstream_connections == 0)
    assert (await client.end()).got == GOODBYE
    assert len((await provider.end()).got) < len(sent)
    client.close()
    provider.close()
    await gate.at_rest()


async def test_what_came_before_and_with_the_101_counts_as_frames(gate: Gate):
    """Their first halves are passed on with the 101, and neither side stands between two frames."""
    client, provider = await gate.ask(handshake() + TWO_MASKED[:3])
    await provider.message()
    await provider.send(SWITCH + TWO[:3])
    await client.message()
    assert await client.exactly(3) == TWO[:3]
    assert await provider.exactly(3) == TWO_MASKED[:3]
    told, heard = await _ended(gate, client, provider)
    assert (told.got, heard.got) == (b"", b"")


@pytest.mark.parametrize("by_provider", [False, True])
@pytest.mark.parametrize("by_client", [False, True])
async def test_a_close_that_was_sent_is_not_followed_by_a_second_one(
    gate: Gate, by_client: bool, by_provider: bool
):
    """RFC 6455, 5.5.1: after a Close nothing more is sent."""
    client, provider, _, _ = await opened_tunnel(gate)
    if by_provider:
        await provider.send(CLOSE)
        assert await client.exactly(len(CLOSE)) == CLOSE
    if by_client:
        await client.send(CLOSE_MASKED)
        assert await provider.exactly(len(CLOSE_MASKED)) == CLOSE_MASKED
    told, heard = await _ended(gate, client, provider)
    assert told.got == (b"" if by_provider else GOODBYE)
    assert heard.got == b"" if by_client else is_goodbye(heard.got)
    assert not told.reset


@pytest.mark.parametrize("whose", ["client", "provider"])
async def test_a_direction_that_has_ended_carries_no_goodbye(gate: Gate, whose: str):
    client, provider, _, _ = await opened_tunnel(gate)
    leaver, stays = (client, provider) if whose == "client" else (provider, client)
    leaver.end_writing()
    assert (await stays.end()).got == b""
    (ended,) = await _ended(gate, leaver)
    assert is_goodbye(ended.got) if whose == "provider" else ended.got == GOODBYE


async def test_fifty_tunnels_are_told_all_at_once(gate: Gate):
    async def serve(wire: Wire) -> None:
        await wire.message()
        await wire.send(SWITCH)
        goodbyes.append((await wire.end()).got)

    goodbyes: list[bytes] = []
    gate.upstream.serve(serve)
    clients = [await gate.client() for _ in range(50)]
    for client in clients:
        await client.send(handshake())
    for client in clients:
        await client.message()
    told = await _ended(gate, *clients)
    assert [one.got for one in told] == [GOODBYE] * 50
    await eventually(lambda: len(goodbyes) == 50)
    assert all(map(is_goodbye, goodbyes))


# Who does not take it


@pytest.mark.parametrize("short_of", [0, 1], ids=["told", "inside a frame"])
@pytest.mark.parametrize("whose", ["client", "provider"])
async def test_a_side_that_takes_nothing_is_cut_within_a_second(opened: Open, whose: str, short_of: int):
    """Whether the goodbye waits behind a frame that it does not take, or could not be said at all."""
    gate, *_ = await left_behind(opened, whose, short_of=short_of)
    assert await _waited_s(gate) < 2
    await turns(3)
    assert not gate.server.connections
    assert gate.upstream_connections == 0


async def test_a_client_that_is_behind_has_that_second_to_take_the_rest_and_the_goodbye(opened: Open):
    gate, client, provider, sent = await left_behind(opened, "client")
    (told,) = await _ended(gate, client)
    assert told.got == sent + GOODBYE
    assert not told.reset
    assert is_goodbye((await provider.end()).got)


async def test_so_has_a_provider_that_is_behind_whose_client_has_gone_at_once(opened: Open):
    gate, client, provider, sent = await left_behind(opened, "provider")

    async def leave() -> None:
        assert (await client.end()).got == GOODBYE
        client.close()
        await eventually(lambda: not gate.server.connections)
        await turns(20)

    async def hear() -> Ended:
        await leave()
        return await provider.end()

    _, heard = await asyncio.gather(gate.server.end(), hear())
    assert heard.got[:-8] == sent
    assert is_goodbye(heard.got[-8:])


async def test_nobody_has_to_leave_for_the_stop_to_end(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    assert await _waited_s(gate) < 2
    assert (await client.end()).got == GOODBYE
    assert is_goodbye((await provider.end()).got)
    await gate.server.end()  # and a second time does no harm


# On the way to a tunnel


async def _connecting(gate: Gate, held: list[Wire]) -> Wire:
    held += _full_backlog(gate.upstream)
    client = await gate.client()
    await client.send(handshake())
    await eventually(lambda: gate.server.requests)
    await turns(10)
    return client


async def _renewing(gate: Gate, held: list[Wire]) -> Wire:
    gate.tokens.open.clear()
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(REFUSED)
    await eventually(lambda: gate.tokens.waiting)
    return client


async def _awaiting(gate: Gate, held: list[Wire]) -> Wire:
    client, provider = await gate.ask(handshake() + TWO_MASKED)
    await provider.message()
    await provider.send(SWITCH[:-1])
    await turns(5)
    return client


async def _refused(gate: Gate, held: list[Wire]) -> Wire:
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nhalf")
    await client.until(b"half")
    return client


@pytest.mark.parametrize("phase", [_connecting, _renewing, _awaiting, _refused])
async def test_a_handshake_that_runs_is_ended_at_once(gate: Gate, phase: Any):
    held: list[Wire] = []
    client = await phase(gate, held)
    (ended,) = await _ended(gate, client)
    assert ended.got == b""
    await gate.at_rest()
    assert gate.upstream_connections == 0
    for wire in held:
        wire.close()


@pytest.mark.parametrize("steps", [*range(0, 24, 2), 40])
async def test_the_end_at_any_turn_of_a_handshake_leaves_nothing(gate: Gate, steps: int):
    async def serve(wire: Wire) -> None:
        await wire.message()
        await wire.send(SWITCH + frame(b"hello"))
        await wire.end()

    gate.upstream.serve(serve)
    client = await gate.client()
    await client.send(handshake() + TWO_MASKED)
    await turns(steps)
    (ended,) = await _ended(gate, client)
    _, switched, rest = ended.got.partition(b"\r\n\r\n")
    assert rest in ({b"", frame(b"hello") + GOODBYE} if switched else {b""})
    await gate.at_rest()


async def test_a_client_that_waits_behind_its_tunnel_is_no_second_request(gate: Gate):
    """Bytes after the goodbye are thrown away, whatever they look like."""
    client, provider, _, _ = await opened_tunnel(gate)
    ending = asyncio.ensure_future(gate.server.end())
    assert (await provider.end()).got
    await client.send(get())
    assert (await client.end()).got == GOODBYE
    client.close()
    await ending
    assert await gate.upstream.nobody_comes()
