"""Handshakes, frames and whole tunnels, for the tests of the WebSocket relay."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from engine.harness import ALICE, Gate
from engine.wires import Message, TlsWire, Wire, eventually

from ai_mux.proxy.tunnel_ends import End

KEY: Final = b"bWFkZS11cC0xNi1ieXRlcw=="
SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: made-up\r\nx-codex-Turn-State: t1\r\n\r\n"
)
REFUSED: Final = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
# A Close frame of 1001 as a server sends it (RFC 6455, 5.5.1 and 7.4.1).
GOODBYE: Final = b"\x88\x02\x03\xe9"
# And one of 1000, as either endpoint ends in order.
CLOSE: Final = b"\x88\x02\x03\xe8"
CLOSE_MASKED: Final = b"\x88\x82\x0f\xf0\xaa\x55\x0c\x18"


def handshake(
    fields: bytes = b"", *, path: bytes = b"/chatgpt/v1/responses", key: bytes = KEY, token: bytes = ALICE
) -> bytes:
    """Return what Codex sends, abridged; ``fields`` are whole lines."""
    return (
        b"GET %b HTTP/1.1\r\nHost: gate.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\nauthorization: Bearer %b\r\n"
        b"openai-beta: responses_websockets=2026-02-06\r\n"
        b"sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n%b\r\n"
        % (path, key, token, fields)
    )


def frame(payload: bytes, *, masked: bool = False, first: int = 0x81) -> bytes:
    """Return a whole frame (RFC 6455, 5.2), of text unless said otherwise."""
    mask = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = bytes((first, mask | size))
    elif size < 1 << 16:
        head = bytes((first, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask | 127)) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = b"\x0f\xf0\xaa\x55"
    whole = size // 4 + 1
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes((key * whole)[:size], "big")
    return head + key + mixed.to_bytes(size, "big")


def is_goodbye(got: bytes) -> bool:
    """Tell whether it is exactly a Close frame of 1001 as a client sends it: masked."""
    return got[:2] == b"\x88\x82" and bytes(a ^ b for a, b in zip(got[6:], got[2:6], strict=False)) == (
        b"\x03\xe9"
    )


async def opened_tunnel(gate: Gate) -> tuple[Wire, Wire, Message, Message]:
    """Return both ends, the handshake as it arrived and the answer as it came."""
    client, provider = await gate.ask(handshake())
    asked = await provider.message()
    await provider.send(SWITCH)
    return client, provider, asked, await client.message()


async def tunnel_over(
    open_gate: Callable[..., Awaitable[Gate]], certificate: Path, *, client_tls: bool, upstream_tls: bool
) -> tuple[Gate, Wire, Wire]:
    """Return a gate and both ends of its only tunnel, each in TLS or not."""
    listener = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener.load_cert_chain(certificate)
    settings: dict[str, object] = {"tls_listener": listener} if client_tls else {}
    if upstream_tls:
        settings |= {"upstream_tls": listener, "trust": certificate}
    gate = await open_gate(**settings)
    client: Wire
    if client_tls:
        client = await gate.tls_client(ssl.create_default_context(cafile=str(certificate)))
    else:
        client = await gate.client()
    await client.send(handshake())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(SWITCH)
    assert (await client.message()).status == 101
    return gate, client, provider


def narrow_towards_the_provider(gate: Gate, size: int = 4096) -> None:
    """Let the kernel take little for the provider, so that what waits for it waits with us."""
    connect = gate.server.pool._connect

    async def connect_narrowly(*given: Any, **named: Any) -> asyncio.Transport:
        transport = await connect(*given, **named)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        return transport

    gate.server.pool._connect = connect_narrowly


def narrow_towards_the_clients(gate: Gate, size: int = 4096) -> None:
    """Let the kernel take little for the clients that are connected now."""
    for one in gate.server._clients:
        one.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


async def narrow_tunnel(gate: Gate) -> tuple[Wire, Wire]:
    """Return both ends of a tunnel for which the kernels hold little, if the provider's window is small."""
    narrow_towards_the_provider(gate)
    client = await gate.client(window=4096)
    await client.send(handshake())
    provider = await gate.upstream.accept()
    await provider.message()
    await provider.send(SWITCH)
    await client.message()
    narrow_towards_the_clients(gate)
    return client, provider


def end_of(gate: Gate, side: str) -> End:
    """Return the relay's end towards the ``client`` or the ``provider`` of the only tunnel."""
    (one,) = gate.server._clients
    assert one._tunnel is not None
    return one._tunnel.client if side == "client" else one._tunnel.upstream


async def left_behind(
    open_gate: Callable[..., Awaitable[Gate]], slow: str, *, short_of: int = 0
) -> tuple[Gate, Wire, Wire, bytes]:
    """Return a tunnel of whose sides one reads nothing, so that bytes wait for it with us.

    Args:
        open_gate: Opens a gate.
        slow: ``client`` or ``provider``: which side.
        short_of: How many bytes are missing from the last frame towards it.

    Returns:
        The gate, both ends, and what was sent towards that side. All of it has been read by us.
    """
    gate = await open_gate(upstream_window=4096)
    client, provider = await narrow_tunnel(gate)
    behind, ahead = end_of(gate, slow), end_of(gate, "client" if slow == "provider" else "provider")
    source = provider if slow == "client" else client
    piece = frame(b"x" * 30_000, masked=slow == "provider")
    sent: list[bytes] = []
    while not behind.write_paused:
        await source.send(piece)
        sent.append(piece)
        await eventually(lambda: ahead.passed == len(piece) * len(sent))
    if short_of:
        sent.append(piece[:-short_of])
        ahead.data_received(sent[-1])  # as if it had come just before reading was paused
    return gate, client, provider, b"".join(sent)


async def leave(wire: Wire, how: str) -> None:
    """End a connection: ``close``, ``reset``, ``end_writing`` (half of it), or ``end_in_order`` (TLS too)."""
    if how == "end_in_order" and isinstance(wire, TlsWire):
        await wire.end_in_order()
    elif how == "end_in_order":
        wire.close()
    else:
        getattr(wire, how)()
