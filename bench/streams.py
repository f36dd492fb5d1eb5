"""What lasts: event streams, and what tunnels share with them. Paced for CPU, silent for memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import traffic
from load import Client, CpuClock, Sample, Stopwatch, Target, WrongAnswer, all_of, opened


class _Dechunker:
    """Takes the chunks off a body (RFC 9112, section 7.1), however they were cut.

    It knows neither extensions nor trailers: the upstream sends none.
    """

    def __init__(self) -> None:
        self._pending = b""
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the content in ``data``. Raises ValueError for what is not chunked."""
        pending = self._pending + data
        content = b""
        while (line_end := pending.find(b"\r\n")) >= 0:
            size = int(pending[:line_end], 16)
            next_at = line_end + 2 + size + 2
            if len(pending) < next_at:
                break
            self.ended = not size
            content += pending[line_end + 2 : next_at - 2]
            pending = pending[next_at:]
        self._pending = pending
        return content


class Paced(Client):
    """A connection on which the provider says things at their times.

    Attributes:
        first: Done when the first thing is there.
        last: Done when the last paced one is.
        latencies_ns: From the provider's write to our read, of each but the first.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.last: asyncio.Future[None] = loop.create_future()
        self.latencies_ns: list[int] = []
        self._count = 0
        self._expected = 0

    def open(self, *, events: int = 0, interval_ms: int = 0, phase_ms: int = 0) -> None:
        """Ask for ``events`` things behind the first; with none, for silence on an open connection."""
        self._expected = events
        self.ask(b"%d %d %d" % (events, interval_ms, phase_ms))

    def ask(self, pace: bytes) -> None:
        """Send the request; ``pace`` is the end of its task."""
        raise NotImplementedError

    def heard(self, sent_ns: int, now_ns: int) -> None:
        """Take note of the next thing, which was as expected."""
        if self._count:
            self.latencies_ns.append(now_ns - sent_ns)
        else:
            self.first.set_result(None)
        if self._count == self._expected:
            self.last.set_result(None)
        self._count += 1

    @property
    def is_at_end(self) -> bool:
        """All things were heard."""
        return self._count > self._expected

    def fail(self, why: str) -> None:
        """End every wait with what went wrong."""
        super().fail(why)
        for waiting in (self.first, self.last):
            if not waiting.done():
                waiting.set_exception(WrongAnswer(why))

    def close(self) -> None:
        """Leave, whatever the state."""
        super().close()
        for waiting in (self.first, self.last):
            if not waiting.cancel() and not waiting.cancelled():
                waiting.exception()


class Stream(Paced):
    """Reads one event stream and compares every event."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._body = _Dechunker()
        self._in_body = False
        self._content = b""
        self._begun = False

    def ask(self, pace: bytes) -> None:
        """Send the small request."""
        self.send(b"sse %%d %b" % pace)

    def data_received(self, data: bytes) -> None:
        """Note when each event came."""
        now_ns = time.monotonic_ns()
        if not self._in_body:
            self._received += data
            content = self.content()
            if content is None:
                return
            data, self._in_body = content, True
        try:
            self._events(self._body.feed(data), now_ns)
        except ValueError:
            self.fail(f"not chunked, or not an event: {data[:200]!r}")

    def _events(self, content: bytes, now_ns: int) -> None:
        content = self._content + content
        if not self._begun:
            beginning = traffic.stream_beginning(self._seq)
            if len(content) < len(beginning):
                self._content = content
                return
            if not content.startswith(beginning):
                self.fail(f"another beginning than the provider's: {content!r}")
                return
            content = content[len(beginning) :]
            self._begun = True
            self.carried.add(traffic.usage(self._seq)._replace(output=traffic.BEGUN_OUTPUT))
            self.heard(0, now_ns)
        while len(content) >= traffic.EVENT_BYTES and not self.is_at_end:
            received, content = content[: traffic.EVENT_BYTES], content[traffic.EVENT_BYTES :]
            sent_ns = traffic.sent_ns(received)
            if received != traffic.event(self._seq, self._count, sent_ns):
                self.fail(f"another event than the provider's: {received!r}")
                return
            self.heard(sent_ns, now_ns)
        self._content = content
        if self._body.ended:
            if content != traffic.stream_ending(self._seq):
                self.fail(f"another end than the provider's: {content!r}")
                return
            output = traffic.usage(self._seq).output - traffic.BEGUN_OUTPUT
            self.carried.add(traffic.Usage(output=output))
            self.finished.set_result(None)


async def paced(
    target: Target,
    cpu_ns: CpuClock,
    *,
    kind: Callable[[Target], Paced],
    n: int,
    events: int,
    interval_ms: int,
) -> Sample:
    """Hear ``events`` things on each of ``n`` connections, spread evenly over the interval.

    Latency is from the provider's write to our read. Opening and ending are not measured.
    """
    async with opened(target, kind, n) as clients:
        for at, client in enumerate(clients):
            client.open(events=events, interval_ms=interval_ms, phase_ms=at * interval_ms // n)
        await all_of(client.first for client in clients)
        watch = Stopwatch(cpu_ns)
        await all_of(client.last for client in clients)
        latencies_ns = [latency for client in clients for latency in client.latencies_ns]
        sample = watch.stop(units=n * events, latencies_ns=latencies_ns)
        await all_of(client.finished for client in clients)
        return sample


@asynccontextmanager
async def silent(target: Target, kind: Callable[[Target], Paced], n: int) -> AsyncIterator[None]:
    """Hold ``n`` open connections, on each of which one thing was said and now nothing more is."""
    async with opened(target, kind, n) as clients:
        for at in range(0, n, 100):
            batch = clients[at : at + 100]
            for client in batch:
                client.open()
            await all_of(client.first for client in batch)
        yield
        for client in clients:
            if client.finished.done():
                client.finished.result()
