"""A tunnel holds no more than a window, and waits for whoever is slow, but not for ever (field note 16)."""

import asyncio
import gc
import random
import tracemalloc
from pathlib import Path

import pytest
from engine.conftest import Open
from engine.harness import ALICE, BOB, Gate
from engine.test_pressure import MB, Peak
from engine.tunnels import (
    GOODBYE,
    SWITCH,
    end_of,
    frame,
    handshake,
    is_goodbye,
    left_behind,
    narrow_tunnel,
    opened_tunnel,
    tunnel_over,
)
from engine.wires import Wire, eventually, turns

# What two transports may hold: a read and the high-water mark of each, twice with TLS.
WINDOW = 2 * MB
SIDES = pytest.mark.parametrize("slow", ["client", "provider"])
TLS = pytest.mark.parametrize(
    ("client_tls", "upstream_tls"), [(False, False), (True, True)], ids=["plain", "TLS"]
)


async def _pour(wire: Wire, piece: bytes, count: int) -> None:
    for _ in range(count):
        await wire._put(piece)


# Sizes


@pytest.mark.parametrize("whose", ["client", "provider"])
@TLS
async def test_a_frame_of_10_mb_and_thousands_of_small_ones_arrive_as_they_were_sent(
    opened: Open, certificate: Path, whose: str, client_tls: bool, upstream_tls: bool
):
    _, client, provider = await tunnel_over(
        opened, certificate, client_tls=client_tls, upstream_tls=upstream_tls
    )
    source, sink = (client, provider) if whose == "client" else (provider, client)
    dice = random.Random(7)
    masked = whose == "client"
    large = frame(dice.randbytes(10_000_000), masked=masked)
    small = b"".join(frame(dice.randbytes(dice.randrange(40)), masked=masked) for _ in range(5000))
    sending = asyncio.ensure_future(_pour(source, large + small + large, 1))
    got = b"".join([await sink.exactly(1_000_000) for _ in range(20)])
    got += await sink.exactly(len(large) * 2 + len(small) - 20_000_000)
    assert got == large + small + large
    await sending


