"""Keep-alive and pipelining: one request at a time, in order, whatever pieces they come in."""

from engine.harness import ALICE, Gate, get, ok, post
from engine.wires import Wire, turns

from ai_mux.proxy.pool import IDLE_EACH


async def _echo(wire: Wire) -> None:
    while True:
        asked = await wire.message()
        await wire.send(ok(asked.start + b"|" + asked.body))


async def test_pipelined_requests_are_answered_in_their_order(gate: Gate):
    gate.upstream.serve(_echo)
    client = await gate.client()
    asked = [
        get(b"/claude/v1/models/m%d" % number) if number % 3 else post(b"b%d" % number)
        for number in range(50)
    ]
    await client.send(b"".join(asked))
    for number in range(50):
        body = (await client.message()).body
        wanted = (
            b"GET /v1/models/m%d HTTP/1.1|" % number
            if number % 3
            else b"POST /v1/messages HTTP/1.1|b%d" % number
        )
        assert body == wanted
    assert len(gate.upstream.accepted) == 1


async def test_pipelined_requests_cut_anywhere_are_the_same_requests(gate: Gate):
    gate.upstream.serve(_echo)
    whole = (
        post(b"one")
        + post(chunked=True)
        + b"3\r\ntwo\r\n0\r\n\r\n"
        + b"\r\n"
        + get()
        + post(b"")
        + post(b"five")
    )
    bodies = [b"one", b"two", b"", b"", b"five"]
    client = await gate.client()
    for cut in range(1, len(whole)):
        await client.send_slowly(whole, [cut])
        got = [(await client.message()).body.partition(b"|")[2] for _ in bodies]
        assert got == bodies, cut


async def test_pipelined_requests_in_single_bytes_are_the_same_requests(gate: Gate):
    gate.upstream.serve(_echo)
    whole = post(b"one") + post(chunked=True) + b"3;x\r\ntwo\r\n0\r\nT: 1\r\n\r\n" + get()
    client = await gate.client()
    await client.send_slowly(whole, list(range(len(whole))))
    got = [(await client.message()).body.partition(b"|")[2] for _ in range(3)]
    assert got == [b"one", b"two", b""]


async def test_the_second_request_is_not_sent_before_the_first_is_answered(gate: Gate):
    client, provider = await gate.ask(get(b"/claude/v1/models/one") + get(b"/claude/v1/models/two"))
    assert b"one" in (await provider.message()).start
    await turns(10)
    assert await gate.upstream.nobody_comes()
    await provider.send(ok(b"1"))
    assert b"two" in (await provider.message()).start
    await provider.send(ok(b"2"))
    assert [(await client.message()).body, (await client.message()).body] == [b"1", b"2"]


async def test_a_refusal_ends_the_connection_and_what_was_pipelined_behind_it(gate: Gate):
    """The answer is read to its end although more had been sent: no reset overtakes it."""
    client = await gate.client()
    await client.send(get(b"/claude/v1/secret") + get() * 20)
    answer = await client.message()
    assert answer.status == 403
    for _ in range(3):
        await client.send(get())
        await turns(10)
    ended = await client.end()
    assert ended.got == b""
    assert not ended.reset
    assert await gate.upstream.nobody_comes()


async def test_close_is_obeyed_and_announced(gate: Gate):
    client, provider = await gate.ask(get(fields=b"Connection: Close\r\n"))
    await provider.message()
    await provider.send(ok(b"last"))
    answer = await client.message()
    assert answer.get(b"connection") == b"close"
    assert (await client.end()).got == b""


async def test_an_http10_client_is_closed_after_one_answer(gate: Gate):
    request = (
        b"GET /claude/v1/models HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nx-api-key: "
        + ALICE
        + b"\r\n\r\n"
    )
    client, provider = await gate.ask(request)
    assert (await provider.message()).start.endswith(b"HTTP/1.1")
    await provider.send(ok(b"last"))
    assert (await client.message()).get(b"connection") == b"close"
    assert (await client.end()).got == b""


async def test_probes_and_requests_share_a_connection(gate: Gate):
    gate.upstream.serve(_echo)
    client = await gate.client()
    probe = b"HEAD /claude HTTP/1.1\r\nHost: h\r\n\r\n"
    await client.send(probe + b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n" + probe + get())
    assert (await client.message(to_head=True)).status == 200
    assert (await client.message()).body == b"ok\n"
    assert (await client.message(to_head=True)).status == 200
    assert (await client.message()).body.startswith(b"GET /v1/models ")


async def test_two_requests_at_once_have_a_connection_each_to_the_provider(gate: Gate):
    """Field note 25: the end of one never touches the other."""
    one, its = await gate.ask(post(b"one"))
    other, others = await gate.ask(post(b"other"))
    await its.message()
    await others.message()
    its.reset()
    assert (await one.message()).status == 502
    await others.send(ok(b"fine"))
    assert (await other.message()).body == b"fine"


async def test_a_connection_that_the_provider_closed_is_not_used_again(gate: Gate):
    """Point 9: it leaves the pool at once."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(ok())
    await client.message()
    provider.close()
    await turns(10)
    assert gate.server.pool.idle_count == 0
    await client.send(post())
    again = await gate.upstream.accept()
    await again.message()
    await again.send(ok(b"again"))
    assert (await client.message()).body == b"again"


async def test_idle_connections_are_kept_up_to_a_limit(gate: Gate):
    """Point 7, with 256 for each origin where the design says 64."""
    assert IDLE_EACH == 256
    pairs = [await gate.ask(post()) for _ in range(260)]
    for client, provider in pairs:
        await provider.message()
        await provider.send(ok())
        await client.message()
    assert gate.server.pool.idle_count == 256


async def test_a_connection_whose_request_was_not_sent_whole_is_not_used_again(gate: Gate):
    """Point 1: the rest of one user's body must not begin another's request."""
    client, provider = await gate.ask(post(b"x" * 100)[:-50])
    await provider.until(b"\r\n\r\n")
    await provider.send(ok(b"early"))
    assert (await client.message()).body == b"early"
    await client.send(b"x" * 50)
    assert await provider.end()
    assert gate.server.pool.idle_count == 0
