"""A server on loopback that keeps each request as its client sent it, byte for byte.

It parses no more than it must to find a request's end, so nothing that a client
sends is improved on the way into a recording.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_LONGEST_HEAD_BYTES: Final = 1024 * 1024
# A client that never ends its request must fail its test, not hang it.
_LONGEST_REQUEST_S: Final = 30

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it came.

    Attributes:
        head: Its head, blank line included.
        body: Its body without transfer framing.
    """

    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()


# What to answer, or None to break the connection off. Bytes that do not end a response are
# sent before the connection is broken off.
Answer = Callable[[Request], bytes | None]


@dataclass(kw_only=True)
class Recorder:
    """What has come in so far.

    Attributes:
        port: Where it listens.
        requests: In the order in which they were complete.
    """

    port: int
    requests: list[Request]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def recording(answer: Answer) -> AsyncIterator[Recorder]:
    """Record what comes in, each request answered by ``answer``, until the block ends."""
    requests: list[Request] = []
    busy: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(_HEAD_END)
                    async with asyncio.timeout(_LONGEST_REQUEST_S):
                        request = Request(head=head, body=await _body(head, reader, writer))
                    requests.append(request)
                    told = answer(request)
                    if told is None:
                        break
                    writer.write(told)
                    await writer.drain()
                    if not _is_whole(told):
                        break
        finally:
            busy.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_LONGEST_HEAD_BYTES)
    try:
        yield Recorder(port=server.sockets[0].getsockname()[1], requests=requests)
    finally:
        server.close()
        for task in tuple(busy):
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def _body(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    fields = framing(head)
    if b"expect" in fields:
        writer.write(_CONTINUE)
    if b"transfer-encoding" in fields:
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")  # clients send no trailers
        return body
    return await reader.readexactly(int(fields.get(b"content-length", b"0")))


def _is_whole(answer: bytes) -> bool:
    """Tell whether a response's bytes reach its end."""
    head, _, body = answer.partition(_HEAD_END)
    fields = framing(head + _HEAD_END)
    if b"transfer-encoding" in fields:
        return body.endswith(b"0\r\n\r\n")
    return len(body) == int(fields.get(b"content-length", b"0"))


def framing(head: bytes) -> dict[bytes, bytes]:
    """Return a head's values by lower-case name; of a repeated field the last."""
    lines = head[: -len(_HEAD_END)].split(b"\r\n")[1:]
    parted = (line.partition(b":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in parted}
