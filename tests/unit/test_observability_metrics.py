"""Metrics: well named, closed in their labels, readable by Prometheus and as JSON."""

from __future__ import annotations

import json
import re

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.observability.labels import (
    BreakerState,
    OperationOutcome,
    ReadOutcome,
    ShadowOutcome,
    Verdict,
)
from backend.shared.observability.message_metrics import MessageMetrics
from backend.shared.observability.metrics import Metrics, default_metrics
from backend.shared.observability.metrics_snapshot import estimate_quantile


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics(CollectorRegistry())
    made.declare("cart", operations=("create_cart",), entities=("cart",))
    return made


def _everything(metrics: Metrics, *, service: str, value: str) -> None:
    """Call each method, with `value` for every label."""
    metrics.operation_finished(service=service, operation=value, side=value, outcome=value, seconds=0.004)
    metrics.read_answered(service=service, side=value, outcome=value)
    metrics.shadow_read_finished(service=service, outcome=value)
    metrics.relay_batch_finished(
        service=service, direction=value, carried=5, skipped=2, refused=1, waiting=1, seconds=0.1
    )
    metrics.journal_measured(service=service, direction=value, rows_count=3, lag_seconds=1.5)
    metrics.failures_counted(service=service, direction=value, open_count=1)
    metrics.conflicts_counted(service=service, side=value, open_count=1)
    metrics.breaker_changed(service=service, side=value, state=value)
    metrics.pool_measured(service=service, side=value, in_use_count=2, waiting_count=0, size_count=10)
    metrics.entity_validated(service=service, entity=value, kind=value, verdict=value)
    metrics.phase_changed(service=service, phase=value)
    _everything_of_messages(metrics.messages, service=service, value=value)


def _everything_of_messages(messages: MessageMetrics, *, service: str, value: str) -> None:
    messages.delivery_finished(service=service, kind=value, outcome=value)
    messages.taking_finished(service=service, kind=value, outcome=value, seconds=0.1, age_seconds=2.0)
    messages.outbox_measured(service=service, side=value, rows_count=3, age_seconds=1.5, undelivered_count=1)
    messages.dead_letters_counted(service=service, open_count=1)
    messages.broker_seen(service=service, state=value)
    messages.sagas_measured(service=service, style=value, state=value, open_count=1, age_seconds=1.0)
    messages.saga_finished(service=service, style=value, state=value, seconds=0.5)
    messages.rows_pruned(service=service, table=value, rows_count=1)


def test_names_follow_the_house_rule(metrics: Metrics) -> None:
    _everything(metrics, service="cart", value="x")
    for family in text_string_to_metric_families(metrics.render().decode()):
        assert (
            re.fullmatch(
                r"dualwrite_[a-z_]+_(total|seconds|rows|open|state|connections|requests)", family.name
            )
            or family.type == "counter"
        ), family.name
        assert family.name.startswith("dualwrite_")
        assert family.documentation


def test_labels_are_closed_whatever_comes_in(metrics: Metrics) -> None:
    before: set[str] | None = None
    for number in range(50):
        _everything(metrics, service=f"service-{number}", value=f"value-{number}")
        _everything(metrics, service="cart", value=f"value-{number}")
        series = {
            f"{sample.name}{sorted(sample.labels.items())}"
            for family in metrics.collect()
            for sample in family.samples
        }
        assert before is None or series == before
        before = series
    assert "value-" not in metrics.render().decode()
    assert "service-" not in metrics.render().decode()


def test_counts_are_those_of_the_events(metrics: Metrics) -> None:
    for _ in range(3):
        metrics.operation_finished(
            service="cart",
            operation="create_cart",
            side=Side.NEW,
            outcome=OperationOutcome.SUCCEEDED,
            seconds=0.004,
        )
    metrics.operation_finished(
        service="cart", operation="create_cart", side=Side.LEGACY, outcome=OperationOutcome.PENDING
    )
    value = metrics.registry.get_sample_value
    labels = {"service": "cart", "operation": "create_cart", "side": "new", "outcome": "succeeded"}
    assert value("dualwrite_operations_total", labels) == 3
    assert value("dualwrite_operation_duration_seconds_count", {"service": "cart", "side": "new"}) == 3
    assert value("dualwrite_operation_duration_seconds_count", {"service": "cart", "side": "legacy"}) is None


