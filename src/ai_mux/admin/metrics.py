"""Metrics for Prometheus: what the parts of a server count anyway, read when somebody asks.

Names and units follow Prometheus' conventions: base units (seconds, bytes, ratios) in the
name, ``_total`` for what only grows. ``METRICS`` has all of them; the documentation, the
dashboard and the alert rules are checked against it.

Rule 1: no label has values without end. Models and users have a label of their own up to
a number (``usage.totals``), the provider's windows too (``usage.windows``).

Rule 2: no token, no e-mail address, no plan, no content.
"""

import math
import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Literal, NamedTuple

from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ai_mux.admin.sources import Sources, credentials
from ai_mux.credentials.standing import State
from ai_mux.usage.tally import Tokens
from ai_mux.usage.totals import OTHER

Kind = Literal["counter", "gauge", "histogram", "info"]
_PLAIN_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


class Described(NamedTuple):
    """One metric.

    Attributes:
        name: As Prometheus shows it; of a histogram without ``_bucket``, ``_sum`` and ``_count``.
        kind: Its type.
        help: What it says.
        labels: By what its values are told apart.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_DESCRIBED: Final = (
    Described("ai_mux_build_info", "info", "The version that runs.", ("version", "python", "engine")),
    # Now
    Described("ai_mux_connections", "gauge", "Clients that are connected."),
    Described("ai_mux_requests_running", "gauge", "Requests being served, an open WebSocket included."),
    Described("ai_mux_model_requests_running", "gauge", "Requests that a model is answering now."),
    # Requests
    Described(
        "ai_mux_requests_total",
        "counter",
        "Requests of users that have ended; status is none where the client left before its answer.",
        ("provider", "status", "end"),
    ),
    Described(
        "ai_mux_unidentified_requests_total",
        "counter",
        "Requests that were answered without a user: no valid token, or malformed.",
        ("status",),
    ),
    Described("ai_mux_response_head_seconds", "histogram", "Time to the response's head.", ("provider",)),
    Described("ai_mux_request_duration_seconds", "histogram", "Time to the response's end.", ("provider",)),
    Described("ai_mux_request_bytes_total", "counter", "Bytes of request bodies.", ("provider",)),
    Described("ai_mux_response_bytes_total", "counter", "Bytes of response bodies.", ("provider",)),
    Described(
        "ai_mux_limit_refusals_total", "counter", "Requests refused by a user's own limit.", ("provider",)
    ),
    # Use
    Described("ai_mux_tokens_total", "counter", "Tokens used.", ("provider", "model", "kind")),
    Described(
        "ai_mux_notional_cost_dollars_total",
        "counter",
        "What the tokens would cost by the API's list price. A subscription is not billed so.",
        ("provider", "model"),
    ),
    Described(
        "ai_mux_unmetered_requests_total",
        "counter",
        "Requests that used tokens that could not be read: all (none) or some (partial) of them.",
        ("provider", "read"),
    ),
    Described(
        "ai_mux_unpriced_requests_total",
        "counter",
        "Requests that used tokens of a model without a known price.",
        ("provider",),
    ),
    Described("ai_mux_user_requests_total", "counter", "Requests by user.", ("user",)),
    Described("ai_mux_user_tokens_total", "counter", "Tokens of all kinds by user.", ("user",)),
    # Credentials
    Described("ai_mux_credential_usable", "gauge", "1 if requests are served with it.", ("credential",)),
    Described(
        "ai_mux_credential_state",
        "gauge",
        "1 for the state that the credential is in, 0 for the others.",
        ("credential", "state"),
    ),
    Described(
        "ai_mux_credential_problem",
        "gauge",
        "1 if something about it should be looked at, though it may still work.",
        ("credential",),
    ),
    Described("ai_mux_credential_renewable", "gauge", "1 if ai-mux can renew it by itself.", ("credential",)),
    Described(
        "ai_mux_credential_expires_in_seconds",
        "gauge",
        "Until the access token ends, where that is known; negative afterwards.",
        ("credential",),
    ),
    Described("ai_mux_credential_renewals_total", "counter", "Renewals that worked.", ("credential",)),
    Described(
        "ai_mux_credential_renewal_failures_total",
        "counter",
        "Attempts at a renewal that did not work.",
        ("credential",),
    ),
    # The providers' own limits
    Described(
        "ai_mux_provider_window_used_ratio",
        "gauge",
        "How much of the provider's own window is used, by its word; 1 is all of it.",
        ("credential", "window"),
    ),
    Described(
        "ai_mux_provider_window_reset_timestamp_seconds",
        "gauge",
        "When that window ends.",
        ("credential", "window"),
    ),
    # The ledger
    Described("ai_mux_ledger_queue_rows", "gauge", "Rows that wait to be written."),
    Described("ai_mux_ledger_written_rows_total", "counter", "Rows written since the start."),
    Described("ai_mux_ledger_dropped_rows_total", "counter", "Rows lost since the start."),
    Described("ai_mux_ledger_failing", "gauge", "1 while rows cannot be written."),
)
METRICS: Final = {one.name: one for one in _DESCRIBED}
"""Every metric of ai-mux's own, by name. Those of the process are the client library's."""


class Metrics:
    """Reads a server's parts and writes them down in the format that is asked for."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._process = ProcessCollector(registry=None)

    def collect(self) -> list[Metric]:
        """Return every metric as it is now. To be called where the parts live."""
        now_s = self._sources.clock.time()
        return [*self._now(), *self._requests(), *self._used(), *self._credentials(now_s), *self._ledger()]

    def exposition(self, metrics: list[Metric], accept: str) -> tuple[bytes, str]:
        """Write metrics down, with those of the process; may be called in a thread.

        Args:
            metrics: From ``collect``.
            accept: What the asker takes (``Accept``): OpenMetrics, or Prometheus' own text.

        Returns:
            The text, and its media type.
        """
        with suppress(Exception):  # /proc is not everywhere what the client library takes it for
            metrics = [*metrics, *self._process.collect()]
        encode: Callable[[Collector], bytes] = generate_latest
        media_type = _PLAIN_TEXT
        with suppress(Exception):  # a version that is no version
            encode, media_type = choose_encoder(accept)
        return encode(_Collected(metrics)), media_type

    def _now(self) -> Iterator[Metric]:
        sources = self._sources
        build = {"version": sources.version, "python": platform.python_version(), "engine": sources.engine}
        yield InfoMetricFamily("ai_mux_build", METRICS["ai_mux_build_info"].help, value=build)
        yield _one("ai_mux_connections", sources.server.connections)
        yield _one("ai_mux_requests_running", sources.server.requests)
        yield _one("ai_mux_model_requests_running", sources.limiter.running)

    def _requests(self) -> Iterator[Metric]:
        totals = self._sources.totals
        requests = _counter("ai_mux_requests_total")
        for provider, status, end, count in totals.ends():
            requests.add_metric((provider, _status(status), end), count)
        unidentified = _counter("ai_mux_unidentified_requests_total")
        for status, count in totals.strangers.items():
            unidentified.add_metric((_status(status),), count)
        yield from (requests, unidentified)
        rows = list(totals.providers())
        for name in ("ai_mux_response_head_seconds", "ai_mux_request_duration_seconds"):
            histogram = HistogramMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
            for provider, row in rows:
                durations = row.head if name == "ai_mux_response_head_seconds" else row.total
                buckets, sum_s = durations.cumulative()
                histogram.add_metric((provider,), [(_bound(le), count) for le, count in buckets], sum_s)
            yield histogram
        received, sent = _counter("ai_mux_request_bytes_total"), _counter("ai_mux_response_bytes_total")
        limited = _counter("ai_mux_limit_refusals_total")
        for provider, row in rows:
            received.add_metric((provider,), row.bytes_in)
            sent.add_metric((provider,), row.bytes_out)
            limited.add_metric((provider,), row.limited)
        yield from (received, sent, limited)

    def _used(self) -> Iterator[Metric]:
        totals = self._sources.totals
        tokens = _counter("ai_mux_tokens_total")
        cost = _counter("ai_mux_notional_cost_dollars_total")
        for used in totals.models():
            for kind, count in zip(Tokens._fields, used.tokens, strict=True):
                tokens.add_metric((used.provider, used.model, kind), count)
            cost.add_metric((used.provider, used.model), used.cost_microusd / 1_000_000)
        unmetered, unpriced = (
            _counter("ai_mux_unmetered_requests_total"),
            _counter("ai_mux_unpriced_requests_total"),
        )
        for provider, row in totals.providers():
            unmetered.add_metric((provider, "none"), row.unmetered)
            unmetered.add_metric((provider, "partial"), row.partial)
            unpriced.add_metric((provider,), row.unpriced)
        requests_of, tokens_of = _counter("ai_mux_user_requests_total"), _counter("ai_mux_user_tokens_total")
        for user, requests, all_tokens in totals.users():
            requests_of.add_metric((user,), requests)
            tokens_of.add_metric((user,), all_tokens)
        yield from (tokens, cost, unmetered, unpriced, requests_of, tokens_of)

    def _credentials(self, now_s: float) -> Iterator[Metric]:
        usable, state = _gauge("ai_mux_credential_usable"), _gauge("ai_mux_credential_state")
        problem, renewable = _gauge("ai_mux_credential_problem"), _gauge("ai_mux_credential_renewable")
        expires_in = _gauge("ai_mux_credential_expires_in_seconds")
        renewals = _counter("ai_mux_credential_renewals_total")
        failures = _counter("ai_mux_credential_renewal_failures_total")
        used = _gauge("ai_mux_provider_window_used_ratio")
        resets = _gauge("ai_mux_provider_window_reset_timestamp_seconds")
        for one in credentials(self._sources, now_s):
            label, standing = (one.name,), one.standing
            usable.add_metric(label, one.is_usable)
            for each in State:
                state.add_metric((one.name, each.value), each is standing.state)
            problem.add_metric(label, standing.problem is not None)
            renewable.add_metric(label, standing.renewable)
            if standing.expires_at is not None:
                expires_in.add_metric(label, standing.expires_at - now_s)
            renewals.add_metric(label, one.renewals)
            failures.add_metric(label, one.renewal_failures)
            for window in one.shown.windows:
                if window.used is not None:
                    used.add_metric((one.name, window.name), window.used)
                if window.resets_at is not None and window.resets_at > now_s:
                    resets.add_metric((one.name, window.name), window.resets_at)
        yield from (usable, state, problem, renewable, expires_in, renewals, failures, used, resets)

    def _ledger(self) -> Iterator[Metric]:
        ledger = self._sources.ledger
        if ledger is None:
            return
        yield _one("ai_mux_ledger_queue_rows", ledger.queued)
        for name, count in (("written", ledger.written), ("dropped", ledger.dropped)):
            counter = _counter(f"ai_mux_ledger_{name}_rows_total")
            counter.add_metric((), count)
            yield counter
        yield _one("ai_mux_ledger_failing", ledger.is_failing)


class _Collected(Collector):
    """What has been collected already."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _counter(name: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)


def _gauge(name: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)


def _one(name: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, METRICS[name].help, value=value)


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == math.inf else str(seconds)


def _status(status: int) -> str:
    """Return a status as a label: ``none`` where nothing was answered."""
    if status < 0:
        return OTHER
    return str(status) if status else "none"
