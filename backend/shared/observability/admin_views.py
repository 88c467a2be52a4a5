"""What an engine answers to its operators: plain frozen data, the same for the HTTP routes and the command line.

It stands here, below the manager that fills it and the routes that show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from backend.shared.domain.phases import Phase, Side
from backend.shared.observability.health import ComponentHealth
from backend.shared.observability.labels import BreakerState, Verdict

SettingValue = bool | int | float | str | None


@dataclass(frozen=True, kw_only=True)
class StatusView:
    """Where a service stands. `settings` holds no secrets; `lag_seconds` is the age of the oldest open journal row."""

    service: str
    phase: Phase
    epoch: int
    authoritative: Side
    secondary: Side | None
    dual_write_enabled: bool
    relay_running: bool
    lag_seconds: float
    journal_rows: int
    failures_open: int
    entities: tuple[str, ...]
    settings: Mapping[str, SettingValue]


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """The connection pool of one side."""

    size_count: int
    in_use_count: int
    waiting_count: int


@dataclass(frozen=True, kw_only=True)
class SideHealthView:
    """One database as this process sees it."""

    side: Side
    ok: bool
    breaker: BreakerState
    latency_seconds: float | None
    pool: PoolView | None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class HealthView:
    """Both sides, and whatever else is asked. `ok` is True when everything works that the phase needs."""

    service: str
    ok: bool
    sides: tuple[SideHealthView, ...]
    relay_running: bool
    others: tuple[ComponentHealth, ...] = ()
    """What else the service stands on, such as a message broker."""


@dataclass(frozen=True, kw_only=True)
class FieldDifferenceView:
    """One field that differs; the values are None unless they were asked for, and always for secret fields."""

    field: str
    legacy: str | None = None
    new: str | None = None


@dataclass(frozen=True, kw_only=True)
class ValidationView:
    """One key compared on both sides. `incomplete`: still on its way, look again."""

    service: str
    entity: str
    key: str
    verdict: Verdict
    in_legacy: bool | None
    in_new: bool | None
    differences: tuple[FieldDifferenceView, ...] = ()
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class OperationTestView:
    """A probe that was written, carried, compared and removed again."""

    service: str
    entity: str
    success: bool
    new_db_success: bool
    legacy_db_success: bool
    sync_validated: bool
    cleaned_up: bool
    duration_seconds: float
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class FailureView:
    """A key that could not be carried: kept until somebody decides. `error` holds no row values."""

    id: int
    service: str
    entity: str
    key: str
    direction: str
    state: str
    attempts: int
    error: str
    first_failed_at: datetime
    last_failed_at: datetime


@dataclass(frozen=True, kw_only=True)
class MismatchView:
    """A key that differs, as the validator has kept it: from the first run that saw it to the last. Holds no values."""

    id: int
    service: str
    entity: str
    key: str
    kind: str
    fields: tuple[str, ...]
    first_run: int
    last_run: int
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class ChangedFieldView:
    """A field before and after; both None where values were not asked for, else None is no row. Secret ones are hidden."""

    field: str
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True, kw_only=True)
class ConflictView:
    """What a foreign program did to a row of the side without authority, in the columns that the mapping knows.

    `operation` "failed": the key could not be carried when its side was closed; "stranded": both sides had changed it, each on
    its own. Before is then what the other side held, after what this one did. Of one that is settled, whose state was `kept`.
    """

    id: str
    service: str
    side: Side
    entity: str
    key: str
    operation: str
    table: str
    fields: tuple[ChangedFieldView, ...]
    written_at: datetime
    written_by: str
    application: str | None
    detail: str | None
    kept: Side | None = None
    settled_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class SettlementView:
    """What became of a conflict that was to be settled. `fields`: in a dry run, what would be written."""

    id: str
    service: str
    entity: str
    key: str
    keep: Side
    settled: bool
    outcome: str
    detail: str
    fields: tuple[ChangedFieldView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ConfigView:
    """All run-time settings after a change, and the names of those that changed."""

    service: str
    settings: Mapping[str, SettingValue]
    changed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GateView:
    """What must hold before a step: what was measured, and how to open a gate that is shut."""

    name: str
    is_open: bool
    figure: str
    remedy: str = ""
    forced: bool = False


@dataclass(frozen=True, kw_only=True)
class PhaseChangeView:
    """What a phase change did, or with `dry_run` would do, step by step.

    `gates` are those of the first step. `stall_ms`: how long no side took writes, the longest of all steps.
    """

    service: str
    from_phase: Phase
    to_phase: Phase
    dry_run: bool
    changed: bool
    epoch: int
    steps: tuple[str, ...]
    gates: tuple[GateView, ...] = ()
    stall_ms: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReplicaView:
    """A process of the service, and what it goes by."""

    host: str
    pid: int
    phase: Phase
    epoch: int
    follows: bool
    relay: bool
    seconds_since_seen: float


@dataclass(frozen=True, kw_only=True)
class EntityStandingView:
    """What comparisons say of an entity; without a verdict where none counts."""

    entity: str
    verdict: str | None
    seconds_ago: float
    open_mismatches: int


@dataclass(frozen=True, kw_only=True)
class OverviewView:
    """A service in one screen. `next_phase` is None in `complete`; `unfinished` says of a change that was begun."""

    service: str
    phase: Phase
    epoch: int
    authoritative: Side
    changed_at: datetime | None
    changed_by: str
    reason: str
    unfinished: str | None
    replicas: tuple[ReplicaView, ...]
    lag_seconds: float
    journal_rows: int
    failures_open: int
    conflicts_open: int
    validation: tuple[EntityStandingView, ...]
    next_phase: Phase | None
    gates: tuple[GateView, ...]


@dataclass(frozen=True, kw_only=True)
class PhaseHistoryView:
    """A change of the phase, as it was written down."""

    service: str
    changed_at: datetime
    from_phase: Phase
    to_phase: Phase
    epoch: int
    changed_by: str
    reason: str
    forced: tuple[str, ...]
    outcome: str
    stall_ms: float | None
