"""Whoever sends frames or chunks of next to nothing pays with their own pace, not with that of the others.

A loop may read from one connection as long as there is something to read; each piece
here is cut into tens of thousands of parts, which cost a microsecond each.
"""

import asyncio
import contextlib

from engine.harness import Gate, post
from engine.tunnels import end_of, opened_tunnel


async def test_who_sends_frames_without_end_and_content_leaves_the_others_their_turn(gate: Gate):
    client, _, _, _ = await opened_tunnel(gate)
    end = end_of(gate, "client")
    crumbs = b"\x8a\x80\0\0\0\0" * 50_000
    with contextlib.suppress(BlockingIOError):
        for _ in range(20):  # as much as the kernel takes, before anybody has a turn
            client.sock.send(crumbs)
    passed = []
    for _ in range(100):
        before = end.passed
        await asyncio.sleep(0)
        passed.append(end.passed - before)
    assert sum(passed) > 512 * 1024
    assert max(passed) <= 256 * 1024


async def test_who_sends_chunks_of_a_byte_leaves_the_others_their_turn(gate: Gate):
    client, _ = await gate.ask(post(chunked=True))
    request = next(iter(gate.server._clients))._request
    with contextlib.suppress(BlockingIOError):
        for _ in range(20):
            client.sock.send(b"1\r\nx\r\n" * 50_000)
    received = []
    for _ in range(100):
        before = request.upload.received
        await asyncio.sleep(0)
        received.append(request.upload.received - before)
    assert sum(received) > 50_000
    assert max(received) <= 256 * 1024 // 6 + 1
