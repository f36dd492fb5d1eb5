"""What both kinds of proxy are told and answer, byte by byte, for the hostile ones."""

import asyncio
import contextlib
import struct
from typing import Final

from engine.wires import Ended, Wire

# RFC 1928: version, one byte of method; version, reply, reserved, IPv4, address, port.
NO_CREDENTIALS: Final = b"\x05\x00"
BY_PASSWORD: Final = b"\x05\x02"
GRANTED: Final = b"\x01\x00"
CONNECTED: Final = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"
ESTABLISHED: Final = b"HTTP/1.1 200 OK\r\n\r\n"


async def agree(wire: Wire, scheme: str) -> bytes:
    """Hold a proxy's end of the handshake to its good end; return what it was told."""
    if scheme.startswith("http"):
        told = await wire.until(b"\r\n\r\n")
        await wire.send(ESTABLISHED)
        return told
    methods = await wire.exactly(2)
    methods += await wire.exactly(methods[1])
    told = b""
    if b"\x02" in methods[2:]:
        await wire.send(BY_PASSWORD)
        told = await wire.exactly(2)
        told += await wire.exactly(told[1] + 1)
        told += await wire.exactly(told[-1])
        await wire.send(GRANTED)
    else:
        await wire.send(NO_CREDENTIALS)
    told += await target(wire)
    await wire.send(CONNECTED)
    return told


async def target(wire: Wire) -> bytes:
    """Return a SOCKS proxy's order to connect."""
    told = await wire.exactly(4)
    if told[3] == 3:
        told += await wire.exactly(1)
        return told + await wire.exactly(told[4] + 2)
    return told + await wire.exactly({1: 6, 4: 18}[told[3]])


def order(host: bytes | None, port: int) -> bytes:
    """Return such an order for a name, or for 127.0.0.1."""
    address = b"\x01\x7f\x00\x00\x01" if host is None else b"\x03" + bytes([len(host)]) + host
    return b"\x05\x01\x00" + address + struct.pack(">H", port)


class Tunnel:
    """Carries bytes between a proxy's wire and a target, and remembers them.

    Attributes:
        up: What went to the target.
    """

    def __init__(self, below: Wire, port: int) -> None:
        self.up = b""
        self._below = below
        self._port = port

    async def __aenter__(self) -> "Tunnel":
        self._above = await Wire.to(self._port)
        self._tasks = [
            asyncio.ensure_future(self._pump(self._below, self._above, up=True)),
            asyncio.ensure_future(self._pump(self._above, self._below, up=False)),
        ]
        return self

    async def _pump(self, source: Wire, sink: Wire, *, up: bool) -> None:
        with contextlib.suppress(Ended, OSError):
            while True:
                piece = await source.some()
                self.up += piece if up else b""
                await sink.send(piece)

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._above.close()
        self._below.close()
