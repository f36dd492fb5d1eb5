"""Dashboard, alert rules and documentation name the metrics and labels that exist, and all of them."""

import json
import re

import pytest
from admin.parts import Parts
from documents import ROOT
from ruamel.yaml import YAML

from ai_mux.admin.metrics import METRICS, Metrics

DASHBOARD = json.loads((ROOT / "monitoring" / "grafana-dashboard.json").read_text())
RULES = [
    rule
    for group in YAML(typ="safe").load((ROOT / "monitoring" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DOCUMENT = (ROOT / "docs" / "reference" / "metrics.md").read_text()
# What Prometheus adds to what it scrapes.
TARGET = {"instance", "job"}

_NAME = re.compile(r"\b((?:ai_mux|process)_[a-z0-9_]+)(\{[^}]*\})?")
_MATCHED = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def expressions():
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"]
    for rule in RULES:
        texts = " ".join([*rule["annotations"].values(), *rule["labels"].values()])
        yield rule["alert"], rule["expr"], texts


EXPRESSIONS = list(expressions())


@pytest.fixture(scope="module")
def process_metrics(tmp_path_factory) -> set[str]:
    text, _ = Metrics(Parts(tmp_path_factory.mktemp("none")).sources()).exposition([], "")
    return set(re.findall(r"^# TYPE (process_\S+)", text.decode(), re.M))


def labels_of(name: str) -> set[str]:
    """Return the labels of a metric; of a histogram's series, those of the series."""
    if name in METRICS:
        assert METRICS[name].kind != "histogram", f"{name}: a histogram has _bucket, _sum and _count"
        return set(METRICS[name].labels)
    stem, _, suffix = name.rpartition("_")
    assert METRICS[stem].kind == "histogram"
    assert suffix in {"bucket", "sum", "count"}
    return {*METRICS[stem].labels, *(["le"] if suffix == "bucket" else [])}


@pytest.mark.parametrize(("where", "expr", "text"), EXPRESSIONS, ids=[where for where, *_ in EXPRESSIONS])
def test_an_expression_uses_only_what_exists(process_metrics, where, expr, text):
    used = _NAME.findall(expr)
    assert used, "it is about no metric of ours"
    known = set()
    for name, matched in used:
        labels = set() if name in process_metrics else labels_of(name)
        known |= labels | TARGET
        assert set(_MATCHED.findall(matched)) <= labels | TARGET, matched
        counts = name.endswith(("_total", "_bucket", "_sum", "_count"))
        within = re.search(rf"{re.escape(name)}(\{{[^}}]*\}})?\[", expr)
        assert bool(counts) == bool(within), f"{name}: what only grows is looked at by its increase"
    grouped = {label.strip() for group in _GROUPED.findall(expr) for label in group.split(",")}
    assert grouped <= known
    shown = {label for pair in re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text) for label in [pair]}
    kept = {label.strip() for group in re.findall(r"\bby\s*\(([^)]*)\)", expr) for label in group.split(",")}
    assert shown <= (kept or known), "it shows a label that is not left"
    assert expr.count("(") == expr.count(")")
    assert expr.count("{") == expr.count("}")


def test_every_metric_of_ours_is_on_the_dashboard():
    shown = {name for _, expr, _ in EXPRESSIONS for name, _ in _NAME.findall(expr)}
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    # Two are told by others: the state in words by `usable`, and rows written by those that wait.
    assert set(METRICS) - used == {"ai_mux_credential_state", "ai_mux_ledger_written_rows_total"}


def test_every_alert_tells_how_bad_it_is_and_what_it_means():
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert f"| `{rule['alert']}` |" in DOCUMENT
    assert re.findall(r"^\| `(AiMux\w+)`", DOCUMENT, re.M) == names


def test_panels_stand_beside_each_other_and_have_numbers_of_their_own():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))


def test_the_reference_has_every_metric_with_its_type_and_labels_and_no_other(process_metrics):
    rows = re.findall(r"^\| `(ai_mux_\w+)` \| (\w+) \| ([^|]*)\|", DOCUMENT, re.M)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == {name: (one.kind, one.labels) for name, one in METRICS.items()}
    assert [name for name, *_ in rows] == list(METRICS)
    for name in process_metrics:
        assert f"`{name}`" in DOCUMENT


def test_names_keep_to_the_conventions():
    for one in METRICS.values():
        assert one.name.startswith("ai_mux_")
        assert (one.kind == "counter") == one.name.endswith("_total"), one.name
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent|minutes|hours)(_|$)", one.name), one.name
        assert one.help.endswith(".")
