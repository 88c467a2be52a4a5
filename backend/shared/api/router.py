"""The `/dual-write` routes: thin, for admins and services only."""

# No `from __future__ import annotations` here: FastAPI could not resolve annotations that name a local variable.

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from backend.shared.api.admin_protocol import (
    ConfigView,
    ConflictView,
    DualWriteAdmin,
    FailureView,
    HealthView,
    MetricsSnapshot,
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
from backend.shared.api.fields import BigDatabaseId, JsonBool, JsonFloat, JsonInt, PathKey
from backend.shared.api.pagination import DepPage, Page
from backend.shared.api.problems import problem_responses
from backend.shared.api.security import DepPrincipal, require_role
from backend.shared.api.tokens import Role
from backend.shared.domain.phases import Phase, Side
from backend.shared.dual_write_config import Availability, ForeignWrites, Ping, ReadFallback
from backend.shared.migration.gates import GateName

_MAX_SECONDS = 86_400.0
_FAILURES_LISTING = "dual-write-failures"
_MISMATCHES_LISTING = "dual-write-mismatches"
_CONFLICTS_LISTING = "dual-write-conflicts"

_ConflictId = Annotated[
    str,
    Path(
        max_length=80,
        pattern=r"^[a-z][a-z0-9_]*-(legacy|new)-[1-9][0-9]{0,17}$",
        description="As listed: cart-legacy-12.",
    ),
]
_EntityName = Annotated[str, Query(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9_]*$")]


def _without_defaults(schema: dict[str, Any]) -> None:
    # A setting left out keeps its present value, so a default would tell a lie.
    schema["minProperties"] = 1
    for setting in schema["properties"].values():
        setting.pop("default", None)


class ConfigPatch(BaseModel):
    """Settings to change; those left out stay. The names are those of the variables, without `DUAL_WRITE_`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)

    enabled: JsonBool = True
    to_legacy: JsonBool = True
    to_new: JsonBool = True
    fail_on_new_error: JsonBool = True
    fail_on_legacy_error: JsonBool = False
    async_legacy: JsonBool = True
    timeout: JsonFloat = Field(
        default=5.0, ge=1, le=60, description="Seconds; for each side of a write that goes to both."
    )
    ping: Ping = Ping.BREAKER
    availability: Availability = Availability.AUTHORITATIVE
    validate_sync: JsonBool = True
    sync_interval: JsonFloat = Field(default=300.0, ge=0.1, le=_MAX_SECONDS, description="Seconds.")
    full_sync_interval: JsonFloat = Field(
        default=86_400.0, ge=0.1, le=30 * _MAX_SECONDS, description="Seconds."
    )
    batch_size: JsonInt = Field(default=100, ge=1, le=10_000)
    retry_attempts: JsonInt = Field(default=3, ge=1, le=100)
    retry_delay: JsonFloat = Field(
        default=5.0, ge=0, le=_MAX_SECONDS, description="Seconds; doubles with each attempt."
    )
    log_all: JsonBool = False
    log_errors_only: JsonBool = True
    metrics_enabled: JsonBool = True
    foreign_writes: ForeignWrites = ForeignWrites.REPORT
    max_lag: JsonFloat = Field(default=5.0, gt=0, le=_MAX_SECONDS, description="Seconds; for a step up.")
    lag_window: JsonFloat = Field(default=60.0, ge=0, le=60, description="Seconds; for a step up.")
    validation_max_age: JsonFloat = Field(
        default=3600.0, gt=0, le=30 * _MAX_SECONDS, description="Seconds; for a step up."
    )
    min_shadow_reads: JsonInt = Field(default=1000, ge=0, le=1_000_000_000, description="For a step up.")
    max_mismatch_rate: JsonFloat = Field(default=0.001, ge=0, le=1, description="For a step up.")
    dual_read_fallback: ReadFallback = ReadFallback.OFF
    shadow_read_sample_rate: JsonFloat = Field(default=0.1, ge=0, le=1)
    new_read_share: JsonFloat = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _changes_something(self) -> "ConfigPatch":
        if not self.model_fields_set:
            raise ValueError("name at least one setting")
        return self

    def changes(self) -> dict[str, SettingValue]:
        """What the caller named, and nothing else."""
        return self.model_dump(exclude_unset=True)


class PhaseRequest(BaseModel):
    """The phase to end in: a step up or down, or several, one after the other."""

    model_config = ConfigDict(extra="forbid")

    to: Phase
    dry_run: JsonBool = Field(default=False, description="Look at the gates, say each step, and do none.")
    force: list[GateName] = Field(
        default_factory=list, max_length=len(GateName), description="Gates to pass though shut."
    )
    reason: str = Field(default="", max_length=500, description="Why; needed to force a gate.")


class SettleRequest(BaseModel):
    """Which side is right: the other one gets its state."""

    model_config = ConfigDict(extra="forbid")

    keep: Side
    dry_run: JsonBool = Field(default=False, description="Say what would be done, and do nothing.")


def dual_write_router(get_manager: Callable[..., Any]) -> APIRouter:
    """The routes over the manager that the dependency `get_manager` yields."""
    router = APIRouter(
        prefix="/dual-write",
        tags=["dual-write"],
        dependencies=[Depends(require_role(Role.ADMIN, Role.SERVICE))],
    )
    _add_reading_routes(router, get_manager)
    _add_acting_routes(router, get_manager)
    _add_failure_routes(router, get_manager)
    _add_conflict_routes(router, get_manager)
    return router


def _add_reading_routes(router: APIRouter, get_manager: Callable[..., Any]) -> None:
    Manager = Annotated[DualWriteAdmin, Depends(get_manager)]  # noqa: N806 - a type, made for these routes

    @router.get("/status", summary="Phase, settings and lag")
    async def read_status(manager: Manager) -> StatusView:
        return await manager.status()

    @router.get("/health", summary="Both sides and their pools")
    async def read_health(manager: Manager) -> HealthView:
        return await manager.health()

    @router.get("/metrics", summary="Counts and latencies as JSON")
    async def read_metrics(manager: Manager) -> MetricsSnapshot:
        return manager.metrics_snapshot()


def _add_acting_routes(router: APIRouter, get_manager: Callable[..., Any]) -> None:
    Manager = Annotated[DualWriteAdmin, Depends(get_manager)]  # noqa: N806 - a type, made for these routes

    @router.post(
        "/validate-sync/{key}", summary="Compare one key on both sides now", responses=problem_responses(404)
    )
    async def validate_sync(
        manager: Manager,
        key: Annotated[PathKey, Path(description="The key; parts of a longer one separated by commas.")],
        entity: Annotated[
            _EntityName | None, Query(description="Needed when the service has several.")
        ] = None,
        show_values: Annotated[bool, Query(description="Also show the values that differ.")] = False,  # noqa: FBT002 - a query parameter
    ) -> ValidationView:
        return await manager.validate_key(key, entity=entity, show_values=show_values)

    @router.post("/test-operation", summary="Write, carry, compare and remove a probe")
    async def test_operation(manager: Manager) -> OperationTestView:
        return await manager.test_operation()

    @router.patch("/config", summary="Change settings at run time", responses=problem_responses(409))
    async def change_config(manager: Manager, patch: ConfigPatch) -> ConfigView:
        return await manager.change_config(patch.changes())

    @router.post("/phase", summary="Move one phase up or down", responses=problem_responses(409))
    async def change_phase(
        manager: Manager, change: PhaseRequest, principal: DepPrincipal
    ) -> PhaseChangeView:
        return await manager.change_phase(
            change.to,
            dry_run=change.dry_run,
            force=[gate.value for gate in change.force],
            reason=change.reason,
            by=principal.subject,
        )

    @router.get("/phase", summary="Phase, replicas, backlog, last validation and gates")
    async def read_overview(manager: Manager) -> OverviewView:
        return await manager.overview()

    @router.get("/phase/history", summary="Changes of the phase, newest first")
    async def read_history(
        manager: Manager, limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> list[PhaseHistoryView]:
        return list(await manager.phase_history(limit=limit))


def _add_failure_routes(router: APIRouter, get_manager: Callable[..., Any]) -> None:
    Manager = Annotated[DualWriteAdmin, Depends(get_manager)]  # noqa: N806 - a type, made for these routes

    @router.get("/failures", summary="Keys that could not be carried", responses=problem_responses(404))
    async def list_failures(
        manager: Manager, request: DepPage, entity: _EntityName | None = None
    ) -> Page[FailureView]:
        seen = request.after(_FAILURES_LISTING, types=(int,))
        after_id = seen[0] if seen and isinstance(seen[0], int) else None
        rows = await manager.list_failures(limit=request.limit + 1, after_id=after_id, entity=entity)
        return request.page(rows, listing=_FAILURES_LISTING, key=lambda failure: (failure.id,))

    @router.post(
        "/failures/{failure_id}/retry",
        summary="Put a failed key back on its way",
        responses=problem_responses(404),
    )
    async def retry_failure(manager: Manager, failure_id: BigDatabaseId) -> FailureView:
        return await manager.retry_failure(failure_id)

    @router.get(
        "/mismatches",
        summary="Keys that the validator has found to differ",
        responses=problem_responses(404),
    )
    async def list_mismatches(
        manager: Manager, request: DepPage, entity: _EntityName | None = None
    ) -> Page[MismatchView]:
        seen = request.after(_MISMATCHES_LISTING, types=(int,))
        after_id = seen[0] if seen and isinstance(seen[0], int) else None
        rows = await manager.list_mismatches(limit=request.limit + 1, after_id=after_id, entity=entity)
        return request.page(rows, listing=_MISMATCHES_LISTING, key=lambda mismatch: (mismatch.id,))


def _add_conflict_routes(router: APIRouter, get_manager: Callable[..., Any]) -> None:
    Manager = Annotated[DualWriteAdmin, Depends(get_manager)]  # noqa: N806 - a type, made for these routes

    @router.get(
        "/conflicts",
        summary="What other programs wrote to the side without authority",
        responses=problem_responses(404),
    )
    async def list_conflicts(
        manager: Manager,
        request: DepPage,
        entity: _EntityName | None = None,
        show_values: Annotated[bool, Query(description="Also show values, but never secret ones.")] = False,  # noqa: FBT002 - a query parameter
    ) -> Page[ConflictView]:
        seen = request.after(_CONFLICTS_LISTING, types=(str,))
        rows = await manager.list_conflicts(
            limit=request.limit + 1,
            after_id=str(seen[0]) if seen else None,
            entity=entity,
            show_values=show_values,
        )
        return request.page(rows, listing=_CONFLICTS_LISTING, key=lambda conflict: (conflict.id,))

    @router.post(
        "/conflicts/{conflict_id}/settle",
        summary="Make the state of one side that of both",
        responses=problem_responses(404, 409),
    )
    async def settle_conflict(
        manager: Manager, conflict_id: _ConflictId, decision: SettleRequest, principal: DepPrincipal
    ) -> SettlementView:
        return await manager.settle_conflict(
            conflict_id,
            keep=decision.keep,
            by=principal.subject,
            dry_run=decision.dry_run,
            show_values=False,
        )
