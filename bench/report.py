"""From measurements to tables: pure, and the one place where the bars stand."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from load import Sample
from workloads import DIRECT, METERED_WORKS, UNCOUNTED, Samples, Start


@dataclass(slots=True, kw_only=True)
class Results:
    """All that a run has measured, by workload and proxy.

    Attributes:
        flowing: CPU and latency, one sample a round.
        silent: Bytes for each silent open stream.
        held: How many streams were held at once.
        starts: Starts of each proxy.
        spoken: The TLS version and cipher towards the upstream, by proxy.
        counting: CPU of ai-mux while it counts and while it does not, one sample a pair; by workload
            and proxy.
        meter_ns: CPU of the meter alone for each request or event, by proxy and workload; likewise.
        report_s: How long reports of a large ledger took, by how many rows it has.
    """

    flowing: Samples = field(default_factory=dict)
    silent: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    starts: dict[str, list[Start]] = field(default_factory=dict)
    spoken: dict[str, str] = field(default_factory=dict)
    counting: Samples = field(default_factory=dict)
    meter_ns: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    report_s: dict[int, list[float]] = field(default_factory=dict)

    def ratios(self, work: str, proxy: str, to: str, *, at: str | None = None) -> list[float]:
        """Return ``proxy``'s CPU time as a multiple of ``to``'s (at the work ``at``), round by round."""
        samples = self.flowing.get(work, {}).get(proxy, ())
        pairs = zip(samples, self.flowing.get(at or work, {}).get(to, ()), strict=False)
        return [_per_unit(ours) / _per_unit(theirs) for ours, theirs in pairs]

    def added_p50_us(self, work: str, proxy: str) -> list[float]:
        """Return how many microseconds ``proxy`` adds to the median latency, round by round."""
        samples = self.flowing.get(work, {})
        pairs = zip(samples.get(proxy, ()), samples.get(DIRECT, ()), strict=False)
        return [through.p50_us - direct.p50_us for through, direct in pairs]

    def meter_shares(self, work: str, proxy: str) -> list[float]:
        """Return how much of ``proxy``'s CPU time is the meter's, pair by pair."""
        samples = self.counting.get(work, {}).get(proxy, ())
        alone_ns = self.meter_ns.get(proxy, {}).get(work, ())
        return [ns / _per_unit(whole) for ns, whole in zip(alone_ns, samples, strict=False)]


def _per_unit(sample: Sample) -> float:
    """Return nanoseconds of CPU for each request, event or byte."""
    return sample.cpu_ns / sample.units


# The bars

Values = Callable[[Results, str], Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A limit that ai-mux must stay below.

    Attributes:
        work: The workload.
        what: The figure that is judged, with its unit.
        limit: What its median may at most be (at least, where ``at_least``).
        values: Picks the figures of a proxy from the results.
    """

    work: str
    what: str
    limit: float
    values: Values
    at_least: bool = False


def _cpu(work: str, to: str, limit: float) -> Bar:
    return Bar(
        work=work,
        what=f"CPU × {to}",
        limit=limit,
        values=lambda results, proxy: results.ratios(work, proxy, to),
    )


def _frame(work: str, limit: float) -> Bar:
    return Bar(
        work=work,
        what="CPU × sse",
        limit=limit,
        values=lambda results, proxy: results.ratios(work, proxy, proxy, at=_event_work(work)),
    )


def _meter(work: str) -> Bar:
    return Bar(
        work=work,
        what="meter, share of the CPU",
        limit=0.05,
        values=lambda results, proxy: results.meter_shares(work, proxy),
    )


def _event_work(work: str) -> str:
    """Return the work of whose event a frame of ``work`` is a multiple: of the same size and pace."""
    return work.replace("ws", "sse", 1)


def _memory(work: str, limit: float) -> Bar:
    def values(results: Results, proxy: str) -> list[float]:
        return [found / 1024 for found in results.silent.get(work, {}).get(proxy, ())]

    return Bar(work=work, what=_memory_unit(work), limit=limit, values=values)


def _memory_unit(work: str) -> str:
    return "KiB a tunnel" if "ws" in work else "KiB a stream"


BARS: Final = (
    _cpu("json, 32", "nginx", 2.5),
    _cpu("json, 32", "aiohttp", 0.35),
    _cpu("sse", "nginx", 1.6),
    Bar(
        work="sse",
        what="added p50, ms",
        limit=0.15,
        values=lambda results, proxy: [us / 1000 for us in results.added_p50_us("sse", proxy)],
    ),
    _frame("ws", 1.3),
    _cpu("upload", "nginx", 1.0),
    _cpu("json, 32, TLS", "nginx", 3.0),
    _cpu("sse, TLS", "nginx", 2.2),
    _frame("ws, TLS", 1.3),
    _cpu("upload, TLS", "nginx", 1.3),
    _memory("idle", 16),
    _memory("idle, ws", 16),
    _memory("idle, TLS", 56),
    *(_meter(work) for work in METERED_WORKS),
    Bar(
        work="usage, 1M rows",
        what="s for a report",
        limit=1.0,
        values=lambda results, _proxy: results.report_s.get(10**6, ()),
    ),
    Bar(
        work="idle",
        what="streams held",
        limit=9900,  # 10,000, or the little less that a limit of 20,000 descriptors allows
        values=lambda results, proxy: [results.held[proxy]] if proxy in results.held else [],
        at_least=True,
    ),
    Bar(
        work="start",
        what="s until the port is open",
        limit=0.6,
        values=lambda results, proxy: [start.open_s for start in results.starts.get(proxy, ())],
    ),
    Bar(
        work="start",
        what="MiB at rest",
        limit=64,
        values=lambda results, proxy: [start.rest_bytes / 2**20 for start in results.starts.get(proxy, ())],
    ),
)


