"""The provider at the end of the benchmark: as fast as Python gets, and it looks at every byte.

    python bench/upstream.py --plain PORT --tls PORT --cert FILE --key FILE

Speaks only what the benchmark's client says (see ``traffic`` and ``frames``): one
POST at a time on a connection, with Content-Length, or a WebSocket. Anything else, or
a request that the proxy did not rewrite as it should, is answered with a 500 that
says what was wrong, or a tunnel's end that does.

``X-Bench: facts 0`` is answered with the TLS versions and ciphers of the
connections since it was last asked, so that nobody compares unequal work.
"""

import argparse
import asyncio
import json
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Final, cast

import aiofastnet
import frames
import traffic
import uvloop

_AUTHORIZATION: Final = b"\r\nauthorization: bearer " + traffic.PROVIDER_TOKEN.encode() + b"\r\n"
_LENGTH: Final = b"\r\ncontent-length: "
_TASK: Final = b"\r\nx-bench: "

_HANDSHAKE: Final = b"get /backend-api/codex/responses http/1.1\r\n"
_WEBSOCKET: Final = (b"\r\nconnection: upgrade\r\n", b"\r\nupgrade: websocket\r\n")
_KEY: Final = b"\r\nsec-websocket-key: "

_tls_seen: set[str] = set()


class Pace:
    """Says things at their times: nothing at first, ``events`` things an interval apart, nothing, the end.

    With 0 events it says nothing for good.
    """

    def __init__(
        self,
        say: Callable[[int], None],
        end: Callable[[], None],
        *,
        events: int,
        interval_ms: int,
        phase_ms: int,
    ) -> None:
        self._say = say
        self._end = end
        self._events = events
        self._interval_s = interval_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time() + traffic.QUIET_S + phase_ms / 1000
        self._timer = self._loop.call_at(self._start, self._next, 1) if events else None

    def _next(self, n: int) -> None:
        if n > self._events:
            self._end()
            return
        self._say(n)
        due = self._start + n * self._interval_s + (traffic.QUIET_S if n == self._events else 0)
        self._timer = self._loop.call_at(due, self._next, n + 1)

    def stop(self) -> None:
        """Say nothing more: nobody listens."""
        if self._timer is not None:
            self._timer.cancel()


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
        self._pace: Pace | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note how the connection is protected."""
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            _tls_seen.add(f"{tls.version()} {tls.cipher()[0]}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop a stream that nobody reads."""
        if self._pace is not None:
            self._pace.stop()

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
            head, data = data[: end - 2], data[end:]
            if head.lower().startswith(_HANDSHAKE):
                self._switch(head, data)
                return
            if not self._head(head.lower()):
                return
        self._body(data)

    def _switch(self, head: bytes, rest: bytes) -> None:
        """Make a tunnel of the connection."""
        lower = head.lower()
        key_at, task_at = lower.find(_KEY), lower.find(_TASK)
        if _AUTHORIZATION not in lower:
            self._refuse("the provider's token is missing")
            return
        if key_at < 0 or task_at < 0 or not all(field in lower for field in _WEBSOCKET):
            self._refuse("no WebSocket handshake, or no X-Bench")
            return
        seq, *pace = (int(number) for number in _value(lower, task_at, _TASK).split()[1:])
        if _value(head, key_at, _KEY) != frames.key(seq):
            self._refuse("another Sec-WebSocket-Key than the client's")
            return
        tunnel = Tunnel(self._transport, seq, *pace)
        self._transport.set_protocol(tunnel)
        if rest:
            tunnel.data_received(rest)

    def _head(self, head: bytes) -> bool:
        length_at = head.find(_LENGTH)
        task_at = head.find(_TASK)
        if not head.startswith(b"post /v1/messages?beta=true http/1.1\r\n"):
            return self._refuse("request line not rewritten")
        if _AUTHORIZATION not in head:
            return self._refuse("the provider's token is missing")
        if length_at < 0 or task_at < 0:
            return self._refuse("no Content-Length, or no X-Bench")
        self._task = _value(head, task_at, _TASK).split()
        self._seq = int(self._task[1])
        kind = self._task[0]
        self._expected = traffic.UPLOAD_BODY if kind == b"upload" else traffic.request_body(self._seq)
        length = int(_value(head, length_at, _LENGTH))
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
        """Send the beginning at once, and the events at their times."""
        first = traffic.chunk(traffic.stream_beginning(self._seq))
        self._transport.write(traffic.stream_head(self._seq) + first)
        self._pace = Pace(self._event, self._last, events=events, interval_ms=interval_ms, phase_ms=phase_ms)

    def _event(self, n: int) -> None:
        self._transport.write(traffic.chunk(traffic.event(self._seq, n, time.monotonic_ns())))

    def _last(self) -> None:
        self._transport.write(traffic.chunk(traffic.stream_ending(self._seq)) + traffic.LAST_CHUNK)


class Tunnel(asyncio.Protocol):
    """A connection after its handshake: frames go out at their times, and what comes in is compared."""

    def __init__(
        self, transport: asyncio.Transport, seq: int, events: int, interval_ms: int, phase_ms: int
    ) -> None:
        self._transport = transport
        self._seq = seq
        self._expected = frames.all_of_client(seq, events)
        self._asked_at = len(frames.asking(seq))
        self._heard_at = len(self._expected) - len(frames.last_of_client(seq))
        self._received = 0
        self._is_at_end = False
        self._paced = partial(
            Pace, self._say, self._end, events=events, interval_ms=interval_ms, phase_ms=phase_ms
        )
        self._pace: Pace | None = None
        transport.write(frames.switched(seq))

    def _say(self, n: int) -> None:
        self._transport.write(frames.from_provider(self._seq, n, time.monotonic_ns()))

    def _end(self) -> None:
        """End the tunnel, when all has come that the client says before: on a busy machine it comes late."""
        self._is_at_end = True
        if self._received == self._heard_at:
            self._transport.write(frames.ending(self._seq) + frames.closing(self._received))

    def data_received(self, data: bytes) -> None:
        """Compare the client's frames."""
        if data != self._expected[self._received : self._received + len(data)]:
            self._transport.write(frames.objection("another byte than the client's"))
            self._transport.close()
            return
        self._received += len(data)
        if self._pace is None and self._received >= self._asked_at:
            self._transport.write(frames.beginning(self._seq))
            self._pace = self._paced()
        elif self._is_at_end and self._received == self._heard_at:
            self._end()
        if self._received == len(self._expected):
            self._transport.close()  # both close frames were sent (RFC 6455, section 7.1.1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say nothing more."""
        if self._pace is not None:
            self._pace.stop()


def _value(head: bytes, at: int, name: bytes) -> bytes:
    """Return the value of the field that begins ``at``, whose name is written as in ``_TASK``."""
    return head[at + len(name) : head.find(b"\r\n", at + len(name))]


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
