"""Who may use a tunnel after a reload: what was begun may end, and nothing new begins for who is gone."""

import pytest
from engine.harness import Gate
from engine.tunnels import GOODBYE, SWITCH, frame, handshake, is_goodbye, opened_tunnel
from engine.wires import turns

AGAIN = frame(b"asked again", masked=True)
# One message in three frames (RFC 6455, 5.4), and a ping that may come between them.
PART, MORE, LAST = (frame(b"in parts", masked=True, first=first) for first in (0x01, 0x00, 0x80))
PING = frame(b"still there?", masked=True, first=0x89)


def _nobody_known(gate: Gate) -> None:
    gate.server.go_by(gate.gateway(users=False), None, max_connections=10)


@pytest.mark.parametrize("cut", [1, 3, 6, 9, len(AGAIN) - 1])
@pytest.mark.parametrize("extra", [1, 7, len(AGAIN), 2 * len(AGAIN) - 1])
async def test_no_message_slips_through_behind_the_end_of_one_that_was_begun(
    gate: Gate, cut: int, extra: int
):
    """Whoever never stops between two frames must not be able to ask on and on."""
    client, provider, _, _ = await opened_tunnel(gate)
    await client.send(AGAIN[:cut])
    assert await provider.exactly(cut) == AGAIN[:cut]
    _nobody_known(gate)
    await client.send(AGAIN[cut:] + (AGAIN + AGAIN)[:extra])
    assert (await client.end()).got == GOODBYE
    got = (await provider.end()).got
    assert got[: len(AGAIN) - cut] == AGAIN[cut:]
    assert is_goodbye(got[len(AGAIN) - cut :])


@pytest.mark.parametrize("first", [0x88, 0x89, 0x8A], ids=["close", "ping", "pong"])
async def test_nor_behind_a_control_frame(gate: Gate, first: int):
    client, provider, _, _ = await opened_tunnel(gate)
    _nobody_known(gate)
    control = frame(b"\x03\xe8", masked=True, first=first)
    await client.send(control)
    assert await provider.exactly(len(control)) == control
    await client.send(frame(b"\x03\xe8", masked=True, first=first) + AGAIN)
    assert b"asked" not in (await client.end()).got
    assert AGAIN not in (await provider.end()).got


@pytest.mark.parametrize("cut", [1, 6, len(PART), len(PART) + 1, len(PART + MORE)])
async def test_a_message_of_several_frames_that_was_begun_may_end(gate: Gate, cut: int):
    client, provider, _, _ = await opened_tunnel(gate)
    whole = PART + MORE + LAST
    await client.send(whole[:cut])
    assert await provider.exactly(cut) == whole[:cut]
    _nobody_known(gate)
    for byte in range(cut, len(whole)):
        await client.send(whole[byte : byte + 1])
        assert await provider.exactly(1) == whole[byte : byte + 1]
    await client.send(PING)
    assert await provider.exactly(len(PING)) == PING
    await provider.send(frame(b"the answer to it"))
    assert await client.exactly(18) == frame(b"the answer to it")
    await client.send(LAST)  # which continues nothing
    assert (await client.end()).got == GOODBYE
    assert is_goodbye((await provider.end()).got)


@pytest.mark.parametrize("again", [AGAIN, PART], ids=["whole", "in parts"])
@pytest.mark.parametrize("last", [LAST, b""], ids=["after its end", "in the middle of it"])
async def test_but_not_be_followed_by_another(gate: Gate, last: bytes, again: bytes):
    client, provider, _, _ = await opened_tunnel(gate)
    await client.send(PART)
    assert await provider.exactly(len(PART)) == PART
    _nobody_known(gate)
    passes = MORE + PING + MORE + last + PING
    await client.send(passes + again + LAST)
    assert (await client.end()).got == GOODBYE
    got = (await provider.end()).got
    assert got[: len(passes)] == passes
    assert is_goodbye(got[len(passes) :])


async def test_who_lost_the_path_lost_the_right_to_ask(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    gate.server.go_by(gate.gateway(paths=["/v1/responses"]), None, max_connections=10)
    await client.send(AGAIN)
    assert await provider.exactly(len(AGAIN)) == AGAIN
    gate.server.go_by(gate.gateway(paths=["/v1/models"]), None, max_connections=10)
    await client.send(PING)
    assert await provider.exactly(len(PING)) == PING
    await client.send(AGAIN)
    assert (await client.end()).got == GOODBYE
    assert is_goodbye((await provider.end()).got)


async def test_who_is_gone_before_the_101_has_come_gets_no_tunnel_to_ask_through(gate: Gate):
    """The request began under the old configuration; what follows it would last for an hour."""
    client, provider = await gate.ask(handshake())
    await provider.message()
    _nobody_known(gate)
    await provider.send(SWITCH)
    assert (await client.message()).status == 101
    await client.send(AGAIN)
    assert (await client.end()).got == GOODBYE
    assert is_goodbye((await provider.end()).got)


async def test_nor_for_what_was_sent_before_the_101(gate: Gate):
    client, provider = await gate.ask(handshake() + AGAIN)
    await provider.message()
    _nobody_known(gate)
    await turns(5)
    await provider.send(SWITCH)
    assert (await client.message()).status == 101
    assert (await client.end()).got == GOODBYE
    assert is_goodbye((await provider.end()).got)
    client.close()
    provider.close()
    await gate.at_rest()


async def test_who_is_back_after_another_reload_may_ask_again(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    _nobody_known(gate)
    gate.server.go_by(gate.gateway(), None, max_connections=10)
    await client.send(AGAIN)
    assert await provider.exactly(len(AGAIN)) == AGAIN


async def test_who_asks_somewhere_else_than_the_configuration_now_leads_is_ended(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    gate.server.go_by(gate.gateway(base_path=b"/elsewhere"), None, max_connections=10)
    await client.send(AGAIN)
    assert (await client.end()).got == GOODBYE
    assert is_goodbye((await provider.end()).got)
