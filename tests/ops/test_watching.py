"""Alert rules and the dashboard speak of metrics that exist, with labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from shared import metrics
from shared.ops import doctor

ROOT = Path(__file__).resolve().parents[2]
RULES: list[dict[str, Any]] = yaml.safe_load((ROOT / "ops" / "alerts.yaml").read_text())["groups"][0]["rules"]
PANELS = [p for p in json.loads((ROOT / "ops" / "dashboard.json").read_text())["panels"] if p["type"] != "row"]
EXPRESSIONS = [r["expr"] for r in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]
OURS = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
OF_THE_SCRAPE = {"job", "instance", "le"}


def series() -> dict[str, set[str]]:
    """Each series that a process shows → its labels."""
    found: dict[str, set[str]] = {}
    for metric in OURS:
        described = next(iter(metric.describe()))
        ending = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(described.type, ("",))
        for suffix in ending:
            found[described.name + suffix] = set(metric._labelnames)
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_watched_exists_in_the_code_with_the_labels_that_are_asked(expression: str) -> None:
    known = series()
    named = re.findall(r"\b(training_\w+|up)\b", expression)
    assert named and set(named) <= {*known, "up"}, expression
    labels = {label for name in named for label in known.get(name, set())} | OF_THE_SCRAPE
    grouped = {
        label.strip() for inside in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for label in inside.split(",")
    }
    asked = set(re.findall(r"[{,]\s*(\w+)\s*=~?", expression))
    assert grouped | asked <= labels, expression


def test_every_metric_of_the_code_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    for metric in OURS:
        assert re.search(rf"\b{next(iter(metric.describe())).name}", shown), metric
    assert all(panel["description"] for panel in PANELS)


def test_an_alert_begins_where_doctor_begins_to_complain() -> None:
    limits = {r["alert"]: float(r["expr"].rpartition(">")[2]) for r in RULES if ">" in r["expr"]}
    assert limits["OutboxWaits"] == doctor.OUTBOX_SECONDS
    assert limits["GroupBehind"] == doctor.LAG_RECORDS
    assert limits["ClockSkewed"] == doctor.SKEW_SECONDS
    assert limits["TimersOverdue"] == doctor.OVERDUE.total_seconds()


def test_every_alert_says_whom_it_wakes_and_what_to_do_and_is_on_the_operators_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"] and rule["annotations"]["do"]
        assert f"| {rule['alert']} |" in page, rule["alert"]
