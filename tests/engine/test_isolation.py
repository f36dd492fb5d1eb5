"""One user's bytes never reach another: the first promise, under everything that can go wrong at once."""

import asyncio
import random

import pytest
from engine.harness import ALICE, BOB, Gate, post
from engine.wires import Ended, Wire, turns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CLIENTS = 12
REQUESTS = 8


async def _misbehave(wire: Wire, dice: random.Random) -> None:
    """Answer each request with its own id, in any framing, and break off in any way."""
    while True:
        asked = await wire.message()
        name = asked.get(b"x-name") or b"?"
        assert not asked.body.strip(b"." + name), (
            name,
            asked.body[:100],
        )  # nobody else's bytes in the request
        body = (name + b";") * dice.choice([1, 3, 500])
        kind = dice.randrange(14)
        if kind == 0:
            return wire.reset()
        if kind == 1:
            return wire.close()
        if kind == 2:
            await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n")
        if kind in {3, 4, 5, 6}:
            pieces = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
            for at in range(0, len(body), 700):
                part = body[at : at + 700]
                pieces.append(b"%x\r\n%b\r\n" % (len(part), part))
            pieces.append(b"0\r\nX-T: " + name + b"\r\n\r\n")
        else:
            pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body]
        whole = b"".join(pieces)
        if kind == 13:
            whole = b"HTTP/1.1 200 OK\r\n\r\n" + body
        if kind in {7, 3}:  # cut
            await wire.send(whole[: dice.randrange(1, len(whole))])
            return wire.reset() if dice.random() < 0.5 else wire.close()
        if kind in {8, 4}:  # junk behind it, which looks like an answer
            await wire.send(whole + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + name + b";")
            continue
        await wire.send_slowly(whole, [dice.randrange(len(whole)) for _ in range(dice.randrange(4))])
        if kind == 9:  # junk a little later: no answer, since in HTTP/1.1 nobody could tell whose that is
            await turns(dice.randrange(4))
            await wire.send(name + b";\r\n\r\n")
        if kind in {10, 13}:
            return wire.close()


async def _user(gate: Gate, number: int, dice: random.Random) -> int:
    """Ask many times, in many ways, leaving at any point; every answer must be to one's own question."""
    answered = 0
    wire = await gate.client()
    for count in range(REQUESTS):
        name = b"n%d-%d" % (number, count)
        token = dice.choice([ALICE, BOB])
        head = (
            b"POST /claude/v1/messages HTTP/1.1\r\nHost: h\r\nx-api-key: "
            + token
            + b"\r\nX-Name: "
            + name
            + b"\r\n"
        )
        body = name * dice.choice([1, 20, 2000])
        if dice.random() < 0.5:
            half = len(body) // 2
            framed = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (half, body[:half], len(body) - half, body[half:])
            request = head + b"Transfer-Encoding: chunked\r\n\r\n" + framed
        else:
            request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        cut = [dice.randrange(len(request)) for _ in range(dice.randrange(3))]
        way = dice.randrange(10)
        try:
            if way == 0:  # leave in the middle of the request
                await wire.send(request[: dice.randrange(len(request))])
                await turns(dice.randrange(10))
                wire.reset() if dice.random() < 0.5 else wire.close()
                wire = await gate.client()
                continue
            await wire.send_slowly(request, cut)
            if way == 1:  # leave in the middle of the answer
                await turns(dice.randrange(12))
                wire.reset() if dice.random() < 0.5 else wire.close()
                wire = await gate.client()
                continue
            answer = await wire.message()
            if answer.status == 200 and answer.get(b"content-length") is None and not answer.raw_body:
                body = (await wire.end()).got  # until close
            else:
                body = answer.body
            if answer.status == 200:
                assert set(body.split(b";")[:-1]) <= {name}, (name, body[:100])
                answered += 1
            else:
                assert answer.status == 502, answer
            if answer.get(b"connection") is not None:
                wire.close()
                wire = await gate.client()
        except (Ended, OSError) as end:
            if isinstance(end, Ended):
                whole = [part for part in end.got.split(b"\r\n") if part.startswith(b"n")]
                for part in whole:  # what came of a cut answer was one's own as well
                    assert part[: len(name) + 1] in name + b";", (name, part[:100])
            wire.close()
            wire = await gate.client()
    wire.close()
    return answered


@pytest.mark.parametrize("seed", range(4))
async def test_every_answer_is_to_its_own_question_whatever_both_sides_do(gate: Gate, seed: int):
    dice = random.Random(seed)
    seeds = iter(range(seed * 1000, seed * 1000 + 1000))
    wrong: list[BaseException] = []

    async def serve(wire: Wire) -> None:
        try:
            await _misbehave(wire, random.Random(next(seeds)))
        except AssertionError as exc:
            wrong.append(exc)

    gate.upstream.serve(serve)
    users = [_user(gate, number, random.Random(dice.random())) for number in range(CLIENTS)]
    answered = await asyncio.gather(*users)
    assert not wrong, wrong
    assert sum(answered) > CLIENTS * REQUESTS // 4  # most of it did work
    await gate.at_rest()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 9000), max_size=8),
    answers=st.lists(st.integers(0, 9000), max_size=8),
)
async def test_bodies_arrive_as_sent_however_they_are_cut(opened, sizes, cuts, answers):
    """Both ways, over one connection, with chunked and plain bodies in turn."""
    gate = await opened()
    client = await gate.client()
    provider = None
    for number, size in enumerate(sizes):
        body = bytes((number + at) % 251 for at in range(size))
        head = b"POST /claude/v1/messages HTTP/1.1\r\nHost: h\r\nx-api-key: " + ALICE + b"\r\n"
        if number % 2 and size:
            framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        else:
            framed = b"Content-Length: %d\r\n\r\n" % size + body
        await client.send_slowly(head + framed, cuts)
        provider = provider or await gate.upstream.accept()
        assert (await provider.message()).body == body
        back = body[::-1]
        chunked = (
            b"Transfer-Encoding: chunked\r\n\r\n"
            + (b"%x\r\n%b\r\n" % (size, back) if size else b"")
            + b"0\r\n\r\n"
        )
        plain = b"Content-Length: %d\r\n\r\n" % size + back
        await provider.send_slowly(b"HTTP/1.1 200 OK\r\n" + (plain if number % 2 else chunked), answers)
        assert (await client.message()).body == back
    assert len(gate.upstream.accepted) == 1
    await gate.close()


async def test_what_arrived_unread_before_the_next_request_is_nobodys_answer(gate: Gate):
    """Point 1: in the kernel already, and not yet read by the loop, when the next user asks."""
    alice = await gate.client()
    await alice.send(post(token=ALICE))
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await alice.message()
    (origin,) = gate.server.pool._idle
    blocking = provider.sock.dup()
    blocking.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nalice!")  # and no turn of the loop since
    blocking.close()
    assert gate.server.pool.take(origin) is None
