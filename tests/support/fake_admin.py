"""The operator's side of a manager, answered from memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backend.shared.domain.errors import ConflictError, LegacySideError, NotFoundError
from backend.shared.domain.phases import Phase, Side
from backend.shared.observability.admin_views import (
    ChangedFieldView,
    ConfigView,
    ConflictView,
    FailureView,
    FieldDifferenceView,
    GateView,
    HealthView,
    MismatchView,
    OperationTestView,
    OverviewView,
    PhaseChangeView,
    PhaseHistoryView,
    PoolView,
    SettingValue,
    SettlementView,
    SideHealthView,
    StatusView,
    ValidationView,
)
from backend.shared.observability.labels import BreakerState, Verdict
from backend.shared.observability.metrics import Metrics
from backend.shared.observability.metrics_snapshot import MetricsSnapshot

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def _failure(number: int) -> FailureView:
    return FailureView(
        id=number,
        service="cart",
        entity="cart",
        key=str(number),
        direction="to_legacy",
        state="failed",
        attempts=3,
        error="value too long",
        first_failed_at=NOW,
        last_failed_at=NOW,
    )


def _mismatch(number: int) -> MismatchView:
    return MismatchView(
        id=number,
        service="cart",
        entity="cart",
        key=f"[{number}]",
        kind="different",
        fields=("carts.status",),
        first_run=1,
        last_run=2,
        first_seen_at=NOW,
        last_seen_at=NOW,
    )


def _conflict(number: int) -> ConflictView:
    return ConflictView(
        id=f"cart-legacy-{number}",
        service="cart",
        side=Side.LEGACY,
        entity="cart",
        key=f"[{number}]",
        operation="update",
        table="carts",
        fields=(ChangedFieldView(field="carts.status"),),
        written_at=NOW,
        written_by="old_program",
        application="month-end",
        detail=None,
    )


class FakeAdmin:
    """Answers from memory, and remembers what it was asked."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.asked: list[tuple[str, Any]] = []
        self.failures = [_failure(number) for number in range(1, 6)]
        self.mismatches = [_mismatch(number) for number in range(1, 6)]
        self.conflicts = [_conflict(number) for number in range(1, 6)]
        self.down = False

    async def status(self) -> StatusView:
        if self.down:
            raise LegacySideError("gone", unavailable=True)
        return StatusView(
            service="cart",
            phase=Phase.DUALWRITE,
            epoch=1,
            authoritative=Side.LEGACY,
            secondary=Side.NEW,
            dual_write_enabled=True,
            relay_running=True,
            lag_seconds=0.5,
            journal_rows=2,
            failures_open=0,
            entities=("cart",),
            settings={"batch_size": 100, "retry_delay": 5.0, "enabled": True, "phase": None},
        )

    async def health(self) -> HealthView:
        pool = PoolView(size_count=10, in_use_count=1, waiting_count=0)
        side = SideHealthView(
            side=Side.LEGACY, ok=True, breaker=BreakerState.CLOSED, latency_seconds=0.001, pool=pool
        )
        return HealthView(service="cart", ok=True, sides=(side,), relay_running=True)

    def metrics_snapshot(self) -> MetricsSnapshot:
        return self._metrics.snapshot("cart")

    async def validate_key(self, key: str, *, entity: str | None, show_values: bool) -> ValidationView:
        self.asked.append(("validate", (key, entity, show_values)))
        if entity == "ghost":
            raise NotFoundError("no entity ghost")
        return ValidationView(
            service="cart",
            entity=entity or "cart",
            key=key,
            verdict=Verdict.DIFFERENT,
            in_legacy=True,
            in_new=True,
            differences=(FieldDifferenceView(field="status"),),
        )

    async def test_operation(self) -> OperationTestView:
        return OperationTestView(
            service="cart",
            entity="cart",
            success=True,
            new_db_success=True,
            legacy_db_success=True,
            sync_validated=True,
            cleaned_up=True,
            duration_seconds=0.1,
        )

    async def list_failures(
        self, *, limit: int, after_id: int | None = None, entity: str | None = None
    ) -> Sequence[FailureView]:
        return [failure for failure in self.failures if failure.id > (after_id or 0)][:limit]

    async def list_mismatches(
        self, *, limit: int, after_id: int | None = None, entity: str | None = None
    ) -> Sequence[MismatchView]:
        return [mismatch for mismatch in self.mismatches if mismatch.id > (after_id or 0)][:limit]

    async def list_conflicts(
        self, *, limit: int, after_id: str | None = None, entity: str | None = None, show_values: bool = False
    ) -> Sequence[ConflictView]:
        after = int(after_id.rpartition("-")[2]) if after_id else 0
        return self.conflicts[after:][:limit]

    async def settle_conflict(
        self, conflict_id: str, *, keep: Side, by: str, dry_run: bool, show_values: bool
    ) -> SettlementView:
        self.asked.append(("settle", (conflict_id, keep, by, dry_run)))
        if conflict_id == "cart-legacy-6":
            raise NotFoundError("there is no conflict cart-legacy-6")
        if conflict_id == "cart-legacy-5":
            raise ConflictError("cart-legacy-5 was settled by ada: kept new")
        return SettlementView(
            id=conflict_id,
            service="cart",
            entity="cart",
            key="[1]",
            keep=keep,
            settled=not dry_run,
            outcome="settled",
            detail="",
        )

    async def retry_failure(self, failure_id: int) -> FailureView:
        if failure_id > 5:
            raise NotFoundError(f"no failure {failure_id}")
        return _failure(failure_id)

    async def change_config(self, changes: Mapping[str, SettingValue]) -> ConfigView:
        self.asked.append(("config", dict(changes)))
        return ConfigView(service="cart", settings=changes, changed=tuple(changes))

    async def overview(self) -> OverviewView:
        return OverviewView(
            service="cart",
            phase=Phase.DUALWRITE,
            epoch=1,
            authoritative=Side.LEGACY,
            changed_at=NOW,
            changed_by="ada",
            reason="a try",
            unfinished=None,
            replicas=(),
            lag_seconds=0.5,
            journal_rows=2,
            failures_open=0,
            conflicts_open=0,
            validation=(),
            next_phase=Phase.SHADOW,
            gates=(GateView(name="backfill", is_open=False, figure="not begun", remedy="run it"),),
        )

    async def phase_history(self, *, limit: int) -> Sequence[PhaseHistoryView]:
        return []

    async def change_phase(
        self, to: Phase, *, dry_run: bool, by: str, reason: str, force: Sequence[str]
    ) -> PhaseChangeView:
        self.asked.append(("phase", (by, reason, list(force))))
        if to is Phase.COMPLETE:
            raise ConflictError("only one step at a time")
        return PhaseChangeView(
            service="cart",
            from_phase=Phase.DUALWRITE,
            to_phase=to,
            dry_run=dry_run,
            changed=not dry_run,
            epoch=1,
            steps=("close legacy",),
        )
