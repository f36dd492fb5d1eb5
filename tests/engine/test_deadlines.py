"""Every wait has an end: point 7 of "What bites" and "Timeouts". The test moves the clock."""

import asyncio
import socket

import pytest
from engine.harness import Gate, get, ok, post
from engine.wires import Wire, eventually, turns

HEAD = b"HTTP/1.1 200 OK\r\nrequest-id: r\r\nTransfer-Encoding: chunked\r\n\r\n"


async def _waits_for_head(gate: Gate, fields: bytes = b"") -> Wire:
    client, provider = await gate.ask(post(fields=fields))
    await provider.message()
    return client


async def _is_open(client: Wire, seconds: float = 0.05) -> bool:
    """Tell whether nothing, not even an end, comes from the gate."""
    reading = asyncio.ensure_future(client.some())
    done, _ = await asyncio.wait({reading}, timeout=seconds)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return not done


# The client's side


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
async def test_a_stranger_that_says_nothing_is_closed_after_10_s(gate: Gate, sent: bytes):
    client = await gate.client()
    await client.send(sent)
    await eventually(lambda: gate.server.connections)
    await gate.later(9)
    assert await _is_open(client)
    await gate.later(1)
    ended = await client.end()
    assert ended.got == b""
    assert not ended.reset


async def test_a_head_that_is_not_complete_after_10_s_is_a_408(gate: Gate):
    client = await gate.client()
    await client.send(b"POST /claude/v1/messages HTTP/1.1\r\n")
    for _ in range(9):  # a byte a second does not help
        await eventually(lambda: gate.server.connections)
        await gate.later(1)
        await client.send(b"X")
    assert await _is_open(client)
    await gate.later(1)
    answer = await client.message()
    assert answer.status == 408
    assert answer.get(b"x-should-retry") == b"true"


async def test_an_idle_connection_is_closed_after_300_s_without_a_word(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(ok())
    await client.message()
    await gate.later(299)
    assert await _is_open(client)
    await gate.later(1)
    assert (await client.end()).got == b""


async def test_an_idle_connection_that_showed_no_token_is_closed_after_10_s(gate: Gate):
    client = await gate.client()
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.message()).status == 200
    await gate.later(9)
    assert await _is_open(client)
    await gate.later(1)
    assert (await client.end()).got == b""


