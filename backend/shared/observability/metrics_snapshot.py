"""The metrics of one service as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample


@dataclass(frozen=True, kw_only=True)
class OperationCount:
    """How often an operation ended so on a side."""

    operation: str
    side: str
    outcome: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Durations in seconds. The percentiles are estimates from histogram buckets; None where nothing was timed."""

    count: int
    mean_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class PoolUse:
    """The connection pool of one side."""

    in_use_count: int
    waiting_count: int
    size_count: int


@dataclass(frozen=True, kw_only=True)
class ValidationCount:
    """How often the validator said so of an entity."""

    entity: str
    verdict: str
    count: int


@dataclass(frozen=True, kw_only=True)
class MetricsSnapshot:
    """Counts since the process began, and the state last measured. Mappings go by side, direction or outcome."""

    service: str
    phase: str | None
    operations: tuple[OperationCount, ...]
    reads: Mapping[str, Mapping[str, int]]
    shadow_reads: Mapping[str, int]
    latency: Mapping[str, Latency]
    lag_seconds: Mapping[str, float]
    journal_rows: Mapping[str, int]
    failures_open: Mapping[str, int]
    conflicts_open: Mapping[str, int]
    relay_keys: Mapping[str, Mapping[str, int]]
    failed_keys: Mapping[str, Mapping[str, int]]
    relay_batches: Mapping[str, int]
    relay_batch_latency: Mapping[str, Latency]
    breakers: Mapping[str, str]
    pools: Mapping[str, PoolUse]
    validations: tuple[ValidationCount, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


class _Reader:
    """Finds samples of one service by name."""

    def __init__(self, families: Iterable[Metric], *, service: str) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for family in families:
            for sample in family.samples:
                if sample.labels.get("service") == service:
                    self._samples.setdefault(sample.name, []).append(sample)

    def samples(self, name: str) -> Iterator[Sample]:
        yield from self._samples.get(f"dualwrite_{name}", ())

    def by(self, name: str, label: str) -> dict[str, float]:
        return {sample.labels[label]: sample.value for sample in self.samples(name)}

    def counts(self, name: str, label: str) -> dict[str, int]:
        return {key: int(value) for key, value in self.by(name, label).items()}

    def counts_by(self, name: str, label: str, *, within: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for sample in self.samples(name):
            found.setdefault(sample.labels[within], {})[sample.labels[label]] = int(sample.value)
        return found

    def active(self, name: str, label: str) -> Iterator[Sample]:
        return (sample for sample in self.samples(name) if sample.value == 1 and label in sample.labels)

    def latencies(self, name: str, label: str) -> dict[str, Latency]:
        sums = self.by(f"{name}_sum", label)
        buckets: dict[str, list[tuple[float, float]]] = {}
        for sample in self.samples(f"{name}_bucket"):
            buckets.setdefault(sample.labels[label], []).append((float(sample.labels["le"]), sample.value))
        return {key: _latency(found, total_seconds=sums.get(key, 0.0)) for key, found in buckets.items()}


def snapshot_of(families: Iterable[Metric], *, service: str) -> MetricsSnapshot:
    """Read one service's snapshot out of collected families."""
    reader = _Reader(families, service=service)
    return MetricsSnapshot(
        service=service,
        phase=next((sample.labels["phase"] for sample in reader.active("phase_state", "phase")), None),
        operations=_operations(reader),
        reads=reader.counts_by("reads_total", "outcome", within="side"),
        shadow_reads=reader.counts("shadow_reads_total", "outcome"),
        latency=reader.latencies("operation_duration_seconds", "side"),
        lag_seconds=reader.by("lag_seconds", "direction"),
        journal_rows=reader.counts("journal_rows", "direction"),
        failures_open=reader.counts("failures_open", "direction"),
        relay_keys=reader.counts_by("relay_keys_total", "outcome", within="direction"),
        conflicts_open=reader.counts("conflicts_open", "side"),
        failed_keys=reader.counts_by("failed_keys_total", "kind", within="direction"),
        relay_batches=reader.counts("relay_batches_total", "direction"),
        relay_batch_latency=reader.latencies("relay_batch_duration_seconds", "direction"),
        breakers={
            sample.labels["side"]: sample.labels["state"]
            for sample in reader.active("breaker_state", "state")
        },
        pools=_pools(reader),
        validations=_validations(reader),
    )


def _operations(reader: _Reader) -> tuple[OperationCount, ...]:
    return tuple(
        OperationCount(
            operation=sample.labels["operation"],
            side=sample.labels["side"],
            outcome=sample.labels["outcome"],
            count=int(sample.value),
        )
        for sample in reader.samples("operations_total")
    )


def _validations(reader: _Reader) -> tuple[ValidationCount, ...]:
    """By entity and verdict, whatever kind of run said so."""
    counts: dict[tuple[str, str], int] = {}
    for sample in reader.samples("validations_total"):
        said = sample.labels["entity"], sample.labels["verdict"]
        counts[said] = counts.get(said, 0) + int(sample.value)
    return tuple(
        ValidationCount(entity=entity, verdict=verdict, count=count)
        for (entity, verdict), count in counts.items()
    )


def _pools(reader: _Reader) -> dict[str, PoolUse]:
    in_use = reader.counts("pool_in_use_connections", "side")
    waiting = reader.counts("pool_waiting_requests", "side")
    return {
        side: PoolUse(in_use_count=in_use.get(side, 0), waiting_count=waiting.get(side, 0), size_count=size)
        for side, size in reader.counts("pool_size_connections", "side").items()
    }


def _latency(buckets: list[tuple[float, float]], *, total_seconds: float) -> Latency:
    ordered = sorted(buckets)
    count = int(ordered[-1][1])
    return Latency(
        count=count,
        mean_seconds=total_seconds / count if count else None,
        p50_seconds=estimate_quantile(ordered, 0.50),
        p95_seconds=estimate_quantile(ordered, 0.95),
        p99_seconds=estimate_quantile(ordered, 0.99),
    )


def estimate_quantile(buckets: list[tuple[float, float]], quantile: float) -> float | None:
    """The quantile by linear interpolation inside its bucket, as Prometheus' `histogram_quantile` does it.

    `buckets` are (upper bound, cumulative count) in rising order, the last bound infinite. None without observations;
    the highest finite bound for what lies above it.
    """
    total = buckets[-1][1]
    if total <= 0:
        return None
    rank = quantile * total
    lower_bound, lower_count = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if math.isinf(bound):
                return lower_bound
            share = (rank - lower_count) / (count - lower_count) if count > lower_count else 1.0
            return lower_bound + (bound - lower_bound) * share
        lower_bound, lower_count = bound, count
    return lower_bound
