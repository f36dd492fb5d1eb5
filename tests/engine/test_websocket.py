"""A WebSocket is relayed: the handshake with our credential, then bytes both ways until both have ended."""

import ssl
from pathlib import Path

import pytest
from engine.conftest import Open
from engine.harness import FIRST, SECOND, Gate, ok
from engine.tunnels import KEY, SWITCH, frame, handshake, opened_tunnel
from engine.wires import Ended, TlsWire, eventually, turns

# The handshake


async def test_the_handshake_goes_on_with_our_credential_and_without_extensions(gate: Gate):
    _, _, asked, answered = await opened_tunnel(gate)
    assert asked.raw_head == (
        b"GET /responses HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\nauthorization: Bearer %b\r\n"
        b"openai-beta: responses_websockets=2026-02-06\r\nAccept-Encoding: identity\r\n\r\n"
        % (gate.upstream.port, KEY, FIRST.encode())
    )
    ours = answered.get(b"x-request-id")
    assert ours is not None and ours.startswith(b"amx_")
    assert answered.raw_head == SWITCH[:-2] + b"x-request-id: " + ours + b"\r\n\r\n"


async def test_bytes_pass_both_ways_as_they_come(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    for size in (1, 125, 126, 70_000, 1_000_000):
        there, back = frame(b"a" * size, masked=True), frame(b"b" * size)
        await client.send(there)
        assert await provider.exactly(len(there)) == there
        await provider.send(back)
        assert await client.exactly(len(back)) == back


async def test_what_comes_together_with_the_handshake_or_the_101_is_passed_on(gate: Gate):
    early, first = frame(b"early", masked=True), frame(b"first")
    client, provider = await gate.ask(handshake() + early)
    await provider.message()
    await turns(5)
    await provider.send(SWITCH + first)
    await client.message()
    assert await client.exactly(len(first)) == first
    assert await provider.exactly(len(early)) == early


async def test_nothing_of_the_client_is_passed_on_before_the_101(gate: Gate):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await client.send(frame(b"too early", masked=True))
    await turns(20)
    await provider.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    assert (await client.message()).body == b"no"
    assert (await client.end()).got == b""  # nor is it taken for a request
    with pytest.raises(BlockingIOError):
        provider.sock.recv(1)


async def test_a_refused_token_is_renewed_and_the_handshake_sent_once_more(gate: Gate):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    again = await gate.upstream.accept()
    assert (await again.message()).get(b"authorization") == b"Bearer " + SECOND.encode()
    await again.send(SWITCH)
    assert (await client.message()).status == 101
    assert gate.tokens.refused == [FIRST]


async def test_a_second_401_is_a_503(gate: Gate):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    again = await gate.upstream.accept()
    await again.message()
    await again.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    answer = await client.message()
    assert (answer.status, answer.get(b"x-should-retry")) == (503, b"false")


@pytest.mark.parametrize("status", [200, 204, 302, 404, 405, 426, 501, 502])
async def test_a_refusal_after_which_only_http_helps_is_a_426(gate: Gate, status: int):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\n\r\n" % status)
    answer = await client.message()
    assert (answer.status, answer.get(b"upgrade")) == (426, b"websocket")
    await gate.at_rest()


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503, 529])
async def test_any_other_refusal_passes_verbatim(gate: Gate, status: int):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(b"HTTP/1.1 %d Refused\r\nretry-after: 7\r\nContent-Length: 6\r\n\r\nreason" % status)
    answer = await client.message()
    assert (answer.status, answer.get(b"retry-after"), answer.body) == (status, b"7", b"reason")
    await gate.at_rest()


@pytest.mark.parametrize(
    "switch",
    [
        SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        SWITCH.replace(b"\r\n\r\n", b"\r\nSEC-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        SWITCH.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello"),
    ],
    ids=["to something else", "with extensions", "with a body"],
)
async def test_a_switch_that_nobody_asked_for_is_a_426(gate: Gate, switch: bytes):
    client, provider = await gate.ask(handshake())
    await provider.message()
    await provider.send(switch)
    assert (await client.message()).status == 426
    assert (await provider.end()).got == b""
    await gate.at_rest()


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 8", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Version: 13\r\n" * 2, 426),
        (b"Sec-WebSocket-Key: %b\r\n" % KEY, b"", 400),
        (KEY, b"too-short", 400),
        (b"Upgrade: websocket", b"Upgrade: h2c", 405),
        (b"GET ", b"POST ", None),
        (b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"Bearer", b"Basic", 401),
        (b"/v1/responses", b"/v1/files", 403),
    ],
)
async def test_what_is_no_handshake_is_not_relayed(gate: Gate, old: bytes, new: bytes, status: int | None):
    client = await gate.client()
    await client.send(handshake().replace(old, new, 1))
    if status is None:  # an upgrade that is none: an ordinary request
        provider = await gate.upstream.accept()
        assert (await provider.message()).get(b"upgrade") is None
        await provider.send(ok())
        assert (await client.message()).status == 200
        return
    answer = await client.message()
    assert answer.status == status
    if status == 426:
        assert answer.get(b"sec-websocket-version") == b"13"
    assert await gate.upstream.nobody_comes()


