"""An OAuth token endpoint on a loopback socket: strict about refresh tokens, ill-behaved when told.

A refresh token works once. One that is used again ends the login: every later
request is refused, as real providers do (RFC 9700, section 4.14.2).
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

Misbehaviour = Callable[["TokenEndpoint", asyncio.StreamWriter, Mapping[str, str]], Any]


class TokenEndpoint:
    """``async with TokenEndpoint("r0") as endpoint``; then ``endpoint.url``.

    Attributes:
        valid: The refresh token that works now; None when the login has ended.
        spent: The refresh tokens that were exchanged, in order.
        requests: The JSON body of every request that arrived, in order.
        headers: The header of every request, names in lower case.
        script: What the next requests get instead of an answer; taken from the front.
        gate: While it is not set, requests are read and not answered.
    """

    def __init__(self, valid: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.valid: str | None = valid
        self.answer: dict[str, object] = {"expires_in": 28800}
        self._tls = tls
        self.access = lambda number: f"access-{number}"
        self.spent: list[str] = []
        self.requests: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.script: list[Misbehaviour] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "TokenEndpoint":
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self._tls)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http{'s' if self._tls else ''}://{host}:{port}/oauth/token"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        fields = {
            name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:] if line)
        }
        body = json.loads(await reader.readexactly(int(fields["content-length"])))
        self.headers.append(fields)
        self.requests.append(body)
        self.arrived.set()
        await self.gate.wait()
        if self.script:
            made = self.script.pop(0)(self, writer, body)
            if asyncio.iscoroutine(made):
                await made
        else:
            send(writer, *self.exchange(body))
        await writer.drain()

    def exchange(self, body: Mapping[str, str]) -> tuple[int, dict[str, object]]:
        """Spend the refresh token and return the answer."""
        refresh = body["refresh_token"]
        if refresh != self.valid:
            if refresh in self.spent:
                self.valid = None
            return 400, {"error": "invalid_grant", "error_description": "Refresh token not found or invalid"}
        self.spent.append(refresh)
        number = len(self.spent)
        self.valid = f"refresh-{number}"
        return 200, {"access_token": self.access(number), "refresh_token": self.valid, **self.answer}


def send(writer: asyncio.StreamWriter, status: int, body: object, **fields: str) -> None:
    """Answer with JSON, or with bytes as they are."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    writer.write(
        f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n{more}\r\n".encode() + raw
    )


# What a request may meet instead of an answer


def answers(status: int, body: object, **fields: str) -> Misbehaviour:
    """This answer, without looking at the token."""
    return lambda _endpoint, writer, _body: send(writer, status, body, **fields)


def html(_endpoint: TokenEndpoint, writer: asyncio.StreamWriter, _body: object) -> None:
    """A captive portal."""
    send(writer, 200, b"<html>Please accept our terms</html>", Content_Type="text/html")


def reset(_endpoint: TokenEndpoint, writer: asyncio.StreamWriter, _body: object) -> None:
    """Read, not answered, gone."""
    writer.transport.abort()


def spent_then_reset(endpoint: TokenEndpoint, writer: asyncio.StreamWriter, body: Mapping[str, str]) -> None:
    """The token is spent, and the answer lost."""
    endpoint.exchange(body)
    writer.transport.abort()


def cut(_endpoint: TokenEndpoint, writer: asyncio.StreamWriter, _body: object) -> None:
    """An answer that ends before its length."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"access_token": "half')


def endless(_endpoint: TokenEndpoint, writer: asyncio.StreamWriter, _body: object) -> None:
    """An answer far beyond any token's size."""
    send(writer, 200, b" " * (3 << 20))


async def nothing(_endpoint: TokenEndpoint, _writer: asyncio.StreamWriter, _body: object) -> None:
    """No answer, for ever."""
    await asyncio.Event().wait()