def test_the_snapshot_is_json_and_says_the_same(metrics: Metrics) -> None:
    metrics.operation_finished(
        service="cart",
        operation="create_cart",
        side=Side.NEW,
        outcome=OperationOutcome.SUCCEEDED,
        seconds=0.004,
    )
    metrics.relay_batch_finished(
        service="cart", direction=Direction.TO_LEGACY, carried=5, skipped=2, seconds=0.02
    )
    metrics.journal_measured(service="cart", direction=Direction.TO_LEGACY, rows_count=3, lag_seconds=1.5)
    metrics.failures_counted(service="cart", direction=Direction.TO_LEGACY, open_count=4)
    metrics.breaker_changed(service="cart", side=Side.LEGACY, state=BreakerState.OPEN)
    metrics.breaker_changed(service="cart", side=Side.LEGACY, state=BreakerState.HALF_OPEN)
    metrics.pool_measured(service="cart", side=Side.NEW, in_use_count=2, waiting_count=1, size_count=10)
    metrics.read_answered(service="cart", side=Side.NEW, outcome=ReadOutcome.RAMPED)
    metrics.shadow_read_finished(service="cart", outcome=ShadowOutcome.MISMATCH)
    for kind in ("full", "changed"):
        metrics.entity_validated(service="cart", entity="cart", kind=kind, verdict=Verdict.EQUAL)
    metrics.phase_changed(service="cart", phase=Phase.DUALWRITE)
    metrics.phase_changed(service="cart", phase=Phase.RAMPDOWN)
    snapshot = json.loads(json.dumps(metrics.snapshot("cart").to_dict(), allow_nan=False))
    assert snapshot["phase"] == "rampdown"
    assert snapshot["operations"] == [
        {"operation": "create_cart", "side": "new", "outcome": "succeeded", "count": 1}
    ]
    assert snapshot["reads"] == {"new": {"ramped": 1}}
    assert snapshot["shadow_reads"] == {"mismatch": 1}
    assert snapshot["latency"]["new"]["count"] == 1
    assert 0.003 <= snapshot["latency"]["new"]["p50_seconds"] <= 0.005
    assert snapshot["lag_seconds"] == {"to_legacy": 1.5}
    assert snapshot["journal_rows"] == {"to_legacy": 3}
    assert snapshot["failures_open"] == {"to_legacy": 4}
    assert snapshot["relay_keys"] == {"to_legacy": {"carried": 5, "skipped": 2}}
    assert snapshot["relay_batches"] == {"to_legacy": 1}
    assert snapshot["breakers"] == {"legacy": "half_open"}
    assert snapshot["pools"] == {"new": {"in_use_count": 2, "waiting_count": 1, "size_count": 10}}
    assert snapshot["validations"] == [{"entity": "cart", "verdict": "equal", "count": 2}]


def test_an_empty_snapshot_is_json(metrics: Metrics) -> None:
    snapshot = json.loads(json.dumps(metrics.snapshot("cart").to_dict(), allow_nan=False))
    assert snapshot["operations"] == []
    assert snapshot["phase"] is None


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_broken_clock_breaks_nothing(metrics: Metrics, seconds: float) -> None:
    metrics.operation_finished(
        service="cart", operation="create_cart", side=Side.NEW, outcome="succeeded", seconds=seconds
    )
    metrics.journal_measured(service="cart", direction=Direction.TO_NEW, rows_count=0, lag_seconds=seconds)
    json.dumps(metrics.snapshot("cart").to_dict(), allow_nan=False)


def test_counting_can_be_switched_off_for_one_service(metrics: Metrics) -> None:
    metrics.declare("auth", operations=("create_user",))
    metrics.set_enabled("cart", enabled=False)
    _everything(metrics, service="cart", value="new")
    metrics.operation_finished(service="auth", operation="create_user", side="new", outcome="succeeded")
    text = metrics.render().decode()
    assert 'service="cart"' not in text
    assert 'service="auth"' in text
    metrics.set_enabled("cart", enabled=True)
    _everything(metrics, service="cart", value="new")
    assert 'service="cart"' in metrics.render().decode()


def test_default_metrics_are_made_once_and_tell_of_the_process() -> None:
    assert default_metrics() is default_metrics()
    families = {family.name for family in text_string_to_metric_families(default_metrics().render().decode())}
    assert "python_info" in families


def test_no_creation_times(metrics: Metrics) -> None:
    _everything(metrics, service="cart", value="new")
    assert "_created" not in metrics.render().decode()


def test_what_is_declared_of_messages_keeps_its_name(metrics: Metrics) -> None:
    metrics.declare("cart", messages=("CartOrdered",), sagas=(("orchestrated", "running"),))
    for kind in ("CartOrdered", "what somebody else sends"):
        metrics.messages.taking_finished(service="cart", kind=kind, outcome="repeated")
    for state in ("running", "lost"):
        metrics.messages.sagas_measured(
            service="cart", style="orchestrated", state=state, open_count=2, age_seconds=1.0
        )
    value = metrics.registry.get_sample_value
    for kind in ("CartOrdered", "other"):
        labels = {"service": "cart", "type": kind, "outcome": "repeated"}
        assert value("dualwrite_messages_total", labels) == 1
    for style, state in (("orchestrated", "running"), ("other", "other")):
        assert value("dualwrite_sagas_open", {"service": "cart", "style": style, "state": state}) == 2


def test_a_side_that_was_let_go_is_shown_no_longer(metrics: Metrics) -> None:
    for side in Side:
        metrics.messages.outbox_measured(
            service="cart", side=side, rows_count=3, age_seconds=9.0, undelivered_count=1
        )
    for _ in range(2):
        metrics.messages.outbox_let_go(service="cart", side=Side.LEGACY)
    shown = [line for line in metrics.render().decode().splitlines() if line.startswith("dualwrite_outbox")]
    assert len(shown) == 3
    assert all('side="new"' in line for line in shown)


INF = float("inf")


@pytest.mark.parametrize(
    ("buckets", "quantile", "expected"),
    [
        ([(1.0, 0.0), (INF, 0.0)], 0.5, None),
        ([(1.0, 10.0), (INF, 10.0)], 0.5, 0.5),
        ([(1.0, 0.0), (2.0, 10.0), (INF, 10.0)], 0.5, 1.5),
        ([(1.0, 5.0), (2.0, 10.0), (INF, 10.0)], 1.0, 2.0),
        ([(1.0, 0.0), (INF, 10.0)], 0.99, 1.0),
    ],
)
def test_estimated_quantiles(
    buckets: list[tuple[float, float]], quantile: float, expected: float | None
) -> None:
    assert estimate_quantile(buckets, quantile) == expected
