"""Each response in a tunnel is a request of its own: it counts while it runs, and has a row."""

import random

import pytest
from engine.conftest import Open
from engine.events import USAGE, ask, create, created, delta, ended, message, opening, pass_on
from engine.harness import Gate
from engine.tunnels import CLOSE, GOODBYE, frame, handshake, leave, opened_tunnel
from engine.wires import Wire, eventually, turns

from ai_mux.limits import Limits
from ai_mux.usage.tally import NO_TOKENS, Tokens

USED = Tokens(input=200, cache_read=1000, output=34)
ONE_AT_A_TIME = {"limits": Limits(concurrent=1)}
ANSWER = created() + delta("Hel") + delta("lo") + ended()


def running(gate: Gate) -> int:
    return gate.server.accounting.limiter.running


async def respond(client: Wire, provider: Wire, answer: bytes = ANSWER) -> None:
    await pass_on(client, provider, ask())
    await pass_on(provider, client, answer)


async def test_each_response_has_a_row_and_the_tunnel_none(gate: Gate):
    client, provider, _, answered = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    gate.clock.now += 0.5
    await pass_on(provider, client, created() + delta())
    gate.clock.now += 2
    await pass_on(provider, client, ended())
    await respond(client, provider, created() + ended("incomplete", output_tokens=7))
    client.close()
    provider.close()
    await gate.at_rest()
    first, second = gate.rows.records
    assert first.tokens == USED
    assert second.tokens == Tokens(input=200, cache_read=1000, output=7)
    assert (first.model, first.status, first.metering) == ("gpt-5.5-2026-04-23", 200, "whole")
    assert (first.user, first.provider, first.credential) == ("alice", "chatgpt", "chatgpt:login")
    assert (first.path, first.request_id.encode()) == ("/chatgpt/v1/responses", answered.get(b"x-request-id"))
    assert (first.head_ms, first.total_ms) == (pytest.approx(500), pytest.approx(2500))
    assert first.bytes_in == len(create())
    assert first.bytes_out == len(created() + delta() + ended())
    assert second.bytes_out == len(created() + ended("incomplete", output_tokens=7))


