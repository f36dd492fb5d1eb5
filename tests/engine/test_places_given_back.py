"""Field note 11: a request gives its place back however it ends, or its user would be locked out for ever.

``one_place`` is a gate whose user may run one request at a time. In each phase, whoever ends the
request there: afterwards nothing runs, the request has one row, and the next one is let in.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from engine.conftest import Open
from engine.harness import Gate, ok, post
from engine.tunnels import REFUSED, handshake
from engine.wires import Ended, Wire, eventually, turns

from ai_mux.limits import Limits
from ai_mux.proxy.upload import KEPT_BYTES_EACH

ONE = {"limits": Limits(concurrent=1)}
WAYS = pytest.mark.parametrize("leave", ["close", "reset", "end_writing"])
LARGE = KEPT_BYTES_EACH + 1
ASKED = post(b'{"model":"claude-made-up-5"}', fields=b"Content-Type: application/json\r\n")
BEGINNINGS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "until close": b"HTTP/1.1 200 OK\r\n\r\nhello",
}


@pytest.fixture
async def one_place(opened: Open) -> Gate:
    return await opened(alice=ONE)


def running(gate: Gate) -> int:
    return gate.server.accounting.limiter.running


async def taken(gate: Gate) -> None:
    """See that the only place is taken, also by asking for it."""
    await eventually(lambda: running(gate) == 1, what="no request runs")
    second = await gate.client()
    await second.send(post())
    assert (await second.message()).status == 429
    second.close()
    assert running(gate) == 1
    assert gate.rows.records.pop().status == 429


async def given_back(gate: Gate, *, status: int) -> None:
    """See that the place is free, and how the request stands in the books."""
    await gate.at_rest()
    assert running(gate) == 0
    assert [row.status for row in gate.rows.records] == [status]
    gate.tokens.gone = "There is none, and that is what the next one should meet."
    following = await gate.client()
    await following.send(ASKED)
    assert (await following.message()).status == 503
    following.close()
    await gate.at_rest()
    assert running(gate) == 0


async def refused(gate: Gate, client: Wire, status: int) -> None:
    """See that the client is told, and the place is free."""
    assert (await client.message()).status == status
    client.close()
    await given_back(gate, status=status)


async def cut(gate: Gate, client: Wire) -> None:
    """See that the client's answer breaks off, and the place is free."""
    await client.end()
    client.close()
    await given_back(gate, status=200)


# The client leaves


async def upload(gate: Gate) -> Wire:
    client, provider = await gate.ask(post(b"x" * 1000)[:-500])
    await provider.until(b"\r\n\r\n")
    return client


async def renewal(gate: Gate) -> Wire:
    gate.tokens.stale = True
    gate.tokens.open.clear()
    client = await gate.client()
    await client.send(post())
    await eventually(lambda: gate.tokens.waiting)
    return client


async def renewal_after_a_401(gate: Gate) -> Wire:
    gate.tokens.open.clear()
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(REFUSED)
    await eventually(lambda: gate.tokens.waiting)
    return client


async def head(gate: Gate) -> Wire:
    client, provider = await gate.ask(post())
    await provider.message()
    return client


async def head_of_the_replay(gate: Gate) -> Wire:
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(REFUSED)
    await (await gate.upstream.accept()).message()
    return client


async def half_the_head(gate: Gate) -> Wire:
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nX-Half:")
    return client


@WAYS
@pytest.mark.parametrize(
    "phase", [upload, renewal, renewal_after_a_401, head, head_of_the_replay, half_the_head]
)
async def test_by_a_client_that_leaves_while_it_waits(
    one_place: Gate, phase: Callable[[Gate], Awaitable[Wire]], leave: str
):
    client = await phase(one_place)
    await taken(one_place)
    getattr(client, leave)()
    await given_back(one_place, status=0)


@WAYS
async def test_by_a_client_that_leaves_while_we_connect(opened: Open, certificate, leave: str):
    gate = await opened(alice=ONE, trust=certificate)
    client, provider = await gate.ask(post())
    await provider.some()  # its ClientHello, which nobody answers
    await taken(gate)
    getattr(client, leave)()
    await given_back(gate, status=0)


@WAYS
async def test_by_a_client_that_leaves_before_its_model_is_known(opened: Open, leave: str):
    gate = await opened(alice=ONE | {"models": ("claude-*",)})
    client = await gate.client()
    await client.send(ASKED[:-20])
    await eventually(lambda: running(gate) == 1)
    getattr(client, leave)()
    await given_back(gate, status=0)


@WAYS
@pytest.mark.parametrize("framing", BEGINNINGS)
async def test_by_a_client_that_leaves_inside_the_body(one_place: Gate, framing: str, leave: str):
    client, provider = await one_place.ask(post())
    await provider.message()
    await provider.send(BEGINNINGS[framing])
    await client.until(b"hello")
    await taken(one_place)
    getattr(client, leave)()
    await given_back(one_place, status=200)


async def test_by_clients_that_leave_at_any_turn_of_the_loop(opened: Open):
    gate = await opened()

    async def serve(wire: Wire) -> None:
        while True:
            await wire.message()
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"hello", b"world")

    gate.upstream.serve(serve)
    for count in range(60):
        client = await gate.client()
        await client.send(post(b"x" * 50))
        await turns(count % 30)
        client.reset() if count % 2 else client.close()
    await gate.at_rest()
    assert running(gate) == 0
    assert len({row.request_id for row in gate.rows.records}) == len(gate.rows.records) > 0


# The client breaks a rule, or is too slow


async def test_by_a_body_that_stalls(one_place: Gate):
    client = await upload(one_place)
    await one_place.later(62)
    await refused(one_place, client, 408)


async def test_by_a_body_that_is_too_large(opened: Open):
    gate = await opened(alice=ONE, max_body_size=100)
    client, provider = await gate.ask(post(chunked=True) + b"5\r\nhello\r\n")
    await provider.until(b"hello")
    await taken(gate)
    await client.send(b"60\r\n" + b"x" * 96 + b"\r\n")
    await refused(gate, client, 413)


async def test_by_a_body_whose_chunks_are_broken(one_place: Gate):
    client, provider = await one_place.ask(post(chunked=True) + b"5\r\nhello\r\n")
    await provider.until(b"hello")
    await taken(one_place)
    await client.send(b"nonsense\r\n")
    await refused(one_place, client, 400)


async def test_by_a_client_that_reads_nothing_for_a_minute(one_place: Gate):
    client = await one_place.client(window=4096)
    await client.send(post())
    provider = await one_place.upstream.accept()
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    sending = asyncio.ensure_future(_send_on(provider))
    await eventually(lambda: any(one.write_paused for one in one_place.server._clients))
    await taken(one_place)
    await one_place.later(62)
    await given_back(one_place, status=200)
    await sending


# The provider fails


async def test_by_a_provider_that_is_not_there(one_place: Gate):
    one_place.upstream.refuse_connections()
    client = await one_place.client()
    await client.send(post())
    await refused(one_place, client, 502)


async def test_by_a_provider_that_breaks_off_while_we_connect(opened: Open, certificate):
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
async def test_where_it_cannot_be_renewed(one_place: Gate, phase: Callable[[Gate], Awaitable[Wire]]):
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


async def _send_on(provider: Wire) -> None:
    try:
        while True:
            await provider.send(b"x" * 65536)
    except (OSError, Ended):
        pass
