"""What is measured, how much of it, and in which order.

Rule 1: a round visits every proxy before the next round begins, each time from
another one on. What the machine does meanwhile then hits all alike, and ratios
are taken within a round.

Rule 2: memory and start-up are measured on programs started for nothing else,
because memory that earlier work has freed would be counted as spared.
"""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import load
import streams
import traffic
import tunnels
from load import CpuClock, Sample, Target
from measure import Process, on_core
from proxies import Place, Proxy

DIRECT: Final = "direct"

Kind = Callable[[Target], streams.Paced]
Work = Callable[[Target, CpuClock], Awaitable[Sample]]
Samples = dict[str, dict[str, list[Sample]]]
"""By workload, then by proxy (or ``DIRECT``): one sample a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much work a round is.

    Attributes:
        rounds: How often everything is repeated.
        requests: Small requests over 32 and 256 connections; a half of it over one.
        streams, events, interval_ms: Paced streams, the events of each, and how far these are apart;
            tunnels and frames likewise.
        uploads: Uploads, four at a time.
        silent: Streams, and tunnels, held open for their memory.
        hold: Streams that ai-mux is asked to hold at once; 0 to leave that out.
        starts: Starts of each program.
        pairs: How often ai-mux is compared with itself, counting and not.
        metered: Requests, and events, of each look at the meter alone.
        ledger_rows: Rows of the ledger that a report is made of.
    """

    rounds: int
    requests: int
    streams: int = 100
    events: int
    interval_ms: int = 33
    uploads: int
    silent: int
    hold: int
    starts: int
    pairs: int
    metered: int
    ledger_rows: int


FULL: Final = Amounts(
    rounds=7,
    requests=8000,
    events=150,
    uploads=256,
    silent=2000,
    hold=10_000,
    starts=5,
    pairs=10,
    metered=30_000,
    ledger_rows=1_000_000,
)
QUICK: Final = Amounts(
    rounds=1,
    requests=1000,
    events=30,
    uploads=16,
    silent=200,
    hold=0,
    starts=1,
    pairs=1,
    metered=15_000,
    ledger_rows=20_000,
)

_UPLOADS_AT_ONCE: Final = 4

# A program is at rest when it takes less than a hundredth of its core. Servers
# look at their clocks now and then, so waiting for none at all would not end.
_LOOK_AGAIN_S: Final = 0.2
_LOOKS: Final = 50
_NEXT_TO_NOTHING_NS: Final = 2_000_000