async def test_frames_one_by_one_and_in_both_directions_at_once(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    there = [frame(b"%d" % n, masked=True) for n in range(3000)]
    back = [frame(b"%d" % n) for n in range(3000)]
    sending = [asyncio.ensure_future(client.send(*there)), asyncio.ensure_future(provider.send(*back))]
    assert await provider.exactly(sum(map(len, there))) == b"".join(there)
    assert await client.exactly(sum(map(len, back))) == b"".join(back)
    await asyncio.gather(*sending)


# Who does not keep up


@SIDES
@TLS
async def test_a_side_that_does_not_read_is_waited_for_in_constant_memory(
    opened: Open, certificate: Path, slow: str, client_tls: bool, upstream_tls: bool
):
    gate, client, provider = await tunnel_over(
        opened, certificate, client_tls=client_tls, upstream_tls=upstream_tls
    )
    source, sink = (client, provider) if slow == "provider" else (provider, client)
    piece = frame(bytes(range(256)) * 250, masked=slow == "provider")
    behind, reads = end_of(gate, slow), end_of(gate, "client" if slow == "provider" else "provider")
    with Peak() as peak:
        pouring = asyncio.ensure_future(_pour(source, piece, 400))
        await eventually(lambda: reads._read_paused)
        await turns(100)
        assert behind.transport.get_write_buffer_size() < WINDOW
    assert peak.bytes < WINDOW
    assert not pouring.done()
    back = frame(b"the other direction goes on", masked=slow == "client")
    await sink.send(back)
    assert await source.exactly(len(back)) == back
    for _ in range(400):
        assert await sink.exactly(len(piece)) == piece
    await pouring
    assert not reads._read_paused
    assert not behind.write_paused


@SIDES
async def test_a_side_that_takes_nothing_for_a_minute_is_cut(opened: Open, slow: str):
    gate, client, provider, _ = await left_behind(opened, slow)
    await gate.later(58)
    assert gate.server.requests == 1
    await gate.later(3)
    assert not gate.server.requests
    await eventually(lambda: gate.upstream_connections == 0)
    quick = provider if slow == "client" else client
    assert (await quick.end()).got == b""
    client.close()
    provider.close()
    await gate.at_rest()


@SIDES
async def test_a_side_that_is_slow_but_reads_is_not_cut(opened: Open, slow: str):
    gate, client, provider, sent = await left_behind(opened, slow)
    sink, behind, taken = (client if slow == "client" else provider), end_of(gate, slow), 0
    while behind.write_paused:
        before = behind.transport.get_write_buffer_size()
        await gate.later(50)
        assert gate.server.requests == 1
        while behind.transport.get_write_buffer_size() == before and behind.write_paused:
            taken += len(await sink.some())
            await turns(3)
    await gate.later(120)  # nor does the silence that follows count from before
    assert gate.server.requests == 1
    while taken < len(sent):
        taken += len(await sink.some())
    back = frame(b"there", masked=slow == "client")
    await sink.send(back)
    assert await (provider if slow == "client" else client).exactly(len(back)) == back


async def test_while_a_half_open_side_is_behind_its_minute_of_silence_has_not_begun(opened: Open):
    gate, client, _, _ = await left_behind(opened, "client")
    client.end_writing()
    behind = end_of(gate, "client")
    await eventually(lambda: behind.has_ended)
    while behind.write_paused:
        before = behind.transport.get_write_buffer_size()
        await gate.later(50)
        while behind.transport.get_write_buffer_size() == before and behind.write_paused:
            await client.some()
            await turns(3)
    await gate.later(55)
    assert gate.server.requests == 1
    await gate.later(10)
    await eventually(lambda: not gate.server.requests)


async def test_a_client_that_is_behind_gets_the_rest_after_the_provider_has_gone(opened: Open):
    """It has the minute that every client has to read, and not the two seconds of a refused one."""
    gate, client, provider, sent = await left_behind(opened, "client")
    tunnel = next(iter(gate.server._clients))._tunnel
    assert tunnel is not None
    tunnel.upstream.connection_lost(None)  # as TLS says it, which cannot be half closed
    got = b""
    for _ in range(6):
        await gate.later(9)
        got += await client.some()
    ended = await client.end()
    assert got + ended.got == sent
    assert not ended.reset
    client.close()
    provider.close()
    await gate.at_rest()


async def test_a_client_that_leaves_after_the_provider_has_gone_is_noticed_at_once(opened: Open):
    """It was not read while the provider was behind; who is not read on is not seen to leave."""
    gate, client, provider, _ = await left_behind(opened, "provider")
    assert end_of(gate, "client")._read_paused
    end_of(gate, "provider").connection_lost(None)  # as TLS says it, which cannot be half closed
    assert (await client.end()).got == b""
    client.close()
    provider.close()
    await gate.at_rest()


async def test_a_provider_that_does_not_take_the_rest_after_the_client_has_gone_is_cut_after_a_minute(
    opened: Open,
):
    gate = await opened(upstream_window=4096)
    client, provider = await narrow_tunnel(gate)
    behind = end_of(gate, "provider").transport
    while not behind.get_write_buffer_size():
        await client.send(frame(b"x" * 10_000, masked=True))
        await turns(3)
    client.reset()
    await gate.at_rest()
    await gate.later(58)
    assert gate.upstream_connections == 1
    assert behind.get_write_buffer_size()
    await gate.later(3)
    assert gate.upstream_connections == 0
    provider.close()


@pytest.mark.parametrize("closed", [True, False])
async def test_after_a_close_frame_a_lost_provider_does_not_cut_what_the_client_still_gets(
    gate: Gate, closed: bool
):
    """It is WebSocket's own end; a reset behind it, or TLS without close_notify, changes nothing."""
    client, provider = await narrow_tunnel(gate)
    last = frame(b"x" * 60_000) + (frame(b"\x03\xe8", first=0x88) if closed else b"")
    await provider.send(last)
    await eventually(lambda: end_of(gate, "provider").passed == len(last))
    assert end_of(gate, "client").transport.get_write_buffer_size()
    provider.reset()
    await eventually(lambda: gate.upstream_connections == 0)
    await gate.later(30)
    ended = await client.end()
    assert (ended.got == last) is closed
    client.close()
    await gate.at_rest()


# Silence


@pytest.mark.parametrize("whose", ["client", "provider"])
async def test_half_open_and_silent_it_ends_after_a_minute_however_long_it_was_silent_before(
    gate: Gate, whose: str
):
    client, provider, _, _ = await opened_tunnel(gate)
    leaver, stays = (client, provider) if whose == "client" else (provider, client)
    await gate.later(600)
    leaver.end_writing()
    assert (await stays.end()).got == b""
    await gate.later(58)
    assert gate.server.requests == 1
    await stays.send(frame(b"still here", masked=whose == "provider"))
    await leaver.until(b"still here" if whose == "client" else b"\xaa\x55")
    await gate.later(58)
    assert gate.server.requests == 1
    await gate.later(4)
    await eventually(lambda: not gate.server.requests)
    got = (await leaver.end()).got
    assert got.endswith(GOODBYE) if whose == "client" else is_goodbye(got[-8:])
    client.close()
    provider.close()
    await gate.at_rest()


@pytest.mark.parametrize("whose", ["client", "provider", "both"])
async def test_any_byte_of_either_side_keeps_it_open_for_another_65_minutes(gate: Gate, whose: str):
    client, provider, _, _ = await opened_tunnel(gate)
    for _ in range(3):
        gate.clock.now += 65 * 60 - 2
        gate.server.sweep(gate.clock.now)
        assert gate.server.requests == 1
        if whose != "provider":
            await client.send(b"\x89")
            await provider.exactly(1)
        if whose != "client":
            await provider.send(b"\x89")
            await client.exactly(1)
        await gate.later(1)
    gate.clock.now += 65 * 60
    gate.server.sweep(gate.clock.now)
    await eventually(lambda: not gate.server.requests)
    client.close()
    provider.close()


async def test_a_client_that_does_not_hang_up_after_the_end_is_cut_after_a_minute(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    gate.clock.now += 65 * 60
    gate.server.sweep(gate.clock.now)
    assert (await client.end()).got == GOODBYE
    await provider.end()
    provider.close()
    await gate.later(58)
    assert gate.server.connections == 1
    await gate.later(3)
    await gate.at_rest()


# Many at once


async def _chat(mine: Wire, theirs: Wire, name: bytes, dice: random.Random) -> None:
    """Send frames that say whose they are, both ways, in any pieces, and read that back."""

    async def one_way(source: Wire, sink: Wire) -> None:
        frames = b"".join(frame(name * dice.randrange(1, 300)) for _ in range(dice.randrange(5, 20)))
        cuts = sorted(dice.randrange(len(frames)) for _ in range(dice.randrange(12)))
        sending = asyncio.ensure_future(source.send_slowly(frames, cuts))
        assert await sink.exactly(len(frames)) == frames
        await sending

    await asyncio.gather(one_way(mine, theirs), one_way(theirs, mine))


@pytest.mark.parametrize("seed", range(2))
async def test_no_byte_of_one_tunnel_reaches_another(gate: Gate, seed: int):
    """Fifty at once, of two users, with others that come, break off and go between them."""
    dice = random.Random(seed)
    ends: dict[bytes, asyncio.Future[Wire]] = {}

    async def serve(wire: Wire) -> None:
        name = (await wire.message()).get(b"x-name") or b""
        await wire.send(SWITCH)
        ends[name].set_result(wire)
        await asyncio.Event().wait()

    gate.upstream.serve(serve)

    async def user(number: int) -> None:
        for count in range(2):
            name = b"<n%d-%d>" % (number, count)
            ends[name] = asyncio.get_running_loop().create_future()
            client = await gate.client()
            await client.send(handshake(b"x-name: %b\r\n" % name, token=dice.choice([ALICE, BOB])))
            assert (await client.message()).status == 101
            provider = await ends[name]
            await _chat(client, provider, name, dice)
            if number % 5 == 0:  # breaks off in the middle of what is on its way
                await provider.send(frame(name * 500)[: dice.randrange(1, 2000)])
            client.reset() if number % 2 else client.close()
            provider.close()

    await asyncio.gather(*map(user, range(50)))
    await gate.at_rest()
    await eventually(lambda: gate.upstream_connections == 0)


async def test_idle_tunnels_have_no_task_and_little_memory_each(gate: Gate):
    async def serve(wire: Wire) -> None:
        await wire.message()
        await wire.send(SWITCH)
        await asyncio.Event().wait()

    gate.upstream.serve(serve)

    async def open_some(count: int) -> None:
        for _ in range(count):
            client = await gate.client()
            await client.send(handshake())
            assert (await client.message()).status == 101

    await open_some(20)  # what is remembered is remembered by now
    gc.collect()
    gate.lines.clear()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await open_some(100)
    gc.collect()
    gate.lines.clear()
    each = (tracemalloc.get_traced_memory()[0] - before) / 100
    tracemalloc.stop()
    assert gate.server.requests == 120
    assert not gate.new_tasks()
    assert each < 24 * 1024  # with the test's own end and task on either side; the figure is bench's
