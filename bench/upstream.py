"""The provider at the end of the benchmark: as fast as Python gets, and it looks at every byte.

    python bench/upstream.py --plain PORT --tls PORT --cert FILE --key FILE

Speaks only what the benchmark's client says (see ``traffic``): one POST at a time
on a connection, with Content-Length. Anything else, or a request that the proxy
did not rewrite as it should, is answered with a 500 that says what was wrong.

``X-Bench: facts 0`` is answered with the TLS versions and ciphers of the
connections since it was last asked, so that nobody compares unequal work.
"""

import argparse
import asyncio
import json
import ssl
import time
from typing import Final, cast

import aiofastnet
import traffic
import uvloop

_AUTHORIZATION: Final = b"\r\nauthorization: bearer " + traffic.PROVIDER_TOKEN.encode() + b"\r\n"
_LENGTH: Final = b"\r\ncontent-length: "
_TASK: Final = b"\r\nx-bench: "

_tls_seen: set[str] = set()


class Conversation(asyncio.Protocol):
    """One connection from a proxy, or from the client itself."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._pieces = b""
        self._task: list[bytes] = []
        self._seq = 0
        self._expected = b""
        self._received = 0
        self._in_body = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note how the connection is protected."""
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            _tls_seen.add(f"{tls.version()} {tls.cipher()[0]}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop a stream that nobody reads."""
        if self._timer is not None:
            self._timer.cancel()

    # Reading a request

    def data_received(self, data: bytes) -> None:
        """Take a piece of a head or of a body."""
        if not self._in_body:
            data = self._pieces + data
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._pieces = data
                return
            self._pieces = b""
            if not self._head(data[: end - 2].lower()):
                return
            data = data[end:]
        self._body(data)

    def _head(self, head: bytes) -> bool:
        length_at = head.find(_LENGTH)
        task_at = head.find(_TASK)
        if not head.startswith(b"post /v1/messages?beta=true http/1.1\r\n"):
            return self._refuse("request line not rewritten")
        if _AUTHORIZATION not in head:
            return self._refuse("the provider's token is missing")
        if length_at < 0 or task_at < 0:
            return self._refuse("no Content-Length, or no X-Bench")
        self._task = head[task_at + len(_TASK) : head.find(b"\r\n", task_at + 2)].split()
        self._seq = int(self._task[1])
        kind = self._task[0]
        self._expected = traffic.UPLOAD_BODY if kind == b"upload" else traffic.request_body(self._seq)
        length = int(head[length_at + len(_LENGTH) : head.find(b"\r\n", length_at + 2)])
        if length != len(self._expected):
            return self._refuse("another Content-Length than the client's")
        self._received = 0
        self._in_body = True
        return True

    def _body(self, data: bytes) -> None:
        if data != self._expected[self._received : self._received + len(data)]:
            self._refuse("another body than the client's")
            return
        self._received += len(data)
        if self._received == len(self._expected):
            self._in_body = False
            self._answer()

    def _refuse(self, why: str) -> bool:
        body = why.encode()
        self._transport.write(
            b"HTTP/1.1 500 Wrong\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
        )
        self._transport.close()
        return False

    # Answering it

    def _answer(self) -> None:
        kind, seq = self._task[0], self._seq
        if kind == b"json":
            self._transport.write(traffic.json_answer(seq, traffic.answer_body(seq)))
        elif kind == b"upload":
            self._transport.write(traffic.json_answer(seq, traffic.upload_answer_body(seq)))
        elif kind == b"facts":
            self._transport.write(traffic.json_answer(seq, json.dumps(sorted(_tls_seen)).encode()))
            _tls_seen.clear()
        else:
            self._stream(*(int(number) for number in self._task[2:]))

    def _stream(self, events: int, interval_ms: int, phase_ms: int) -> None:
        """Send one event, be quiet, send ``events`` at their times, be quiet, end.

        With 0 events it is quiet for good.
        """
        first = traffic.chunk(traffic.event(self._seq, 0, time.monotonic_ns()))
        self._transport.write(traffic.stream_head(self._seq) + first)
        if events:
            loop = asyncio.get_running_loop()
            start = loop.time() + traffic.QUIET_S + phase_ms / 1000
            self._timer = loop.call_at(start, self._event, loop, start, 1, events, interval_ms / 1000)

    def _event(
        self, loop: asyncio.AbstractEventLoop, start: float, n: int, events: int, interval_s: float
    ) -> None:
        if n > events:
            self._transport.write(traffic.LAST_CHUNK)
            return
        self._transport.write(traffic.chunk(traffic.event(self._seq, n, time.monotonic_ns())))
        due = start + n * interval_s + (traffic.QUIET_S if n == events else 0)
        self._timer = loop.call_at(due, self._event, loop, start, n + 1, events, interval_s)


async def serve(*, plain: int, tls: int, cert: str, key: str) -> None:
    """Serve on both loopback addresses until the process is ended."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(cert, key)
    loop = asyncio.get_running_loop()
    # aiofastnet for TLS: uvloop's own would be slower than the proxies it measures.
    await loop.create_server(Conversation, "localhost", plain, backlog=4096)
    await aiofastnet.create_server(loop, Conversation, "localhost", tls, backlog=4096, ssl=context)
    await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in ("--plain", "--tls"):
        arguments.add_argument(option, type=int, required=True)
    for option in ("--cert", "--key"):
        arguments.add_argument(option, required=True)
    uvloop.run(serve(**vars(arguments.parse_args())))
