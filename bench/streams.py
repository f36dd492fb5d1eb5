"""The benchmark's event streams: paced ones for CPU and latency, silent ones for memory."""

import asyncio
import time
from collections.abc import AsyncIterator
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


class _Stream(Client):
    """Reads one event stream and compares every event.

    Attributes:
        first: Done when the stream's first event is there.
        last: Done when the last paced one is.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.last: asyncio.Future[None] = loop.create_future()
        self.latencies_ns: list[int] = []
        self._body = _Dechunker()
        self._in_body = False
        self._content = b""
        self._count = 0
        self._expected = 0

    def open(self, *, events: int = 0, interval_ms: int = 0, phase_ms: int = 0) -> None:
        """Ask for a stream of ``events`` behind the first; with none, one that stays silent and open."""
        self._expected = events
        self.send(b"sse %%d %d %d %d" % (events, interval_ms, phase_ms))

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
        while len(content) >= traffic.EVENT_BYTES:
            received, content = content[: traffic.EVENT_BYTES], content[traffic.EVENT_BYTES :]
            sent_ns = traffic.sent_ns(received)
            if received != traffic.event(self._seq, self._count, sent_ns):
                self.fail(f"another event than the provider's: {received!r}")
                return
            if self._count:
                self.latencies_ns.append(now_ns - sent_ns)
            if self._count == 0:
                self.first.set_result(None)
            if self._count == self._expected:
                self.last.set_result(None)
            self._count += 1
        self._content = content
        if self._body.ended:
            self.finished.set_result(None)

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


async def paced(target: Target, cpu_ns: CpuClock, *, streams: int, events: int, interval_ms: int) -> Sample:
    """Read ``events`` from each of ``streams``, whose events are spread evenly over the interval.

    Latency is from the provider's write to our read. Opening and ending are not measured.
    """
    async with opened(target, _Stream, streams) as clients:
        for at, client in enumerate(clients):
            client.open(events=events, interval_ms=interval_ms, phase_ms=at * interval_ms // streams)
        await all_of(client.first for client in clients)
        watch = Stopwatch(cpu_ns)
        await all_of(client.last for client in clients)
        latencies_ns = [latency for client in clients for latency in client.latencies_ns]
        sample = watch.stop(units=streams * events, latencies_ns=latencies_ns)
        await all_of(client.finished for client in clients)
        return sample


@asynccontextmanager
async def silent(target: Target, n: int) -> AsyncIterator[None]:
    """Hold ``n`` open streams, each of which has said one event and now says nothing."""
    async with opened(target, _Stream, n) as clients:
        for at in range(0, n, 100):
            batch = clients[at : at + 100]
            for client in batch:
                client.open()
            await all_of(client.first for client in batch)
        yield
        for client in clients:
            if client.finished.done():
                client.finished.result()
