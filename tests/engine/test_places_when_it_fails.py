"""Field note 11: a request gives its place back whoever fails it: the provider, its credential, or we."""

import asyncio
from pathlib import Path

import pytest
from engine.conftest import Open
from engine.harness import Gate, ok, post
from engine.places import (
    BEGINNINGS,
    ONE,
    Phase,
    cut,
    given_back,
    head,
    refused,
    renewal,
    renewal_after_a_401,
    running,
    taken,
)
from engine.tunnels import REFUSED, handshake
from engine.wires import eventually

from ai_mux.proxy.upload import KEPT_BYTES_EACH

WAYS = pytest.mark.parametrize("leave", ["close", "reset", "end_writing"])
LARGE = KEPT_BYTES_EACH + 1


@pytest.fixture
async def one_place(opened: Open) -> Gate:
    return await opened(alice=ONE)


# The provider fails


async def test_by_a_provider_that_is_not_there(one_place: Gate):
    one_place.upstream.refuse_connections()
    client = await one_place.client()
    await client.send(post())
    await refused(one_place, client, 502)


async def test_by_a_provider_that_breaks_off_while_we_connect(opened: Open, certificate: Path):
    gate = await opened(alice=ONE, trust=certificate)
    client, provider = await gate.ask(post())
    await provider.some()
    await taken(gate)
    provider.reset()
    await refused(gate, client, 502)


async def test_by_a_provider_that_is_gone_when_the_replay_is_due(one_place: Gate):
    client = await renewal_after_a_401(one_place)
    await taken(one_place)
    one_place.upstream.refuse_connections()
    one_place.tokens.open.set()
    await refused(one_place, client, 502)


@WAYS
@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (post(b"x" * 1000)[:-500], b""),
        (post(), b""),
        (post(), b"HTTP/1.1 200 OK\r\nX-Half:"),
        (post(), b"no answer at all\r\n\r\n"),
    ],
    ids=["in the upload", "before its head", "in its head", "with nonsense"],
)
async def test_by_a_provider_that_leaves(one_place: Gate, asked: bytes, sent: bytes, leave: str):
    client, provider = await one_place.ask(asked)
    await provider.until(b"\r\n\r\n")
    await taken(one_place)
    await provider.send(sent)
    getattr(provider, leave)()
    await refused(one_place, client, 502)


@WAYS
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_by_a_provider_that_leaves_inside_the_body(one_place: Gate, framing: str, leave: str):
    client, provider = await one_place.ask(post())
    await provider.message()
    await provider.send(BEGINNINGS[framing])
    await client.until(b"hello")
    await taken(one_place)
    getattr(provider, leave)()
    await cut(one_place, client)


@pytest.mark.parametrize(
    "sent", [BEGINNINGS["chunked"] + b"nonsense\r\n", BEGINNINGS["chunked"].replace(b"5\r", b"zz\r")]
)
async def test_by_a_body_that_is_none(one_place: Gate, sent: bytes):
    client, provider = await one_place.ask(post())
    await provider.message()
    await taken(one_place)
    await provider.send(sent)
    await cut(one_place, client)


async def test_by_a_provider_that_never_answers(one_place: Gate):
    client = await head(one_place)
    await taken(one_place)
    await one_place.later(61)
    await refused(one_place, client, 504)


async def test_by_a_provider_that_falls_silent(one_place: Gate):
    client, provider = await one_place.ask(post())
    await provider.message()
    await provider.send(BEGINNINGS["length"])
    await client.until(b"hello")
    await one_place.later(302)
    await cut(one_place, client)


# There is no credential, or none that is taken


async def test_where_there_is_no_credential(one_place: Gate):
    one_place.tokens.gone = "The login has ended."
    client = await one_place.client()
    await client.send(post())
    await refused(one_place, client, 503)


@pytest.mark.parametrize("phase", [renewal, renewal_after_a_401])
async def test_where_it_cannot_be_renewed(one_place: Gate, phase: Phase):
    client = await phase(one_place)
    await taken(one_place)
    one_place.tokens.gone = "The login has ended."
    one_place.tokens.open.set()
    await refused(one_place, client, 503)


async def test_where_the_renewed_one_is_refused_as_well(one_place: Gate):
    client, provider = await one_place.ask(post())
    await provider.message()
    await provider.send(REFUSED)
    again = await one_place.upstream.accept()
    await again.message()
    await taken(one_place)
    await again.send(REFUSED)
    await refused(one_place, client, 503)


async def test_where_the_request_cannot_be_sent_once_more(one_place: Gate):
    client = await one_place.client()
    sending = asyncio.ensure_future(client.send(post(b"x" * LARGE)))
    provider = await one_place.upstream.accept()
    assert len((await provider.message()).body) == LARGE
    await sending
    await provider.send(REFUSED)
    await refused(one_place, client, 503)


# We fail


async def test_by_a_bug_of_ours(one_place: Gate):
    def broken() -> None:
        raise RuntimeError

    one_place.tokens.fresh = broken  # type: ignore[method-assign, assignment]
    client = await one_place.client()
    await client.send(post())
    assert (await client.message()).status == 500
    del one_place.tokens.fresh
    client.close()
    await given_back(one_place, status=500)


async def test_by_a_stop(one_place: Gate):
    """A request that begins while the server stops is refused, and one that runs is cut."""
    idle, _ = await one_place.ask(post())
    late = await one_place.client()
    await late.send(post()[:30])
    await eventually(lambda: one_place.server.connections == 2)
    idle.close()
    await eventually(lambda: running(one_place) == 0)
    one_place.rows.records.clear()
    one_place.server.drain()
    await late.send(post()[30:])
    assert (await late.message()).status == 503
    assert running(one_place) == 0
    assert [row.status for row in one_place.rows.records] == [503]


@pytest.mark.parametrize("sent", [b"", BEGINNINGS["chunked"]], ids=["before the head", "inside the body"])
async def test_by_the_end_of_the_server(one_place: Gate, sent: bytes):
    client, provider = await one_place.ask(post())
    await provider.message()
    await provider.send(sent)
    if sent:
        await client.until(b"hello")
    await taken(one_place)
    await one_place.server.end()
    await client.end()
    assert running(one_place) == 0
    assert [row.status for row in one_place.rows.records] == [200 if sent else 0]


# And where nothing goes wrong


async def test_by_answers_one_after_the_other_over_one_connection(one_place: Gate):
    client, provider = await one_place.ask(post() * 3)
    for _ in range(3):
        await provider.message()
        assert running(one_place) == 1
        await provider.send(ok())
        assert (await client.message()).status == 200
    await eventually(lambda: running(one_place) == 0)
    assert [row.status for row in one_place.rows.records] == [200] * 3


@pytest.mark.parametrize(
    ("answer", "status"),
    [(b"", 502), (REFUSED.replace(b"401", b"403"), 403), (ok(), 426)],
    ids=["none", "a refusal", "no WebSocket"],
)
async def test_handshakes_take_none_however_they_are_refused(one_place: Gate, answer: bytes, status: int):
    client, provider = await one_place.ask(handshake())
    await provider.message()
    assert running(one_place) == 0
    await provider.send(answer)
    provider.end_writing()
    await refused(one_place, client, status)
