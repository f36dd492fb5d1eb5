"""The benchmark's clients: a fixed amount of work, every answer compared.

Rule 1: the work is counted, not timed, so that CPU per request is exact.

Rule 2: the clocks are read when every connection is open and warm, and again
when the last byte has arrived: connecting is not what is measured.

Rule 3: anything but the expected answer ends the run with ``WrongAnswer``.
"""

import asyncio
import itertools
import json
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from operator import add
from typing import Final, TypeVar, cast

import traffic

# No answer of the benchmark takes longer, on any machine: a proxy that hangs is reported, not waited for.
_PATIENCE_S: Final = 120

_numbers = itertools.count(1)


class WrongAnswer(Exception):
    """A proxy answered something else than the provider did, or nothing."""


@dataclass(slots=True, kw_only=True)
class Carried:
    """What a proxy has carried since it was started, by the clients' count.

    Attributes:
        requests: Those that were sent, and of tunnels the responses that were asked for.
        unread: Those that said nothing of what they used before their client left.
        used: What the others said.
    """

    requests: int = 0
    unread: int = 0
    used: traffic.Usage = field(default_factory=traffic.Usage)

    def add(self, used: traffic.Usage) -> None:
        """Count what was said."""
        self.used = traffic.Usage(*map(add, self.used, used))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go.

    Attributes:
        port: On 127.0.0.1.
        path: The request target, with the proxy's prefix.
        tunnel: The request target for a WebSocket; None where none can pass.
        token: What the client presents.
        tls: How to speak TLS to it; None for plain HTTP.
        carried: Counts what went there.
    """

    port: int
    path: str
    tunnel: str | None
    token: str
    tls: ssl.SSLContext | None = None
    carried: Carried = field(default_factory=Carried)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement.

    Attributes:
        units: Requests, events or bytes that were carried.
        cpu_ns: CPU time that the proxy took for them.
        wall_s: How long they took in all.
        p50_us: Median latency of a request or event.
        p99_us: Its 99th percentile.
    """

    units: int
    cpu_ns: int
    wall_s: float
    p50_us: float
    p99_us: float


CpuClock = Callable[[], int]
"""Returns the nanoseconds of CPU time that a proxy has taken so far."""


class Stopwatch:
    """Reads the proxy's CPU clock, and the wall's, at both ends of the work."""

    def __init__(self, cpu_ns: CpuClock) -> None:
        self._cpu_ns = cpu_ns
        self._started_cpu_ns, self._started_s = cpu_ns(), time.perf_counter()

    def stop(self, *, units: int, latencies_ns: list[int]) -> Sample:
        """Return what ``units`` of work have taken since the start."""
        wall_s, cpu_ns = time.perf_counter() - self._started_s, self._cpu_ns() - self._started_cpu_ns
        cuts = statistics.quantiles(latencies_ns, n=100)
        return Sample(
            units=units, cpu_ns=cpu_ns, wall_s=wall_s, p50_us=cuts[49] / 1000, p99_us=cuts[98] / 1000
        )


class Client(asyncio.Protocol):
    """One connection. What travels on it is for the kinds below, in ``streams`` and in ``tunnels`` to say.

    Attributes:
        finished: Done when this client's work is; holds a ``WrongAnswer`` when it failed.
        gone: Done when the connection is closed.
        carried: Counts what went to the target.
    """

    def __init__(self, target: Target) -> None:
        self._path = target.path.encode()
        self._host = f"127.0.0.1:{target.port}".encode()
        self._token = target.token.encode()
        self.carried = target.carried
        self._seq = 0
        self._received = b""
        self._transport: asyncio.Transport
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; sending begins when the work does."""
        self._transport = cast(asyncio.Transport, transport)

    def number(self) -> int:
        """Give the connection's next request a number that none had before."""
        self._seq = next(_numbers)
        return self._seq

    def send(self, task: bytes, body: bytes | None = None) -> None:
        """Send the next request, with the small body unless another is given.

        ``%d`` in ``task`` stands for the request's number.
        """
        seq = self.number()
        body = traffic.request_body(seq) if body is None else body
        head = traffic.request_head(
            path=self._path, host=self._host, token=self._token, task=task % seq, seq=seq, length=len(body)
        )
        self._received = b""
        self.carried.requests += 1
        self._transport.write(head + body)

    def content(self) -> bytes | None:
        """Return what has arrived behind the head; None until the head is whole, and after a wrong one."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        if not self._received.startswith(b"HTTP/1.1 200"):
            self.fail(self._received[:500].decode("latin-1"))
            return None
        return self._received[end + 4 :]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody but us may end a connection."""
        self.gone.set_result(None)
        self.fail(f"connection lost ({exc or 'closed'}) after {self._received[:200]!r}")

    def fail(self, why: str) -> None:
        """End this client's work with what went wrong."""
        if not self.finished.done():
            self.finished.set_exception(WrongAnswer(why))
            self._transport.abort()

    def close(self) -> None:
        """Leave, whatever the state."""
        if not self.finished.cancel() and not self.finished.cancelled():
            self.finished.exception()  # so that asyncio does not report it again
        self._transport.abort()


