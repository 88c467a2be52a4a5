"""Alerts ask for metrics that exist, by labels that these have; promtool has a case for each alert on messages."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it comes without types, and one test is no reason for stubs
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from backend.shared.events.saga import STUCK_SECONDS, SagaState
from backend.shared.observability.labels import BrokerState
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.programs import REPOSITORY

_FOLDER = REPOSITORY / "deploy" / "prometheus"
_GROUPS = yaml.safe_load((_FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
_CASES = yaml.safe_load((_FOLDER / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
_RULES: list[dict[str, Any]] = [rule for group in _GROUPS for rule in group["rules"]]
_ASKED = re.compile(r"(dualwrite_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)(?:=~|!~|!=|=)")
_BY = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def _labels() -> dict[str, set[str]]:
    """The labels of each metric, by the name that a rule asks for it."""
    metrics = Metrics(CollectorRegistry())
    found: dict[str, set[str]] = {}
    for part in (metrics, metrics.messages):
        for collector in vars(part).values():
            if isinstance(collector, MetricWrapperBase):
                (family,) = collector.describe()
                suffix = "_total" if family.type == "counter" else ""
                found[f"{family.name}{suffix}"] = set(collector._labelnames)
    return found


@pytest.mark.parametrize("rule", _RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    known = _labels()
    for name, matchers in _ASKED.findall(rule["expr"]):
        assert name in known
        assert set(_LABEL.findall(matchers)) <= known[name]
        for group in _BY.findall(rule["expr"]):
            assert {label.strip() for label in group.split(",")} <= known[name], name
    assert rule["labels"]["severity"] in ("page", "warn")
    assert rule["annotations"]["page"]


def test_each_alert_on_messages_has_a_case_in_which_it_rings_and_one_in_which_it_does_not() -> None:
    (messages,) = [group for group in _GROUPS if group["name"] == "tandem-messages"]
    checks = [check for case in _CASES for check in case["alert_rule_test"]]
    for rule in messages["rules"]:
        rings = {bool(check.get("exp_alerts")) for check in checks if check["alertname"] == rule["alert"]}
        assert rings == {True, False}, rule["alert"]


def test_states_in_alerts_are_those_of_the_code() -> None:
    asked = {rule["alert"]: rule["expr"] for rule in _RULES}
    assert f'state="{SagaState.NEEDS_REVIEW.value}"' in asked["TandemSagaNeedsReview"]
    moving = [s.value for s in SagaState if not s.is_final and s is not SagaState.NEEDS_REVIEW]
    assert f'state=~"{"|".join(moving)}"' in asked["TandemSagaStuck"]
    assert asked["TandemSagaStuck"].endswith(f"> {STUCK_SECONDS:g}")
    assert f'state="{BrokerState.AWAY.value}"' in asked["TandemBrokerAway"]