# Ending


async def test_a_client_that_leaves_without_a_close_frame_ends_the_tunnel(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    client.close()
    assert not (await provider.end()).reset
    provider.close()
    await gate.at_rest()


async def test_half_a_close_leaves_the_other_half_open(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    client.end_writing()
    assert (await provider.end()).got == b""
    last = frame(b"the rest of the answer" * 1000)
    await provider.send(last)
    assert await client.exactly(len(last)) == last
    provider.end_writing()
    assert not (await client.end()).reset
    await gate.at_rest()


@pytest.mark.parametrize("leave", ["close", "reset", "end_writing"])
async def test_a_provider_that_leaves_ends_the_tunnel(gate: Gate, leave: str):
    client, provider, _, _ = await opened_tunnel(gate)
    getattr(provider, leave)()
    assert (await client.end()).got == b""
    client.close()
    await gate.at_rest()


async def test_a_stop_sends_a_close_frame_to_both_sides(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await provider.send(frame(b"whole"))
    await client.exactly(7)
    await gate.server.end()
    assert (await client.end()).got == b"\x88\x02\x03\xe9"
    got = (await provider.end()).got
    assert got[:2] == b"\x88\x82"
    assert bytes(byte ^ got[2 + at % 4] for at, byte in enumerate(got[6:])) == b"\x03\xe9"


async def test_a_stop_inside_a_frame_cuts_that_side(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await provider.send(frame(b"only half of it")[:-5])
    await client.exactly(12)
    await gate.server.end()
    assert (await client.end()).got == b""  # no goodbye: the frame just ends, which is no end
    assert (await provider.end()).got[:2] == b"\x88\x82"


async def test_a_silence_of_65_minutes_ends_in_order(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    gate.clock.now += 64 * 60
    gate.server.sweep(gate.clock.now)
    ping = frame(b"", first=0x89)
    await provider.send(ping)
    assert await client.exactly(len(ping)) == ping
    await gate.later(1)
    gate.clock.now += 64 * 60
    gate.server.sweep(gate.clock.now)
    await turns(10)
    assert gate.server.requests == 1
    gate.clock.now += 60
    gate.server.sweep(gate.clock.now)
    assert (await client.end()).got == b"\x88\x02\x03\xe9"
    assert (await provider.end()).got[:2] == b"\x88\x82"


# Pace


async def test_a_client_that_does_not_read_stops_the_provider_and_is_cut_after_a_minute(opened: Open):
    gate = await opened(upstream_window=64 * 1024)
    client = await gate.client(window=16 * 1024)
    await client.send(handshake())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(SWITCH)
    await client.message()
    piece = frame(b"x" * 65_000)
    provider.sock.setblocking(False)
    sent, refused = 0, 0
    while refused < 50:
        try:
            sent += provider.sock.send(piece)
            refused = 0
        except BlockingIOError:
            refused += 1
        await turns(3)
    assert sent < 30_000_000
    await gate.later(59)
    assert gate.server.requests == 1
    await gate.later(2)
    await eventually(lambda: not gate.server.requests)
    with pytest.raises(Ended):
        await client.exactly(sent)


# TLS


async def test_over_tls_on_both_sides(opened: Open, certificate: Path):
    listener = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener.load_cert_chain(certificate)
    gate = await opened(upstream_tls=listener, trust=certificate, tls_listener=listener)
    client: TlsWire = await gate.tls_client(ssl.create_default_context(cafile=str(certificate)))
    await client.send(handshake())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(SWITCH + frame(b"1"))
    assert (await client.message()).status == 101
    assert await client.exactly(3) == frame(b"1")
    for size in (100, 100_000):
        there, back = frame(b"a" * size, masked=True), frame(b"b" * size)
        await client.send(there)
        assert await provider.exactly(len(there)) == there
        await provider.send(back)
        assert await client.exactly(len(back)) == back
    client.close()
    await provider.end()
    provider.close()
    await gate.at_rest()


# Reload


async def test_who_is_no_longer_a_user_gets_the_response_that_runs_and_no_other(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    begun = frame(b"asked before", masked=True)
    await client.send(begun[:5])
    await provider.exactly(5)
    gate.server.go_by(gate.gateway(users=False), None, max_connections=10)
    await client.send(begun[5:])
    await provider.exactly(len(begun) - 5)
    pong = frame(b"", masked=True, first=0x8A)
    await client.send(pong)
    await provider.exactly(len(pong))
    answer = frame(b"the running response")
    await provider.send(answer)
    assert await client.exactly(len(answer)) == answer
    await client.send(frame(b"asked again", masked=True))
    assert (await client.end()).got == b"\x88\x02\x03\xe9"
    assert (await provider.end()).got[:2] == b"\x88\x82"


async def test_who_is_still_a_user_goes_on_over_a_reload(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    gate.server.go_by(gate.gateway(), None, max_connections=10)
    again = frame(b"asked again", masked=True)
    await client.send(again)
    assert await provider.exactly(len(again)) == again
