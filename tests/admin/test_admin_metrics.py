"""What Prometheus reads: every metric, with the values that the parts have."""

import math

import pytest
from admin.parts import Parts, add, record
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from whole import pieces_in

from ai_mux.admin.metrics import METRICS, Metrics
from ai_mux.credentials.standing import State
from ai_mux.limits import NO_LIMITS
from ai_mux.usage.tally import NO_TOKENS, Tokens

ACCESS, REFRESH = "sk-ant-oat01-Wd6uHn3Lf0Gb5eTa1Qo7", "sk-ant-ort01-Xi8rMk2Vz4Pl9oBn6Wc"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def read(parts: Parts) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Return every sample: name to labels to value."""
    metrics = Metrics(parts.sources())
    text, _ = metrics.exposition(metrics.collect(), "")
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in plain(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def of(samples, **labels):
    return samples[frozenset(labels.items())]


async def test_what_requests_came_to_is_there_in_base_units(parts: Parts):
    add(parts.totals, record(), "done")
    add(parts.totals, record(status=0, head_ms=None, tokens=NO_TOKENS, cost=None), "left")
    add(parts.totals, record(status=429, tokens=NO_TOKENS, cost=None), "refused")
    add(parts.totals, record(metering="unmetered", tokens=NO_TOKENS, cost=None), "done")
    add(parts.totals, record(metering="partial", tokens=Tokens(output=5), cost=None), "cut")
    parts.totals.stranger(401)
    parts.proxy.connections, parts.proxy.requests = 12, 3
    lease = parts.limiter.begin("alice", NO_LIMITS)
    found = read(parts)
    lease.settle(0, 0)
    assert of(found["ai_mux_requests_total"], provider="claude", status="200", end="done") == 2
    assert of(found["ai_mux_requests_total"], provider="claude", status="none", end="left") == 1
    assert of(found["ai_mux_unidentified_requests_total"], status="401") == 1
    assert of(found["ai_mux_response_head_seconds_sum"], provider="claude") == pytest.approx(1.4)
    assert of(found["ai_mux_response_head_seconds_bucket"], provider="claude", le="0.5") == 4
    assert of(found["ai_mux_response_head_seconds_bucket"], provider="claude", le="0.25") == 0
    assert of(found["ai_mux_request_duration_seconds_sum"], provider="claude") == pytest.approx(21)
    assert of(found["ai_mux_request_duration_seconds_count"], provider="claude") == 5
    assert of(found["ai_mux_request_bytes_total"], provider="claude") == 5000
    assert of(found["ai_mux_response_bytes_total"], provider="claude") == 25_000
    assert of(found["ai_mux_limit_refusals_total"], provider="claude") == 1
    tokens = found["ai_mux_tokens_total"]
    by_kind = {dict(labels)["kind"]: value for labels, value in tokens.items()}
    assert by_kind == {"input": 10, "cache_read": 200, "cache_write_5m": 3, "cache_write_1h": 4, "output": 55}
    cost = found["ai_mux_notional_cost_dollars_total"]
    assert of(cost, provider="claude", model="claude-sonnet-5") == 1.25
    assert of(found["ai_mux_unmetered_requests_total"], provider="claude", read="none") == 1
    assert of(found["ai_mux_unmetered_requests_total"], provider="claude", read="partial") == 1
    assert of(found["ai_mux_unpriced_requests_total"], provider="claude") == 1
    assert of(found["ai_mux_user_requests_total"], user="alice") == 5
    assert of(found["ai_mux_user_tokens_total"], user="alice") == 272
    assert of(found["ai_mux_connections"]) == 12
    assert of(found["ai_mux_requests_running"]) == 3
    assert of(found["ai_mux_model_requests_running"]) == 1
    assert of(found["ai_mux_build_info"], version="1.2.3", engine="asyncio", python=_python()) == 1


def _python() -> str:
    import platform  # noqa: PLC0415

    return platform.python_version()


async def test_credentials_are_there_with_their_state_and_end(parts: Parts):
    await parts.credential(left_s=3600)
    await parts.credential("chatgpt", left_s=None)
    found = read(parts)
    states = {
        (dict(labels)["credential"], dict(labels)["state"])
        for labels, value in found["ai_mux_credential_state"].items()
        if value == 1
    }
    assert states == {("claude:login", "live"), ("chatgpt:login", "missing")}
    assert len(found["ai_mux_credential_state"]) == 2 * len(State)
    assert of(found["ai_mux_credential_usable"], credential="claude:login") == 1
    assert of(found["ai_mux_credential_usable"], credential="chatgpt:login") == 0
    assert of(found["ai_mux_credential_problem"], credential="chatgpt:login") == 1
    assert of(found["ai_mux_credential_renewable"], credential="claude:login") == 1
    assert found["ai_mux_credential_expires_in_seconds"] == {
        frozenset({("credential", "claude:login")}): 3600
    }
    parts.clock.pass_s(4000)
    found = read(parts)
    assert of(found["ai_mux_credential_expires_in_seconds"], credential="claude:login") == -400


async def test_an_api_key_has_no_end_and_a_name_of_its_own(parts: Parts):
    await parts.api_key("claude", "sk-ant-api03-Zr4Tq8Lm2Vx6Bn0Ws")
    found = read(parts)
    assert of(found["ai_mux_credential_usable"], credential="claude:api-key") == 1
    assert "ai_mux_credential_expires_in_seconds" not in found


async def test_the_provider_s_windows_are_there_as_long_as_they_last(parts: Parts):
    await parts.credential()
    now = parts.clock.wall
    fields = {"5h-utilization": "0.62", "5h-reset": str(int(now) + 60), "overage-status": "rejected"}
    raw = [
        (b"anthropic-ratelimit-unified-" + name.encode(), value.encode()) for name, value in fields.items()
    ]
    parts.windows.note_head("claude:login", raw, now)
    found = read(parts)
    assert found["ai_mux_provider_window_used_ratio"] == {
        frozenset({("credential", "claude:login"), ("window", "5h")}): 0.62
    }
    assert (
        of(found["ai_mux_provider_window_reset_timestamp_seconds"], credential="claude:login", window="5h")
        == int(now) + 60
    )
    parts.clock.pass_s(60)
    found = read(parts)
    assert "ai_mux_provider_window_used_ratio" not in found
    assert "ai_mux_provider_window_reset_timestamp_seconds" not in found


async def test_the_ledger_is_there_if_one_is_kept(parts: Parts):
    parts.ledger.put(record())
    found = read(parts)
    assert of(found["ai_mux_ledger_queue_rows"]) == 1
    assert of(found["ai_mux_ledger_written_rows_total"]) == 0
    assert of(found["ai_mux_ledger_dropped_rows_total"]) == 0
    assert of(found["ai_mux_ledger_failing"]) == 0
    parts.ledger = None
    assert not [name for name in read(parts) if name.startswith("ai_mux_ledger")]


async def test_there_are_just_the_metrics_and_labels_that_are_described(parts: Parts):
    await parts.credential()
    add(parts.totals, record(), "done")
    parts.totals.stranger(401)
    parts.windows.note_head(
        "claude:login",
        [(b"anthropic-ratelimit-unified-5h-" + name, b"1900000000") for name in (b"reset",)]
        + [(b"anthropic-ratelimit-unified-5h-utilization", b"0.5")],
        parts.clock.wall,
    )
    metrics = Metrics(parts.sources())
    collected = metrics.collect()
    seen = {}
    for family in collected:
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        name = family.name + suffix
        seen[name] = family.type
        assert METRICS[name].help == family.documentation
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(METRICS[name].labels), name
            assert math.isfinite(sample.value)
    assert seen == {name: one.kind for name, one in METRICS.items()}


@pytest.mark.parametrize(
    ("accept", "media_type", "parse"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", plain),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", plain),
        ("application/openmetrics-text;version=nonsense", "text/plain; version=0.0.4; charset=utf-8", plain),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics),
    ],
)
async def test_the_format_is_the_one_that_is_asked_for(parts: Parts, accept, media_type, parse):
    await parts.credential()
    add(parts.totals, record(model='a"b\\c\nd', user="ålice"), "done")
    await parts.serve()
    answer = await parts.ask("GET /metrics", f"Accept: {accept}")
    assert answer.get(b"content-type").decode().startswith(media_type)
    families = {family.name: family for family in parse(answer.body.decode())}
    samples = [sample.labels for sample in families["ai_mux_tokens"].samples]
    assert {labels["model"] for labels in samples} == {'a"b\\c\nd'}
    assert answer.body.decode().count("# TYPE ai_mux_user_requests") == 1


async def test_the_process_is_there_too_and_no_metric_without_it(parts: Parts, monkeypatch):
    metrics = Metrics(parts.sources())
    text = metrics.exposition([], "")[0]
    assert b"process_cpu_seconds_total" in text
    monkeypatch.setattr(metrics._process, "collect", lambda: 1 / 0)
    collected = metrics.collect()
    assert b"ai_mux_build_info" in metrics.exposition(collected, "")[0]


async def test_no_piece_of_a_secret_is_in_metrics_or_status(parts: Parts):
    await parts.credential(access=ACCESS, refresh=REFRESH)
    await parts.api_key("chatgpt", key := "sk-proj-Zr4Tq8Lm2Vx6Bn0WsKd")
    await parts.serve()
    shown = b"".join([(await parts.ask(f"GET {path}")).body for path in ("/metrics", "/status", "/readyz")])
    for secret in (ACCESS.partition("oat01-")[2], REFRESH.partition("ort01-")[2], key):
        assert not pieces_in(secret, shown.decode())


async def test_ten_thousand_users_and_a_thousand_models_are_an_answer_of_bounded_size(parts: Parts):
    for number in range(10_000):
        add(parts.totals, record(user=f"user-{number}", model=f"model-{number}"), "done")
    metrics = Metrics(parts.sources())
    text, _ = metrics.exposition(metrics.collect(), "")
    assert len(text.splitlines()) < 1000