_AnyClient = TypeVar("_AnyClient", bound=Client)


@asynccontextmanager
async def opened(
    target: Target, kind: Callable[[Target], _AnyClient], n: int
) -> AsyncIterator[list[_AnyClient]]:
    """Hold ``n`` connections to ``target``, opened 50 at a time so that no accept queue overflows."""
    loop = asyncio.get_running_loop()
    clients: list[_AnyClient] = []
    name = "localhost" if target.tls else None
    try:
        while len(clients) < n:
            connecting = (
                loop.create_connection(
                    lambda: kind(target), "127.0.0.1", target.port, ssl=target.tls, server_hostname=name
                )
                for _ in range(min(50, n - len(clients)))
            )
            clients += [client for _, client in await asyncio.gather(*connecting)]
        yield clients
    finally:
        for client in clients:
            client.close()
        # A transport closes in the loop's next turn. Stop a proxy before that, and
        # it waits for requests that nobody reads.
        await asyncio.gather(*(client.gone for client in clients))


async def all_of(waiting: Iterable[asyncio.Future[None]]) -> None:
    """Wait for every one of a run's clients. Raises the first ``WrongAnswer``."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*waiting)
    except TimeoutError:
        raise WrongAnswer(f"not all answered within {_PATIENCE_S} s") from None


@dataclass(slots=True, kw_only=True)
class _Batch:
    """Requests to be shared out among the connections.

    Attributes:
        left: How many are not yet sent.
        body: What each uploads; None for the small request.
        latencies_ns: One for each answer.
    """

    left: int
    body: bytes | None
    latencies_ns: list[int]


class _Exchanges(Client):
    """Sends the next request of a batch as soon as its last one is answered."""

    def start(self, batch: _Batch) -> None:
        """Begin with ``batch``; ``finished`` is renewed for it."""
        self.finished = asyncio.get_running_loop().create_future()
        self._batch = batch
        self._next()

    def _next(self) -> None:
        batch = self._batch
        if not batch.left:
            self.finished.set_result(None)
            return
        batch.left -= 1
        self._sent_ns = time.perf_counter_ns()
        self.send(b"json %d" if batch.body is None else b"upload %d", batch.body)

    def data_received(self, data: bytes) -> None:
        """Compare the answer when it is whole."""
        self._received += data
        content = self.content()
        if content is None:
            return
        batch = self._batch
        expected = (traffic.upload_answer_body if batch.body else traffic.answer_body)(self._seq)
        if len(content) < len(expected):
            return
        if content != expected:
            self.fail(f"another body than the provider's: {content[:200]!r}")
            return
        self.carried.add(traffic.usage(self._seq))
        batch.latencies_ns.append(time.perf_counter_ns() - self._sent_ns)
        self._next()


async def requests(
    target: Target, cpu_ns: CpuClock, *, connections: int, n: int, body: bytes | None = None
) -> Sample:
    """Send ``n`` requests over ``connections``: the small one, or uploads of ``body``."""
    async with opened(target, _Exchanges, connections) as clients:
        warm_up = _Batch(left=max(2 * connections, n // 10), body=body, latencies_ns=[])
        await _through(clients, warm_up)
        batch = _Batch(left=n, body=body, latencies_ns=[])
        watch = Stopwatch(cpu_ns)
        await _through(clients, batch)
        return watch.stop(units=n * len(body) if body else n, latencies_ns=batch.latencies_ns)


async def _through(clients: list[_Exchanges], batch: _Batch) -> None:
    for client in clients:
        client.start(batch)
    await all_of(client.finished for client in clients)


class _Question(Client):
    """Asks the upstream for its facts."""

    def data_received(self, data: bytes) -> None:
        """Finish with the first line of JSON."""
        self._received += data
        if (self.content() or b"").endswith(b"]"):
            self.finished.set_result(None)


async def facts(target: Target) -> list[str]:
    """Return the TLS versions and ciphers that the upstream has seen since it was last asked."""
    async with opened(target, _Question, 1) as [client]:
        client.send(b"facts %d")
        await all_of([client.finished])
        return cast("list[str]", json.loads(client.content() or b"[]"))