async def test_the_second_head_on_a_connection_has_10_s_too(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(ok())
    await client.message()
    await gate.later(100)
    await client.send(b"GET /")
    await turns(5)
    await gate.later(9)
    assert await _is_open(client)
    await gate.later(1)
    assert (await client.message()).status == 408


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_stalls_for_60_s_is_a_408(gate: Gate, chunked: bool):
    client, provider = await gate.ask(post(chunked=True) if chunked else post(b"x" * 10)[:-10])
    await provider.until(b"\r\n\r\n")
    await gate.later(50)
    await client.send(b"1\r\nx\r\n" if chunked else b"x")
    await provider.some()
    await gate.later(50)
    assert await _is_open(client)
    await gate.later(12)
    assert (await client.message()).status == 408
    assert await provider.end()


async def test_the_wait_for_a_body_does_not_count_while_we_have_paused_it(opened):
    """Timeouts: neither deadline counts while we have paused that side; the provider's own does."""
    gate = await opened(upstream_window=4096)
    client = await gate.client()
    await client.send(post(b"x" * 20_000_000)[:-20_000_000])
    sending = asyncio.ensure_future(client.send(b"x" * 20_000_000))
    provider = await gate.upstream.accept()
    await provider.until(b"\r\n\r\n")
    await eventually(lambda: any(one._read_paused for one in gate.server._clients))
    await gate.later(58)
    assert await _is_open(client)
    await gate.later(5)
    answer = await client.message()
    assert answer.status == 502  # the provider took nothing for a minute
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_client_that_does_not_read_for_60_s_is_closed(gate: Gate):
    client = await gate.client(window=4096)
    await client.send(post())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    sending = asyncio.ensure_future(_pour(provider))
    await eventually(lambda: any(one._read_paused for one in gate.server.pool._all))
    await gate.later(59)
    assert gate.server.connections == 1
    await gate.later(1)
    await gate.at_rest()
    await sending
    assert await provider.end()


async def test_a_client_that_reads_slowly_is_not_closed(gate: Gate):
    """It reads a little every half minute, and never catches up."""
    client = await gate.client(window=16384)
    await client.send(post())
    provider = await gate.upstream.accept()
    await provider.message()
    one = next(iter(gate.server._clients))
    one.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", b"x" * 1_000_000)
    await eventually(lambda: one.write_paused)
    for _ in range(3):
        left = one.transport.get_write_buffer_size()
        while one.transport.get_write_buffer_size() == left:
            await client.some()
        await gate.later(30)
        assert one.write_paused
        assert gate.server.connections == 1
    await gate.later(62)  # but who stops altogether is
    await gate.at_rest()


async def test_an_idle_client_that_left_its_answer_unread_is_closed_too(gate: Gate):
    """However little of it is left: what is below the mark for a pause must not keep it for ever."""
    client = await gate.client(window=4096)
    await client.send(post())
    provider = await gate.upstream.accept()
    await provider.message()
    one = next(iter(gate.server._clients))
    await provider.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while one.transport.get_write_buffer_size() < 20_000:
        await provider.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        await turns(5)
    await provider.send(b"0\r\n\r\n")
    await eventually(lambda: not one.is_busy)
    await gate.later(300)  # idle for too long: closed, but the rest cannot be written
    await gate.later(61)
    await gate.at_rest()


# The provider's side


async def test_no_head_within_request_timeout_is_a_504(gate: Gate):
    client = await _waits_for_head(gate)
    await gate.later(59)
    assert await _is_open(client)
    await gate.later(1)
    answer = await client.message()
    assert answer.status == 504
    assert answer.get(b"x-should-retry") == b"true"


async def test_the_wait_for_the_head_begins_with_the_last_byte_of_the_request(gate: Gate):
    client, provider = await gate.ask(post(b"x" * 100)[:-100])
    await provider.until(b"\r\n\r\n")
    for _ in range(4):
        await client.send(b"x" * 25)
        await provider.exactly(25)
        await gate.later(40)
    assert await _is_open(client)
    await gate.later(20)
    assert (await client.message()).status == 504


async def test_an_interim_response_does_not_prolong_the_wait(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await gate.later(40)
    await provider.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    await gate.later(20)
    assert (await client.message()).status == 504


async def test_half_a_head_does_not_prolong_the_wait(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\n")
    await gate.later(60)
    assert (await client.message()).status == 504


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        (b"X-Stainless-Timeout: 600\r\n", 600),
        (b"x-stainless-read-timeout: 700\r\n", 700),
        (b"x-stainless-timeout: 300\r\nx-stainless-read-timeout: 700\r\n", 300),
        (b"x-stainless-timeout: 900\r\n", 900),
        (b"x-stainless-timeout: 901\r\n", 60),
        (b"x-stainless-timeout: 0\r\n", 60),
        (b"x-stainless-timeout: 10\r\n", 60),
        (b"x-stainless-timeout: NOT_GIVEN\r\nx-stainless-read-timeout: 600\r\n", 600),
        (b"x-stainless-timeout: NOT_GIVEN\r\n", 60),
        (b"x-stainless-timeout: -600\r\n", 60),
        (b"x-stainless-timeout: 600.0\r\n", 600),
        (b"x-stainless-timeout: 1e3\r\n", 60),
    ],
)
async def test_a_client_may_declare_a_longer_wait(gate: Gate, fields: bytes, seconds: int):
    client = await _waits_for_head(gate, fields)
    await gate.later(seconds - 1)
    assert await _is_open(client, 0.01)
    await gate.later(1)
    assert (await client.message()).status == 504


async def test_a_configured_timeout_is_a_hard_cap(opened):
    gate = await opened(head_timeout_is_cap=True)
    client = await _waits_for_head(gate, b"X-Stainless-Timeout: 600\r\n")
    await gate.later(60)
    assert (await client.message()).status == 504


async def test_a_stream_that_falls_silent_is_cut_after_stream_idle_timeout(gate: Gate):
    """Field note 8: between bytes there is a deadline of its own."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(HEAD + b"5\r\nhello\r\n")
    await client.until(b"hello\r\n")
    await gate.later(299)
    assert await _is_open(client)
    await gate.later(2)
    assert b"0\r\n" not in (await client.end()).got
    assert await provider.end()


async def test_silence_right_behind_the_responses_head_ends_as_well(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(HEAD)
    await client.until(b"\r\n\r\n")
    await gate.later(301)
    assert (await client.end()).got == b""


async def test_silence_does_not_count_while_the_client_keeps_us_from_reading(opened):
    gate = await opened(stream_idle_timeout_s=20)
    client = await gate.client(window=4096)
    await client.send(post())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    sending = asyncio.ensure_future(_pour(provider))
    await eventually(lambda: any(one._read_paused for one in gate.server.pool._all))
    await gate.later(55)
    assert gate.server.connections == 1
    assert gate.server.requests == 1
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_an_idle_connection_to_the_provider_is_closed_after_30_s(gate: Gate):
    """Point 9."""
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(ok())
    await client.message()
    await gate.later(29)
    assert gate.server.pool.idle_count == 1
    await gate.later(1)
    assert gate.server.pool.idle_count == 0
    assert await provider.end()


async def test_connecting_has_10_s_and_ends_in_a_502(gate: Gate):
    """The engine's connect is given its time by the pool, and asked to keep to it."""
    given: list[float] = []

    async def too_slow(*_: object, timeout_s: float) -> asyncio.Transport:
        given.append(timeout_s)
        raise TimeoutError

    gate.server.pool._connect = too_slow
    client = await gate.client()
    await client.send(get())
    answer = await client.message()
    assert answer.status == 502
    assert answer.get(b"x-should-retry") == b"true"
    assert given == [10.0]


async def _pour(provider: Wire) -> None:
    """Send as fast as it is taken, to the end."""
    try:
        while True:
            await provider.send(b"x" * 65536)
    except (OSError, TimeoutError):
        pass
