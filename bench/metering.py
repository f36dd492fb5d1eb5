"""What the meter itself costs: the relay of a provider's answers with it, less the same without it.

    python bench/metering.py --work json|sse --n N

Prints nanoseconds of CPU for each request or event, with the beginning and the end of a
stream shared out among its events. The relay is ai-mux's own (``proxy.upstream``), between
made-up ends, and carries what the benchmark's upstream sends, byte for byte.

Rule 1: with and without take turns every few milliseconds, so that whatever the machine
does meanwhile hits both.

Rule 2: making the bytes is not measured, nor is the work that both have in common.

What it does not show: caches are warmer here than in a server. What all the counting costs
in one is measured as well, on and off, in whole processes (``workloads.counting``).
"""

import argparse
import time
from typing import Final

import traffic

from ai_mux.clock import SystemClock
from ai_mux.proxy.request import asked_model
from ai_mux.proxy.routes import Origin
from ai_mux.proxy.upstream import UpstreamConnection
from ai_mux.usage.meter import Meter, meter_for
from ai_mux.wire.answers import Dialect

STREAMS: Final = 100  # at once, as the benchmark has them
EVENTS: Final = 150
_REQUESTS: Final = 100
_ORIGIN: Final = Origin(host="127.0.0.1", port=1, tls=None)
_CLOCK: Final = SystemClock()


class _Client:
    """Where the relay writes to: nowhere, at once."""

    write_paused = False

    def write(self, data: bytes) -> None:
        """Take the bytes."""

    def pause_upload(self) -> None:
        """There is none."""

    def resume_upload(self) -> None:
        """There is none."""


class _Answer:
    """One answer on its way through the relay."""

    def __init__(self) -> None:
        self._upstream = UpstreamConnection(_ORIGIN, _CLOCK)
        self._client = _Client()
        self._meter: Meter | None = None
        self._asked = b""
        self.hear = self._upstream.data_received

    def begin(self, raw: bytes, asked: bytes | None) -> None:
        """Relay the head and what came with it; with a meter where ``asked`` is the request's body."""
        upstream = self._upstream
        upstream.ask(self._client, to_head=False, head_timeout_s=60, idle_timeout_s=60)
        upstream.data_received(raw)
        try:
            upstream.head().send(None)
        except StopIteration as ended:
            head = ended.value
        self._meter = None
        if asked is not None:
            self._asked = asked
            self._meter = meter_for(
                Dialect.ANTHROPIC,
                content_type=head.value(b"content-type") or b"",
                content_encoding=head.listed(b"content-encoding"),
            )
        upstream.relay(head.raw, decode=False, meter=self._meter)
        if asked is not None and not upstream.has_ended:  # as in ``proxy.exchange``
            asked_model(asked)

    def end(self) -> None:
        """Learn what it used."""
        if self._meter is not None:
            reading = self._meter.close(whole=True)
            if reading.metering != "whole":
                raise AssertionError("the meter has not read what it was shown")
            if reading.model is None:
                asked_model(self._asked)


def small(n: int) -> float:
    """Return nanoseconds for each of about ``n`` small requests."""
    taken = {True: 0, False: 0}
    rounds = max(2, n // _REQUESTS)
    for number in range(rounds):
        for metered in (True, False) if number % 2 else (False, True):
            taken[metered] += _requests(number * _REQUESTS, metered=metered)
    return (taken[True] - taken[False]) / (rounds * _REQUESTS)


def _requests(first: int, *, metered: bool) -> int:
    answers = [_Answer() for _ in range(_REQUESTS)]
    numbers = range(first, first + _REQUESTS)
    heard = [traffic.json_answer(seq, traffic.answer_body(seq)) for seq in numbers]
    asked = [traffic.request_body(seq) if metered else None for seq in numbers]
    began_ns = time.thread_time_ns()
    for answer, raw, body in zip(answers, heard, asked, strict=True):
        answer.begin(raw, body)
        answer.end()
    return time.thread_time_ns() - began_ns


def streamed(n: int) -> float:
    """Return nanoseconds for each of about ``n`` events."""
    rounds = max(1, n // (STREAMS * EVENTS))
    taken = {True: 0, False: 0}
    for number in range(rounds):
        _streams(number * STREAMS, taken)
    return (taken[True] - taken[False]) / (rounds * STREAMS * EVENTS)


def _streams(first: int, taken: dict[bool, int]) -> None:
    """Carry streams side by side, with and without, and add what each of them took."""
    answers = {metered: [_Answer() for _ in range(STREAMS)] for metered in (True, False)}
    for turn in range(EVENTS + 2):
        for metered in (True, False) if turn % 2 else (False, True):
            said = [_said(first + at, turn) for at in range(STREAMS)]
            asked = [traffic.request_body(first + at) if metered else None for at in range(STREAMS)]
            began_ns = time.thread_time_ns()
            for answer, raw, body in zip(answers[metered], said, asked, strict=True):
                if not turn:
                    answer.begin(raw, body)
                else:
                    answer.hear(raw)
                    if turn > EVENTS:
                        answer.end()
            taken[metered] += time.thread_time_ns() - began_ns


def _said(seq: int, turn: int) -> bytes:
    if not turn:
        return traffic.stream_head(seq) + traffic.chunk(traffic.stream_beginning(seq))
    if turn <= EVENTS:
        return traffic.chunk(traffic.event(seq, turn, turn))
    return traffic.chunk(traffic.stream_ending(seq)) + traffic.LAST_CHUNK


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", choices=("json", "sse"), required=True)
    parser.add_argument("--n", type=int, required=True)
    options = parser.parse_args()
    print((small if options.work == "json" else streamed)(options.n))