async def test_a_tunnel_counts_only_while_a_response_runs(opened: Open):
    gate = await opened(alice=ONE_AT_A_TIME)
    one, his = await gate.ask(handshake())
    await his.message()
    await his.send(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (await one.message()).status == 101
    two, hers, _, _ = await opened_tunnel(gate)
    assert running(gate) == 0
    for client, provider in ((one, his), (two, hers), (one, his)):
        await pass_on(client, provider, ask())
        await pass_on(provider, client, created() + delta())
        assert running(gate) == 1
        await pass_on(provider, client, ended())
        await eventually(lambda: running(gate) == 0)
    assert len(gate.rows.records) == 3


async def test_of_several_responses_at_once_each_counts_and_each_has_a_row(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask() + ask())
    assert running(gate) == 2
    await pass_on(provider, client, created() + created() + delta() + ended(output_tokens=1))
    await eventually(lambda: running(gate) == 1)
    await pass_on(provider, client, ended(output_tokens=2))
    await eventually(lambda: running(gate) == 0)
    assert [row.tokens.output for row in gate.rows.records] == [1, 2]


@pytest.mark.parametrize("whose", ["client", "provider"])
@pytest.mark.parametrize("how", ["close", "reset", "end_writing"])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_response_that_the_tunnels_end_cuts_off_has_a_row_without_tokens(
    gate: Gate, whose: str, how: str, begun: bool
):
    client, provider, _, _ = await opened_tunnel(gate)
    await respond(client, provider)
    await pass_on(client, provider, ask("gpt-5.4"))
    if begun:
        await pass_on(provider, client, created() + delta())
    await leave(client if whose == "client" else provider, how)
    await (provider if whose == "client" else client).end()
    client.close()
    provider.close()
    await gate.at_rest()
    cut = gate.rows.records[1]
    assert (cut.status, cut.metering, cut.tokens, cut.model) == (
        200 if begun else 0,
        "unmetered",
        NO_TOKENS,
        "gpt-5.4",
    )
    assert cut.bytes_out == (len(created() + delta()) if begun else 0)
    assert len(gate.rows.records) == 2
    assert running(gate) == 0


async def test_a_stop_of_the_server_cuts_it_off_as_well(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    await pass_on(provider, client, created())
    await gate.server.end()
    assert (await client.end()).got == GOODBYE
    (row,) = gate.rows.records
    assert (row.status, row.metering) == (200, "unmetered")
    assert running(gate) == 0


@pytest.mark.parametrize(
    ("members", "status"),
    [({"status": 429}, 429), ({"status_code": 400}, 400), ({}, 500), ({"status": "429"}, 500)],
)
async def test_an_error_in_a_responses_place_ends_it(gate: Gate, members: dict[str, object], status: int):
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    error = frame(message(type="error", error={"code": "made_up"}, **members))
    await pass_on(provider, client, error)
    await eventually(lambda: running(gate) == 0)
    (row,) = gate.rows.records
    assert (row.status, row.metering, row.model) == (status, "none", "gpt-5.5")
    await pass_on(provider, client, error)  # which nobody was waiting for
    await respond(client, provider)
    assert [one.status for one in gate.rows.records] == [status, 200]


async def test_an_error_answers_who_waits_for_an_answer_not_who_has_one(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    await pass_on(provider, client, created())
    await pass_on(client, provider, ask("gpt-5.4"))
    await pass_on(provider, client, frame(message(type="error", status=400)) + ended())
    await eventually(lambda: running(gate) == 0)
    assert [(row.status, row.model) for row in gate.rows.records] == [
        (400, "gpt-5.4"),
        (200, "gpt-5.5-2026-04-23"),
    ]


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
async def test_every_kind_of_end_is_one(gate: Gate, kind: str):
    client, provider, _, _ = await opened_tunnel(gate)
    await respond(client, provider, created() + ended(kind))
    await eventually(lambda: running(gate) == 0)
    (row,) = gate.rows.records
    assert row.tokens == (NO_TOKENS if kind == "failed" else USED)


async def test_a_response_that_nobody_created_counts_and_has_a_row(gate: Gate):
    """Steered, a response ends early, and the provider begins its successor by itself."""
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    steer = message(type="response.steer", previous_response_id="resp_1", input="Shorter.")
    await pass_on(client, provider, frame(steer, masked=True))
    await pass_on(provider, client, created() + delta() + ended("incomplete", output_tokens=3) + created())
    await eventually(lambda: running(gate) == 1)
    await pass_on(provider, client, delta() + ended())
    await eventually(lambda: running(gate) == 0)
    assert [row.tokens.output for row in gate.rows.records] == [3, 34]


async def test_nor_is_one_lost_whose_beginning_was_not_seen(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(provider, client, ended())
    await eventually(lambda: gate.rows.records)
    assert (gate.rows.records[0].tokens, running(gate)) == (USED, 0)


async def test_one_that_nobody_created_ends_the_tunnel_where_the_user_may_have_no_other(opened: Open):
    gate = await opened(alice=ONE_AT_A_TIME)
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    await provider.send(created() + created())
    got = await client.exactly(len(created()) * 2)
    assert got == created() * 2
    event, close = opening((await client.end()).got)
    assert b'"status": 429' in event
    assert close == b"\x88\x02\x03\xf0"
    client.close()
    provider.close()
    await gate.at_rest()
    assert [row.metering for row in gate.rows.records] == ["unmetered", "unmetered"]
    assert running(gate) == 0


# However the bytes come

TALK = [
    frame(b"hello?", first=0x89),
    created(),
    delta("x" * 200),
    delta("y" * 70_000),
    frame(message(type="response.output_item.added", item={"type": "message"})),
    frame(message(type="codex.rate_limits", rate_limits={"primary": {"used_percent": 40}})),
    ended(),
    frame(b"\x00\x01", first=0x82),
    created(),
    ended(output_tokens=9),
]


@pytest.mark.parametrize("seed", range(6))
async def test_however_the_providers_bytes_are_cut_the_rows_are_the_same(gate: Gate, seed: int):
    dice = random.Random(seed)
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask() + ask())
    bytes_of_all = b"".join(TALK)
    cuts = sorted(dice.randrange(len(bytes_of_all)) for _ in range(dice.choice([0, 3, 40])))
    await provider.send_slowly(bytes_of_all, cuts)
    assert await client.exactly(len(bytes_of_all)) == bytes_of_all
    await eventually(lambda: running(gate) == 0)
    assert [row.tokens.output for row in gate.rows.records] == [34, 9]
    assert sum(row.bytes_out for row in gate.rows.records) == len(bytes_of_all)
    assert "chatgpt:login" in gate.windows.shown(gate.clock.now)


async def test_byte_by_byte_both_ways(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    for byte in ask():
        await pass_on(client, provider, bytes([byte]))
    for byte in ANSWER:
        await pass_on(provider, client, bytes([byte]))
    await eventually(lambda: running(gate) == 0)
    assert [row.tokens for row in gate.rows.records] == [USED]
    assert gate.rows.records[0].bytes_in == len(create())


async def test_messages_in_parts_with_control_frames_between_are_understood(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    text = create()
    await pass_on(
        client,
        provider,
        frame(text[:9], masked=True, first=0x01)
        + frame(b"", masked=True, first=0x89)
        + frame(text[9:50], masked=True, first=0x00)
        + frame(text[50:], masked=True, first=0x80),
    )
    assert running(gate) == 1
    end = opening(ended())[0]
    await pass_on(
        provider,
        client,
        frame(end[:5], first=0x01)
        + frame(b"", first=0x8A)
        + frame(end[5:80], first=0x00)
        + frame(b"", first=0x00)
        + frame(end[80:], first=0x80),
    )
    await eventually(lambda: running(gate) == 0)
    assert [row.tokens for row in gate.rows.records] == [USED]


async def test_an_end_of_5_mb_passes_and_is_an_end_without_tokens(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    await pass_on(provider, client, created() + ended(model="m" * 5_000_000))
    await eventually(lambda: running(gate) == 0)
    assert [(row.metering, row.model) for row in gate.rows.records] == [("unmetered", "gpt-5.5")]


async def test_what_is_no_event_is_passed_on_and_over(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await pass_on(client, provider, ask())
    for junk in (b"{", b"\xff\xfe", b"[]", b'{"type":7}', b'{"type":"response.completed"', b"{}"):
        await pass_on(provider, client, frame(junk))
    await pass_on(provider, client, frame(opening(ended())[0], first=0xC1))  # compressed, it says
    await pass_on(provider, client, frame(opening(ended())[0], first=0x82))
    assert len(gate.rows.records) == 1  # the end that was no JSON
    assert gate.rows.records[0].metering == "unmetered"


async def test_what_a_client_says_that_asks_for_nothing_counts_for_nothing(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    said = [
        frame(message(type="response.processed", response_id="resp_1"), masked=True),
        frame(message(type="response.cancel"), masked=True),
        frame(create(), masked=True, first=0x82),
        frame(b"not JSON", masked=True),
        frame(message(input="response.create", model="x"), masked=True),
        frame(b"", masked=True),
        frame(b"", masked=True, first=0x8A),
    ]
    await pass_on(client, provider, b"".join(said))
    assert running(gate) == 0
    await pass_on(client, provider, ask())
    assert running(gate) == 1


async def test_what_looks_like_a_message_inside_of_another_frame_is_none(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    said = message(type="response.create", model="m")
    for first in (0x89, 0x82):
        inside = frame(frame(said, masked=True), masked=True, first=first)
        head = len(inside) - len(frame(said, masked=True))
        plain = inside[: head - 4] + b"\0\0\0\0" + frame(said, masked=True)  # a key that changes nothing
        await pass_on(client, provider, plain[:head])
        await pass_on(client, provider, plain[head:])
    assert running(gate) == 0
    await pass_on(client, provider, ask())
    assert running(gate) == 1


async def test_thousands_of_frames_in_one_read_pass_and_are_understood(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    text = create(text="x" * 6000)
    parts = [frame(text[at : at + 1], masked=True, first=0x00) for at in range(1, len(text) - 1)]
    said = frame(text[:1], masked=True, first=0x01) + b"".join(parts)
    said += frame(text[-1:], masked=True, first=0x80)
    await pass_on(client, provider, said)
    assert running(gate) == 1
    answer = created() + delta() * 5000 + ended()
    await pass_on(provider, client, answer)
    await eventually(lambda: running(gate) == 0)
    assert [row.bytes_out for row in gate.rows.records] == [len(answer)]


async def test_with_metering_off_rows_have_no_tokens_and_are_not_called_unmetered(opened: Open):
    gate = await opened(metered=False)
    client, provider, _, _ = await opened_tunnel(gate)
    await respond(client, provider)
    await pass_on(client, provider, ask())
    client.close()
    provider.close()
    await gate.at_rest()
    assert [(row.metering, row.tokens) for row in gate.rows.records] == [("none", NO_TOKENS)] * 2


async def test_a_close_handshake_between_two_responses_leaves_nothing(gate: Gate):
    client, provider, _, _ = await opened_tunnel(gate)
    await respond(client, provider)
    await pass_on(provider, client, CLOSE)
    await turns(3)
    client.close()
    provider.close()
    await gate.at_rest()
    assert len(gate.rows.records) == 1
    assert USAGE["output_tokens"] == gate.rows.records[0].tokens.output
