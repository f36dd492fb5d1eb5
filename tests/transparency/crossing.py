"""One request and its answer, from end to end through a gateway process, as both ends see them.

Rule 1: each crossing uses connections of its own, and sees them ended: whatever the
gateway sent beyond the one message would be found.

Rule 2: who a client is, and which provider it meets, stands in the bytes alone.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from engine.upstream import Upstream
from engine.wires import Message, Wire
from transparency.answers import Answer
from transparency.expected import OUR_ID
from transparency.modes import Mode
from transparency.recordings import Recording

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_OUR_ID: Final = re.compile(rb"amx_[a-z2-7]{26}")

FINE: Final = Answer(name="fine", head=b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", body=b"fine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """What came out at both ends.

    Attributes:
        arrived: The request at the provider.
        head: The response's head at the client, its request id replaced if it is ours.
        body: The response's body at the client, with its transfer framing.
    """

    arrived: Message
    head: bytes
    body: bytes


class Passage:
    """A gateway process and the providers behind it.

    Attributes:
        port: Where the gateway listens.
        upstreams: Who takes a provider's place, by its name.
    """

    def __init__(self, *, port: int, upstreams: dict[str, Upstream]) -> None:
        self.port = port
        self.upstreams = upstreams

    def host(self, mode: Mode) -> bytes:
        """Return what Host must be upstream."""
        return b"127.0.0.1:%d" % self.upstreams[mode.provider].port

    async def cross(self, request: Recording, mode: Mode, answer: Answer = FINE) -> Crossed:
        """Send ``request``, answer it with ``answer``, and return what came out."""
        client = await Wire.to(self.port)
        is_head = request.method == b"HEAD"
        until_close = answer.until_close and not is_head
        try:
            _, (provider, arrived) = await asyncio.gather(_send(client, request), self._receive(mode))
            await provider.send(answer.raw)
            if until_close:
                provider.close()
            # An old client learns of the end of what was chunked from the connection's.
            unframed = until_close or (answer.chunked and b" HTTP/1.0\r\n" in request.head)
            head, body = await _answer(client, to_head=is_head, until_close=unframed)
            if not until_close:
                provider.end_writing()
                assert (await provider.end()).got == b"", "more than one request came"
        finally:
            client.close()
        head = _OUR_ID.sub(OUR_ID, head)
        return Crossed(arrived=arrived, head=head, body=body)

    async def converse(self, requests: list[Recording], mode: Mode) -> list[Message]:
        """Send requests one after the other on one connection, and return what came on one connection."""
        client = await Wire.to(self.port)
        arrived = []
        provider: Wire | None = None
        try:
            for request in requests:
                _, (provider, message) = await asyncio.gather(
                    _send(client, request), self._receive(mode, provider)
                )
                arrived.append(message)
                await provider.send(FINE.raw)
                assert (await client.message()).body == FINE.body
        finally:
            client.close()
            if provider is not None:
                provider.close()
        return arrived

    @contextlib.asynccontextmanager
    async def tunnel(
        self, request: Recording, mode: Mode, answer: bytes
    ) -> AsyncIterator[tuple[Wire, Wire, bytes, bytes]]:
        """Yield both ends of a tunnel, the head that arrived, and the head that came back."""
        client = await Wire.to(self.port)
        try:
            await client.send(request.head)
            provider = await self.upstreams[mode.provider].accept()
            arrived = await provider.until(b"\r\n\r\n")
            await provider.send(answer)
            head = await client.until(b"\r\n\r\n")
            yield client, provider, arrived, _OUR_ID.sub(OUR_ID, head)
            provider.close()
        finally:
            client.close()

    async def answered_here(self, request: Recording) -> bytes:
        """Send what the gateway answers itself, and return the head of its answer."""
        client = await Wire.to(self.port)
        try:
            await _send(client, request)
            head, _ = await _answer(client, to_head=request.method == b"HEAD", until_close=False)
        finally:
            client.close()
        return head

    async def _receive(self, mode: Mode, provider: Wire | None = None) -> tuple[Wire, Message]:
        """Return the next request, on a connection that is open already or on the next one."""
        provider = provider or await self.upstreams[mode.provider].accept()
        return provider, await provider.message()


Through = Callable[[Mode], Awaitable[Passage]]


async def _send(client: Wire, request: Recording) -> None:
    await client.send(request.head)
    if request.waits_for_continue:
        assert await client.exactly(len(_CONTINUE)) == _CONTINUE
    await client.send(request.framed)


async def _answer(client: Wire, *, to_head: bool, until_close: bool) -> tuple[bytes, bytes]:
    """Return the head and the framed body, having seen that nothing follows."""
    head = body = b""
    if not until_close:
        message = await client.message(to_head=to_head)
        head, body = message.raw_head, message.raw_body
        with contextlib.suppress(OSError):  # the gateway may have closed first
            client.end_writing()
    rest = (await client.end()).got
    if until_close:
        head, mark, body = rest.partition(b"\r\n\r\n")
        return head + mark, body
    assert rest == b"", "more than one answer came"
    return head, body