class Verdict(Enum):
    """What is to be said of a bar."""

    OK = "ok"
    MISS = "MISS"
    UNKNOWN = "not measured"


def verdicts(results: Results, proxy: str) -> Iterator[tuple[Bar, Sequence[float], Verdict]]:
    """Yield each bar, the figures that it is about, and whether their median keeps to it."""
    for bar in BARS:
        values = bar.values(results, proxy)
        if not values:
            yield bar, values, Verdict.UNKNOWN
            continue
        median = statistics.median(values)
        kept = median >= bar.limit if bar.at_least else median <= bar.limit
        yield bar, values, Verdict.OK if kept else Verdict.MISS


# The tables

# Where latency is a proxy's own: with more connections at once it is the time in
# a queue, and with TLS to the upstream the client's own TLS would be subtracted.
_WAITED_FOR: Final = frozenset({"json, 1", "sse", "ws"})

_UNITS: Final = {
    "json": ("µs/request", 1e-3),
    "sse": ("µs/event", 1e-3),
    "ws": ("µs/frame", 1e-3),
    "upload": ("s/GB", 1.0),
}
"""By kind of workload: what CPU time is shown in, and how many of it one nanosecond a unit is."""


def figures(results: Results) -> str:
    """Return the table of what was measured: medians, with the lowest and highest in brackets."""
    heads = ("work", "proxy", "CPU", "", "× nginx", "× sse", "per s", "p50 µs", "p99 µs", "added p50 µs")
    tables = [_table(heads, _flowing_rows(results)), _table(("", "proxy", "", ""), _other_rows(results))]
    if results.meter_ns:
        tables.append(counting(results))
    return "\n\n".join(tables)


def counting(results: Results) -> str:
    """Return the table of what counting costs: medians, with the lowest and highest in brackets."""
    heads = ("work", "proxy", "CPU", "not counting", "", "counting costs, %", "meter alone", "meter, %")
    return _table(heads, _counting_rows(results))


def _counting_rows(results: Results) -> Iterator[Sequence[str]]:
    for proxy, alone_ns in results.meter_ns.items():
        for work, taken_ns in alone_ns.items():
            unit, scale = _UNITS[work.split(",")[0]]
            samples = results.counting[work]
            on, off = samples[proxy], samples[f"{proxy} {UNCOUNTED}"]
            more = [_per_unit(a) / _per_unit(b) * 100 - 100 for a, b in zip(on, off, strict=False)]
            yield (
                work,
                proxy,
                _spread([_per_unit(sample) * scale for sample in on]),
                _spread([_per_unit(sample) * scale for sample in off]),
                unit,
                _spread(more),
                _spread([ns * scale for ns in taken_ns]),
                _spread([share * 100 for share in results.meter_shares(work, proxy)]),
            )


def _flowing_rows(results: Results) -> Iterator[Sequence[str]]:
    for work, samples in results.flowing.items():
        unit, scale = _UNITS[work.split(",")[0]]
        for proxy, taken in samples.items():
            rate = statistics.median(sample.units / sample.wall_s for sample in taken)
            yield (
                work,
                proxy,
                "" if proxy == DIRECT else _spread([_per_unit(sample) * scale for sample in taken]),
                "" if proxy == DIRECT else unit,
                "" if proxy == DIRECT else _spread(results.ratios(work, proxy, "nginx")),
                _spread(results.ratios(work, proxy, proxy, at=_event_work(work)))
                if work.startswith("ws") and proxy != DIRECT
                else "",
                f"{rate / 2**20:,.0f} MiB" if unit == "s/GB" else f"{rate:,.0f}",
                f"{statistics.median(sample.p50_us for sample in taken):,.0f}",
                f"{statistics.median(sample.p99_us for sample in taken):,.0f}",
                _spread(results.added_p50_us(work, proxy)) if work in _WAITED_FOR and proxy != DIRECT else "",
            )


def _other_rows(results: Results) -> Iterator[Sequence[str]]:
    for work, by_proxy in results.silent.items():
        for proxy, found in by_proxy.items():
            yield work, proxy, _spread([each / 1024 for each in found]), _memory_unit(work)
    for proxy, held in results.held.items():
        yield "idle", proxy, f"{held:,}", "streams held at once"
    for proxy, starts in results.starts.items():
        yield "start", proxy, _spread([start.open_s for start in starts]), "s until the port is open"
        yield "start", proxy, _spread([start.rest_bytes / 2**20 for start in starts]), "MiB at rest"
    for rows, took_s in results.report_s.items():
        yield f"usage, {_in_short(rows)} rows", "ai-mux", _spread(took_s), "s for a report"
    for proxy, spoken in results.spoken.items():
        yield "TLS", proxy, spoken, "towards the upstream"


def judgement(results: Results, proxies: Iterable[str]) -> str:
    """Return the table of the bars, for each of ``proxies``."""
    rows = [
        (
            bar.work,
            proxy,
            bar.what,
            _spread(values),
            f"{'≥' if bar.at_least else '≤'} {bar.limit:,g}",
            verdict.value,
        )
        for proxy in proxies
        for bar, values, verdict in verdicts(results, proxy)
    ]
    return _table(("work", "proxy", "figure", "measured", "bar", ""), rows)


def facts(pairs: Mapping[str, str]) -> str:
    """Return a table of two columns."""
    return _table(("machine", ""), pairs.items())


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    median = _number(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({_number(min(values))}–{_number(max(values))})"


def _in_short(count: int) -> str:
    return f"{count // 10**6}M" if count >= 10**6 else f"{count // 1000}k"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)