def flowing(amounts: Amounts, only: Sequence[str]) -> dict[str, Work]:
    """Return the workloads that are measured by CPU time, by name."""
    works: dict[str, Work] = {}
    if "json" in only:
        for connections, n in ((1, amounts.requests // 2), (32, amounts.requests), (256, amounts.requests)):
            works[f"json, {connections}"] = partial(load.requests, connections=connections, n=n)
    paced = partial(streams.paced, n=amounts.streams, events=amounts.events, interval_ms=amounts.interval_ms)
    if "sse" in only or "ws" in only:  # a frame is compared with an event of the same round
        works["sse"] = partial(paced, kind=streams.Stream)
    if "ws" in only:
        works["ws"] = partial(paced, kind=tunnels.Tunnel)
    if "upload" in only:
        works["upload"] = partial(
            load.requests, connections=_UPLOADS_AT_ONCE, n=amounts.uploads, body=traffic.UPLOAD_BODY
        )
    return works


async def rounds(
    place: Place,
    proxies: Sequence[Proxy],
    works: Mapping[str, Work],
    *,
    tls: bool,
    count: int,
    samples: Samples,
    spoken: dict[str, str],
) -> None:
    """Measure every workload on every proxy and without one, ``count`` times.

    Adds to ``samples``, and to ``spoken`` the TLS version and cipher of each proxy,
    as they come. Raises NotStarted and WrongAnswer, which name the proxy.
    """
    with ExitStack() as running:
        runs: list[tuple[str, Target, CpuClock]] = [(DIRECT, place.directly(tls=tls), lambda: 0)]
        for proxy in proxies:
            target, process = running.enter_context(proxy.started(place, tls=tls))
            runs.append((proxy.name, target, process.cpu_ns))
        if tls:
            await _ask_what_was_spoken(place, runs, spoken)
        for number in range(count):
            for work_name, work in works.items():
                for name, target, cpu_ns in _from(runs, number):
                    if work_name.startswith("ws") and target.tunnel is None:
                        continue
                    sample = await _named(name, work(target, cpu_ns))
                    samples.setdefault(work_name, {}).setdefault(name, []).append(sample)
            print(
                f"round {number + 1} of {count}{', TLS upstream' if tls else ''}", file=sys.stderr, flush=True
            )


async def _ask_what_was_spoken(
    place: Place, runs: Sequence[tuple[str, Target, CpuClock]], spoken: dict[str, str]
) -> None:
    plain = place.directly(tls=False)
    for name, target, cpu_ns in runs:
        await load.facts(plain)  # forgets what the one before spoke
        await _named(name, load.requests(target, cpu_ns, connections=1, n=10))
        spoken[name] = ", ".join(await load.facts(plain))


def _from(
    runs: Sequence[tuple[str, Target, CpuClock]], number: int
) -> Iterator[tuple[str, Target, CpuClock]]:
    first = number % len(runs)
    yield from (*runs[first:], *runs[:first])


async def _named(name: str, work: Awaitable[Sample]) -> Sample:
    try:
        return await work
    except load.WrongAnswer as error:
        raise load.WrongAnswer(f"{name}: {error}") from error


# Counting, on and off

UNCOUNTED: Final = "not counting"
METERED_WORKS: Final = ("json, 32", "sse")


async def counting(
    place: Place,
    proxy: Proxy,
    works: Mapping[str, Work],
    *,
    pairs: int,
    metered: int,
    samples: Samples,
    meter_ns: dict[str, list[float]],
) -> None:
    """Measure ai-mux as it is shipped, without all that counts, and the meter alone, in turn.

    Adds to ``samples`` and to ``meter_ns``, which has nanoseconds for each request or event by
    workload. Raises NotStarted and WrongAnswer.
    """
    without = replace(proxy, name=f"{proxy.name} {UNCOUNTED}", counts=False)
    with ExitStack() as running:
        runs = [(one.name, *running.enter_context(one.started(place, tls=False))) for one in (proxy, without)]
        for number in range(pairs):
            for work_name in METERED_WORKS:
                for name, target, process in runs if number % 2 else reversed(runs):
                    sample = await _named(name, works[work_name](target, process.cpu_ns))
                    samples.setdefault(work_name, {}).setdefault(name, []).append(sample)
                meter_ns.setdefault(work_name, []).append(_meter_ns(place, work_name, metered))
            print(f"pair {number + 1} of {pairs}, counting and not", file=sys.stderr, flush=True)


def _meter_ns(place: Place, work_name: str, n: int) -> float:
    program = [sys.executable, str(Path(__file__).with_name("metering.py"))]
    with on_core(place.proxy_core):
        ran = subprocess.run(
            (*program, "--work", work_name.partition(",")[0], "--n", str(n)),
            check=False,
            capture_output=True,
            text=True,
        )
    if ran.returncode:
        raise load.WrongAnswer(f"the meter alone: {ran.stderr[-2000:]}")
    return float(ran.stdout)


# Memory, and starting


async def idle(place: Place, proxy: Proxy, *, kind: Kind, tls: bool, n: int) -> float:
    """Return the memory, in bytes, that each of ``n`` silent open streams or tunnels takes in ``proxy``."""
    with proxy.started(place, tls=tls) as (target, process):
        # Whatever is loaded and allocated once shall be, before the first look.
        await _named(proxy.name, load.requests(target, process.cpu_ns, connections=16, n=100))
        async with streams.silent(target, kind, 16):
            pass
        before = await _settled(process)
        async with streams.silent(target, kind, n):
            return (await _settled(process) - before) / n


async def _settled(process: Process) -> int:
    """Return the memory of ``process``, once it does next to nothing any more, or was given time enough."""
    before_ns, now_ns = 0, process.cpu_ns()
    for _ in range(_LOOKS):
        if now_ns - before_ns <= _NEXT_TO_NOTHING_NS:
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
        before_ns, now_ns = now_ns, process.cpu_ns()
    return process.pss_bytes()


async def held(place: Place, proxy: Proxy, *, n: int) -> int:
    """Return how many open streams ``proxy`` held at once: ``n``, or all that its descriptors allow.

    0 when it did not hold them, and why goes to stderr: a miss, which leaves the other figures as they are.
    """
    with proxy.started(place, tls=False) as (target, process):
        n = min(n, (process.descriptor_limit() - 128) // 2 - 16)
        try:
            async with streams.silent(target, streams.Stream, n):
                return n
        except load.WrongAnswer as error:
            print(f"{proxy.name} did not hold {n} streams: {error}", file=sys.stderr)
            return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of a program.

    Attributes:
        open_s: Seconds until its port accepted.
        rest_bytes: Resident memory when it has come to rest.
    """

    open_s: float
    rest_bytes: int


async def start(place: Place, proxy: Proxy) -> Start:
    """Start ``proxy`` once, and end it."""
    with proxy.started(place, tls=False) as (_target, process):
        await _settled(process)
        return Start(open_s=process.started_s, rest_bytes=process.rss_bytes())
