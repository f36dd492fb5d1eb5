"""Stopping: what is idle closes at once, what is busy ends, new requests go elsewhere ("Signals")."""

import asyncio
import errno
import socket

import pytest
from engine.harness import Gate, get, ok, post
from engine.wires import Wire, eventually, turns


async def test_idle_connections_close_at_once_and_nobody_is_accepted(gate: Gate):
    idle, provider = await gate.ask(post())
    await provider.message()
    await provider.send(ok())
    await idle.message()
    silent = await gate.client()
    await eventually(lambda: gate.server.connections == 2)
    gate.server.drain()
    assert (await idle.end()).got == b""
    assert (await silent.end()).got == b""
    await gate.server.drained(1)
    with socket.socket() as late:  # refused, so that it goes elsewhere; a backlog would keep it waiting
        assert late.connect_ex(("127.0.0.1", gate.port)) == errno.ECONNREFUSED


async def test_a_running_request_ends_in_order(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    await client.until(b"hello")
    gate.server.drain()
    waiting = asyncio.ensure_future(gate.server.drained(5))
    await turns(5)
    assert not waiting.done()
    await provider.send(b"world")
    ended = await client.end()
    assert ended.got == b"world"
    assert not ended.reset
    await waiting


async def test_a_head_that_comes_after_the_drain_announces_the_close(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    gate.server.drain()
    await provider.send(ok())
    assert (await client.message()).get(b"connection") == b"close"
    assert not (await client.end()).reset


async def test_a_pipelined_request_gets_a_503_that_is_worth_a_retry(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    await client.until(b"hello")
    gate.server.drain()
    await client.send(post(b"next"))
    await turns(10)
    await provider.send(b"world")
    await client.until(b"world")
    answer = await client.message()
    assert answer.status == 503
    assert answer.get(b"x-should-retry") == b"true"
    assert answer.get(b"connection") == b"close"
    await client.end()
    assert await gate.upstream.nobody_comes()


async def test_a_head_that_is_half_there_may_come_to_its_end_and_gets_a_503(gate: Gate):
    client = await gate.client()
    await client.send(get()[:-2])
    await eventually(lambda: any(one._buffer for one in gate.server._clients))
    gate.server.drain()
    await client.send(get()[-2:])
    assert (await client.message()).status == 503


async def test_healthz_says_that_it_drains(gate: Gate):
    client = await gate.client()
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n")
    await eventually(lambda: any(one._buffer for one in gate.server._clients))
    gate.server.drain()
    await client.send(b"\r\n")
    answer = await client.message()
    assert answer.status == 503
    assert answer.get(b"connection") == b"close"


async def test_a_client_that_was_just_accepted_does_not_hold_up_the_stop(gate: Gate):
    """It came before the drain and is ready after it; it must not sit there for as long as an idle one."""
    client = await gate.client()
    gate.server._accept(gate._listening[0])
    gate.server.drain()
    await turns(10)
    await gate.later(2)
    await gate.server.drained(1)
    await client.end()
    assert gate.server.connections == 0


async def test_what_runs_on_is_ended_at_the_deadline(gate: Gate):
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    await client.until(b"hello")
    gate.server.drain()
    await gate.server.drained(0)
    await gate.server.end()
    assert await provider.end()
    assert (await client.end()).got == b""
    await eventually(lambda: any(b"requests.ended" in line for line in gate.lines))


@pytest.mark.parametrize("steps", range(8))
async def test_the_end_at_any_moment_after_a_connection_leaves_nothing(gate: Gate, steps: int):
    """Also a connection whose task has not had its first step."""
    client = Wire(socket.create_connection(("127.0.0.1", gate.port)))  # without a turn of the loop
    client.sock.send(post())
    gate.server._accept(gate._listening[0])
    await turns(steps)
    await gate.server.end()
    await client.end()
    client.close()
    await gate.at_rest()


async def test_a_second_end_and_a_drain_after_it_do_no_harm(gate: Gate):
    await gate.server.end()
    gate.server.drain()
    await gate.server.end()


async def test_at_the_limit_nobody_is_accepted_until_somebody_leaves(opened):
    """Point 7: it is logged once, and whoever waits is served as soon as there is room."""
    gate = await opened(max_connections=2, log_level="warn")
    first, second = await gate.client(), await gate.client()
    await eventually(lambda: gate.server.connections == 2)
    third: Wire = await gate.client()
    fourth: Wire = await gate.client()
    await third.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    await fourth.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    await gate.later(3)
    assert gate.server.connections == 2
    first.close()
    assert (await third.message()).status == 200
    second.close()
    assert (await fourth.message()).status == 200
    await eventually(lambda: any(b"connections.full" in line for line in gate.lines))
