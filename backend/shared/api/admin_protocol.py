"""What the `/dual-write` routes and the command line ask of a service's manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from backend.shared.domain.phases import Phase, Side
from backend.shared.observability.admin_views import (
    ConfigView,
    ConflictView,
    FailureView,
    HealthView,
    MismatchView,
    OperationTestView,
    OverviewView,
    PhaseChangeView,
    PhaseHistoryView,
    SettingValue,
    SettlementView,
    StatusView,
    ValidationView,
)
from backend.shared.observability.metrics_snapshot import MetricsSnapshot

__all__ = [
    "ConfigView",
    "ConflictView",
    "DualWriteAdmin",
    "FailureView",
    "HealthView",
    "MetricsSnapshot",
    "MismatchView",
    "OperationTestView",
    "OverviewView",
    "PhaseChangeView",
    "PhaseHistoryView",
    "SettingValue",
    "SettlementView",
    "StatusView",
    "ValidationView",
]


class DualWriteAdmin(Protocol):
    """The operator's side of a `DualWriteManager`.

    All of it raises `SideError` when a database does not answer, and an error of the `ValidationError` tree for bad
    input: an entity, key, failure or setting that does not exist or does not fit.
    """

    async def status(self) -> StatusView:
        """Phase, settings and backlog."""

    async def health(self) -> HealthView:
        """Both sides and their pools; answers even when a side does not."""

    def metrics_snapshot(self) -> MetricsSnapshot:
        """Counts and latencies of this process. Asks no database."""

    async def validate_key(self, key: str, *, entity: str | None, show_values: bool) -> ValidationView:
        """Compare one key now. `entity` may be None when the service has one entity only."""

    async def test_operation(self) -> OperationTestView:
        """Write a probe, carry it, compare it, and remove it from both sides."""

    async def list_failures(
        self, *, limit: int, after_id: int | None = None, entity: str | None = None
    ) -> Sequence[FailureView]:
        """Up to `limit` open failures with ids above `after_id`, by rising id."""

    async def list_mismatches(
        self, *, limit: int, after_id: int | None = None, entity: str | None = None
    ) -> Sequence[MismatchView]:
        """Up to `limit` open mismatches with ids above `after_id`, by rising id."""

    async def retry_failure(self, failure_id: int) -> FailureView:
        """Put a failed key back on its way. May be repeated. Raises NotFoundError when there is none."""

    async def list_conflicts(
        self, *, limit: int, after_id: str | None = None, entity: str | None = None, show_values: bool = False
    ) -> Sequence[ConflictView]:
        """Up to `limit` open conflicts past the one named `after_id`."""

    async def settle_conflict(
        self, conflict_id: str, *, keep: Side, by: str, dry_run: bool, show_values: bool
    ) -> SettlementView:
        """Settle a conflict. May be repeated. Raises NotFoundError when there is none, ConflictError if settled otherwise."""

    async def change_config(self, changes: Mapping[str, SettingValue]) -> ConfigView:
        """Change settings at run time, for every replica; all of `changes` or none."""

    async def change_phase(
        self, to: Phase, *, dry_run: bool, by: str, reason: str, force: Sequence[str]
    ) -> PhaseChangeView:
        """Go to a phase, a step at a time. Raises ConflictError when a gate is shut or the step is not allowed."""

    async def overview(self) -> OverviewView:
        """The service in one screen."""

    async def phase_history(self, *, limit: int) -> Sequence[PhaseHistoryView]:
        """The latest changes of the phase, newest first."""
