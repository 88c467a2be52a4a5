"""All Prometheus collectors, and one method for each event worth counting.

Names follow `dualwrite_<noun>_<unit>[_total]`. The engine calls methods and never sees a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.observability.labels import (
    BreakerState,
    DeclaredLabels,
    FailureKind,
    OperationOutcome,
    ReadOutcome,
    RelayOutcome,
    RunKind,
    ShadowOutcome,
    Verdict,
    closed,
)
from backend.shared.observability.message_metrics import MessageMetrics
from backend.shared.observability.metrics_snapshot import MetricsSnapshot, snapshot_of
from backend.shared.observability.samples import not_negative, set_state

PROMETHEUS_CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# From a local commit (a quarter of a millisecond) to a request that has given up.
_LATENCY_BUCKETS = (
    *(0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


class Metrics:
    """Every collector of Tandem, registered in the `registry` given.

    Services, operations and entities are closed sets too: `declare` them before they are counted. No method raises for
    a label value, however strange, and none of them waits.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._labels = DeclaredLabels()
        self._make_operation_collectors(registry)
        self._make_read_collectors(registry)
        self._make_relay_collectors(registry)
        self._make_state_collectors(registry)
        self.messages = MessageMetrics(registry, self._labels)
        """What is counted of messages and sagas."""

    def _make_operation_collectors(self, registry: CollectorRegistry) -> None:
        self.operations = Counter(
            "dualwrite_operations_total",
            "Operations, by the side they ran on and how they ended there.",
            ("service", "operation", "side", "outcome"),
            registry=registry,
        )
        self.operation_duration = Histogram(
            "dualwrite_operation_duration_seconds",
            "Time that an operation spent on one side.",
            ("service", "side"),
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.validations = Counter(
            "dualwrite_validations_total",
            "Verdicts of the validator, one per entity and run.",
            ("service", "entity", "kind", "verdict"),
            registry=registry,
        )

    def _make_read_collectors(self, registry: CollectorRegistry) -> None:
        self.reads = Counter(
            "dualwrite_reads_total",
            "Reads, by the side that answered and why it was that one.",
            ("service", "side", "outcome"),
            registry=registry,
        )
        self.shadow_reads = Counter(
            "dualwrite_shadow_reads_total",
            "Reads that the other side was asked too, after the answer, and what came of it.",
            ("service", "outcome"),
            registry=registry,
        )

    def _make_relay_collectors(self, registry: CollectorRegistry) -> None:
        self.relay_keys = Counter(
            "dualwrite_relay_keys_total",
            "Keys that the relay took up, and what became of them.",
            ("service", "direction", "outcome"),
            registry=registry,
        )
        self.failed_keys = Counter(
            "dualwrite_failed_keys_total",
            "Keys that became FAILED, for the first time or again.",
            ("service", "direction", "kind"),
            registry=registry,
        )
        self.capture_gaps = Counter(
            "dualwrite_capture_gaps_total",
            "Times that a change stream could not be gone on with: changes may have been missed.",
            ("service", "side"),
            registry=registry,
        )
        self.relay_batches = Counter(
            "dualwrite_relay_batches_total",
            "Batches that the relay finished.",
            ("service", "direction"),
            registry=registry,
        )
        self.relay_batch_duration = Histogram(
            "dualwrite_relay_batch_duration_seconds",
            "Time from the claim of a batch to its end.",
            ("service", "direction"),
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )

    def _make_state_collectors(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"dualwrite_{name}", text, ("service", *labels), registry=registry)

        self.lag = gauge("lag_seconds", "Age of the oldest journal row that is not carried yet.", "direction")
        self.journal_rows = gauge("journal_rows", "Journal rows that are not carried yet.", "direction")
        self.failures = gauge(
            "failures_open", "Keys that could not be carried and wait for a decision.", "direction"
        )
        self.conflicts = gauge(
            "conflicts_open",
            "Foreign writes to this side, while it was closed, that wait for a decision.",
            "side",
        )
        self.breaker = gauge(
            "breaker_state", "1 for the state that the circuit breaker is in.", "side", "state"
        )
        self.pool_in_use = gauge("pool_in_use_connections", "Connections lent out.", "side")
        self.pool_waiting = gauge("pool_waiting_requests", "Requests that wait for a connection.", "side")
        self.pool_size = gauge("pool_size_connections", "Connections that the pool may open.", "side")
        self.phase = gauge("phase_state", "1 for the phase that holds.", "phase")

    def declare(
        self,
        service: str,
        *,
        operations: Iterable[str] = (),
        entities: Iterable[str] = (),
        messages: Iterable[str] = (),
        sagas: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Add a service, its operations and entities, its types of messages, and the pairs of style and state that its
        sagas may have, to the closed sets; may be repeated.
        """
        self._labels.declare(
            service, operations=operations, entities=entities, messages=messages, sagas=sagas
        )

    def set_enabled(self, service: str, *, enabled: bool) -> None:
        """Switch the counting for one service on or off at run time; what was counted stays."""
        self._labels.set_enabled(service, enabled=enabled)

    def operation_finished(
        self,
        *,
        service: str,
        operation: str,
        side: Side | str,
        outcome: OperationOutcome | str,
        seconds: float | None = None,
    ) -> None:
        """An operation ended on `side`. `seconds` is None where nothing was timed (a write left to the relay)."""
        if not self._labels.is_enabled(service):
            return
        name, where = self._labels.service(service), closed(Side, side)
        operation = self._labels.operation(service, operation)
        self.operations.labels(name, operation, where, closed(OperationOutcome, outcome)).inc()
        if seconds is not None:
            self.operation_duration.labels(name, where).observe(not_negative(seconds))

    def read_answered(self, *, service: str, side: Side | str, outcome: ReadOutcome | str) -> None:
        """A read was answered by `side`, or failed there."""
        if self._labels.is_enabled(service):
            name = self._labels.service(service)
            self.reads.labels(name, closed(Side, side), closed(ReadOutcome, outcome)).inc()

    def shadow_read_finished(self, *, service: str, outcome: ShadowOutcome | str) -> None:
        """An answer was compared with that of the other side, or could not be."""
        if self._labels.is_enabled(service):
            self.shadow_reads.labels(self._labels.service(service), closed(ShadowOutcome, outcome)).inc()

    def relay_batch_finished(
        self,
        *,
        service: str,
        direction: Direction | str,
        carried: int = 0,
        skipped: int = 0,
        refused: int = 0,
        waiting: int = 0,
        failed: int = 0,
        failed_again: int = 0,
        seconds: float | None = None,
    ) -> None:
        """The relay ended a batch; the counts are keys. Those that `failed`, `failed_again` among them, are refused too."""
        if not self._labels.is_enabled(service):
            return
        name, way = self._labels.service(service), closed(Direction, direction)
        counts = {
            RelayOutcome.CARRIED: carried,
            RelayOutcome.SKIPPED: skipped,
            RelayOutcome.REFUSED: refused,
            RelayOutcome.WAITING: waiting,
        }
        for outcome, count in counts.items():
            if count > 0:
                self.relay_keys.labels(name, way, outcome.value).inc(count)
        for kind, count in (
            (FailureKind.FIRST, failed - failed_again),
            (FailureKind.AGAIN, failed_again),
        ):
            if count > 0:
                self.failed_keys.labels(name, way, kind.value).inc(count)
        self.relay_batches.labels(name, way).inc()
        if seconds is not None:
            self.relay_batch_duration.labels(name, way).observe(not_negative(seconds))

    def capture_broken(self, *, service: str, side: Side | str) -> None:
        """Capture on `side` has had a gap that this process found."""
        if self._labels.is_enabled(service):
            self.capture_gaps.labels(self._labels.service(service), closed(Side, side)).inc()

    def journal_measured(
        self, *, service: str, direction: Direction | str, rows_count: int, lag_seconds: float
    ) -> None:
        """The journal was looked at: open rows, and the age of the oldest (0 when there is none)."""
        if self._labels.is_enabled(service):
            labels = self._labels.service(service), closed(Direction, direction)
            self.journal_rows.labels(*labels).set(rows_count)
            self.lag.labels(*labels).set(not_negative(lag_seconds))

    def failures_counted(self, *, service: str, direction: Direction | str, open_count: int) -> None:
        """The failures were counted that nobody has decided yet."""
        if self._labels.is_enabled(service):
            self.failures.labels(self._labels.service(service), closed(Direction, direction)).set(open_count)

    def conflicts_counted(self, *, service: str, side: Side | str, open_count: int) -> None:
        """The conflicts were counted that a side keeps and nobody has settled yet."""
        if self._labels.is_enabled(service):
            self.conflicts.labels(self._labels.service(service), closed(Side, side)).set(open_count)

    def breaker_changed(self, *, service: str, side: Side | str, state: BreakerState | str) -> None:
        """The circuit breaker of `side` is in `state` now."""
        if self._labels.is_enabled(service):
            labels = self._labels.service(service), closed(Side, side)
            set_state(self.breaker, labels, kind=BreakerState, value=state)

    def pool_measured(
        self, *, service: str, side: Side | str, in_use_count: int, waiting_count: int, size_count: int
    ) -> None:
        """The connection pool of `side` was looked at."""
        if self._labels.is_enabled(service):
            labels = self._labels.service(service), closed(Side, side)
            self.pool_in_use.labels(*labels).set(in_use_count)
            self.pool_waiting.labels(*labels).set(waiting_count)
            self.pool_size.labels(*labels).set(size_count)

    def entity_validated(
        self, *, service: str, entity: str, kind: RunKind | str, verdict: Verdict | str
    ) -> None:
        """The validator has finished one entity; `kind` is what it looked at."""
        if self._labels.is_enabled(service):
            name = self._labels.service(service)
            entity = self._labels.entity(service, entity)
            self.validations.labels(name, entity, closed(RunKind, kind), closed(Verdict, verdict)).inc()

    def phase_changed(self, *, service: str, phase: Phase | str) -> None:
        """The process has learnt which phase holds."""
        if self._labels.is_enabled(service):
            set_state(self.phase, (self._labels.service(service),), kind=Phase, value=phase)

    def snapshot(self, service: str) -> MetricsSnapshot:
        """What the collectors say about one service, for people and programs without Prometheus."""
        return snapshot_of(self.collect(), service=self._labels.service(service))

    def collect(self) -> Iterator[Metric]:
        """All families of the registry, without the creation times that clients add to each series."""
        for family in self.registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family

    def render(self) -> bytes:
        """The Prometheus text format; its content type is `PROMETHEUS_CONTENT_TYPE`."""
        return generate_latest(_Families(self))


class _Families(Collector):
    """Lets the exposition read `Metrics.collect`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.collect()


@cache
def default_metrics() -> Metrics:
    """The metrics of this process, with those of the process itself; made at the first call."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return Metrics(registry)
