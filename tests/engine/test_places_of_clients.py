"""Field note 11: a client's request gives its place back whenever the client leaves, or breaks a rule.

A place that is not given back locks its user out for ever. Afterwards nothing runs, the request
has one row, and the next one is let in.
"""

import asyncio
from pathlib import Path

import pytest
from engine.conftest import Open
from engine.harness import Gate, post
from engine.places import (
    ASKED,
    BEGINNINGS,
    ONE,
    Phase,
    given_back,
    half_the_head,
    head,
    head_of_the_replay,
    refused,
    renewal,
    renewal_after_a_401,
    running,
    taken,
    upload,
)
from engine.wires import Ended, Wire, eventually

WAYS = pytest.mark.parametrize("leave", ["close", "reset", "end_writing"])


@pytest.fixture
async def one_place(opened: Open) -> Gate:
    return await opened(alice=ONE)


@WAYS
@pytest.mark.parametrize(
    "phase", [upload, renewal, renewal_after_a_401, head, head_of_the_replay, half_the_head]
)
async def test_by_a_client_that_leaves_while_it_waits(one_place: Gate, phase: Phase, leave: str):
    client = await phase(one_place)
    await taken(one_place)
    getattr(client, leave)()
    await given_back(one_place, status=0)


@WAYS
async def test_by_a_client_that_leaves_while_we_connect(opened: Open, certificate: Path, leave: str):
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


async def _send_on(provider: Wire) -> None:
    try:
        while True:
            await provider.send(b"x" * 65536)
    except (OSError, Ended):
        pass
