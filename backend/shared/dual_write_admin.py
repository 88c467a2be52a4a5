"""What an operator asks of a manager; the `/dual-write` routes and the command line are shells round this."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar

from backend.shared.conflict_operations import ConflictOperations
from backend.shared.domain.errors import (
    ConfigurationError,
    ConflictError,
    FencedError,
    NotFoundError,
    ValidationError,
)
from backend.shared.domain.mapping import EntityMapping, Key
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.domain.results import DualWriteResult
from backend.shared.dual_write_config import DualWriteSettings, ForeignWrites
from backend.shared.journal.records import Failure
from backend.shared.journal.relay import Relay
from backend.shared.observability.admin_views import (
    ConfigView,
    FailureView,
    HealthView,
    MismatchView,
    OperationTestView,
    PoolView,
    SettingValue,
    SideHealthView,
    StatusView,
    ValidationView,
)
from backend.shared.observability.health import HealthCheck, check_health
from backend.shared.observability.labels import Verdict
from backend.shared.observability.metrics_snapshot import MetricsSnapshot
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import describe, is_database_error
from backend.shared.stores.side import Connection, SideStore
from backend.shared.sync_validator import SyncValidator, parse_key
from backend.shared.unit_of_work import UnitOfWork
from backend.shared.unit_runner import Unit
from backend.shared.validation.mismatches import KeptMismatch

T = TypeVar("T")
PROBE_SECONDS = 10.0


class AdminOperations(ConflictOperations):
    """The operator's side of a manager: implements `backend.shared.api.admin_protocol.DualWriteAdmin`."""

    also_asked: Sequence[HealthCheck] = ()
    """What else the service stands on, such as a message broker: `health` shows it, and goes on without it."""

    @abstractmethod
    async def write(self, operation: str, unit: Unit[T]) -> DualWriteResult[T]:
        """Run a unit of work."""

    @abstractmethod
    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        """Insert a harmless entity for `test_operation`; answers its name and key, by which it is removed again."""

    @property
    def phase(self) -> Phase:
        """The phase that holds now, as far as this process knows."""
        return self.runtime.phase

    @property
    def settings(self) -> DualWriteSettings:
        """The settings that hold now, run-time changes included."""
        return self.runtime.settings

    def relay(self) -> Relay:
        """The relay of the present phase; in a phase without second writes either."""
        direction = self.phase.policy.direction
        return self.runtime.relays[direction or Direction.TO_NEW]

    async def status(self) -> StatusView:
        """Phase, settings and backlog, measured now."""
        await self.start()
        runtime = self.runtime
        depth = await runtime.measure()
        policy = runtime.phase.policy
        return StatusView(
            service=self.service,
            phase=runtime.phase,
            epoch=runtime.control.epoch,
            authoritative=policy.authoritative,
            secondary=policy.secondary,
            dual_write_enabled=runtime.settings.carries(runtime.phase),
            relay_running=runtime.relay_running,
            lag_seconds=depth.lag_seconds,
            journal_rows=depth.rows,
            failures_open=depth.failures,
            entities=tuple(entity.name for entity in runtime.catalog.ordered),
            settings=runtime.settings.to_dict(),
        )

    async def health(self) -> HealthView:
        """Both sides and their pools, and what else is asked; answers even when one of them does not."""
        found, others = await asyncio.gather(
            asyncio.gather(*(_side_health(self.runtime, side) for side in Side)),
            check_health(self.also_asked),
        )
        sides = tuple(found)
        needed = self.runtime.phase.policy.authoritative
        return HealthView(
            service=self.service,
            ok=others.ok and all(side.ok for side in sides if side.side is needed),
            sides=sides,
            relay_running=self.runtime.relay_running,
            others=others.components,
        )

    def metrics_snapshot(self) -> MetricsSnapshot:
        """Counts and latencies of this process. Asks no database."""
        return self.runtime.metrics.snapshot(self.service)

    async def validate_key(
        self, key: str, *, entity: str | None, show_values: bool = False
    ) -> ValidationView:
        """Compare one key now; `entity` may be left out if the service has one only."""
        await self.start()
        mapping = _entity_of(self.runtime, entity)
        return await SyncValidator(self.runtime).validate_key(
            mapping, parse_key(mapping, key), show_values=show_values
        )

    async def test_operation(self) -> OperationTestView:
        """Write a probe, carry it, compare it, and remove it from both sides."""
        await self.start()
        started = time.perf_counter()
        carried = gone = False
        entity = ""
        written = await self.write("probe", self.write_probe)
        if written.value is not None:
            entity, key = written.value
            try:
                there = await self._settled(entity, key, PROBE_SECONDS)
                carried = there is not None and bool(there.in_new or there.in_legacy)
            finally:
                removed = await self.write("remove_probe", lambda work: work.delete(entity, key))
            left = await self._settled(entity, key, PROBE_SECONDS)
            gone = removed.success and left is not None and not (left.in_new or left.in_legacy)
        success = {written.authoritative: written.success, written.authoritative.other: carried}
        return OperationTestView(
            service=self.service,
            entity=entity,
            success=written.success and carried and gone,
            new_db_success=success[Side.NEW],
            legacy_db_success=success[Side.LEGACY],
            sync_validated=carried,
            cleaned_up=gone,
            duration_seconds=time.perf_counter() - started,
            detail=str(written.error) if written.error else None,
        )

    async def settle(self, entity: str, key: Key, *, within_seconds: float = PROBE_SECONDS) -> bool:
        """Help the relay along until `key` is equal on both sides; False if it is not after `within_seconds`."""
        return await self._settled(entity, key, within_seconds) is not None

    async def _settled(self, entity: str, key: Key, within_seconds: float) -> ValidationView | None:
        deadline = time.monotonic() + within_seconds
        mapping = self.runtime.catalog[entity]
        while time.monotonic() < deadline:
            if self.phase.policy.dual:
                await self.relay().run_once()
            view = await SyncValidator(self.runtime).validate_key(mapping, key, show_values=False)
            if view.verdict is Verdict.EQUAL or not self.phase.policy.dual:
                return view
        return None

    async def list_failures(
        self, *, limit: int, after_id: int | None = None, entity: str | None = None
    ) -> Sequence[FailureView]:
        """Up to `limit` open failures with numbers above `after_id`, in rising order."""
        await self.start()
        if entity is not None:
            _entity_of(self.runtime, entity)
        store = self._authoritative()
        async with store.connect() as connection:
            found = await store.failures.page(connection, after_id=after_id or 0, limit=limit, entity=entity)
        return [_failure_view(self.service, failure) for failure in found]

    async def list_mismatches(
        self, *, limit: int, after_id: int | None = None, entity: str | None = None
    ) -> Sequence[MismatchView]:
        """Up to `limit` open mismatches, as validations have kept them, with numbers above `after_id`, in rising order."""
        await self.start()
        if entity is not None:
            _entity_of(self.runtime, entity)
        found = await SyncValidator(self.runtime).open_mismatches(
            limit=limit, after_id=after_id or 0, entity=entity
        )
        return [_mismatch_view(self.service, mismatch) for mismatch in found]

    async def retry_failure(self, failure_id: int) -> FailureView:
        """Put a failed key back on its way; it closes once it is carried. May be repeated."""
        await self.start()
        store = self._authoritative()
        async with store.begin() as connection:
            await self._hold_open(connection)
            failure = await store.failures.get(connection, failure_id)
            if failure is None:
                raise NotFoundError(f"there is no failure {failure_id}")
            if failure.state != "open":
                raise ConflictError(f"failure {failure_id} is {failure.state} already")
            await store.failures.retry(connection, failure_id=failure_id)
        self.relay().wake()
        return _failure_view(self.service, failure)

    def _authoritative(self) -> SideStore:
        return self.runtime.stores[self.phase.policy.authoritative]

    async def _hold_open(self, connection: Connection) -> None:
        """Keep the side open until the transaction ends: a journal row that comes after a cutover has drained is carried
        by nobody.
        """
        try:
            await self._authoritative().marks.hold_open(connection)
        except FencedError as error:
            raise ConflictError("the authority has just been moved: try again") from error

    async def retry_failures(self, *, entity: str | None = None) -> int:
        """Put all open failures (of `entity`) back on their way; answers how many."""
        await self.start()
        store = self._authoritative()
        async with store.begin() as connection:
            await self._hold_open(connection)
            count = await store.failures.retry(connection, entity=entity)
        self.relay().wake()
        return count

    async def change_config(self, changes: Mapping[str, SettingValue], *, by: str = "api") -> ConfigView:
        """Change settings at run time, for every replica within a second; all of `changes` or none."""
        await self.start()
        before = self.settings.to_dict()
        authoritative = self.phase.policy.authoritative
        if not self.settings.changed(changes).writes(authoritative):
            raise ConflictError(
                f"phase {self.phase.value} writes the {authoritative.value} side: it must stay on"
            )
        runtime = self.runtime
        try:
            self.settings.changed(changes).check_entities(runtime.catalog)
        except ConfigurationError as error:
            raise ConflictError(str(error)) from None
        wanted = self.settings.changed(changes).foreign_writes
        if wanted is ForeignWrites.REJECT and not runtime.both_sql:
            raise ConflictError(
                "foreign_writes: a MongoDB cannot reject what other programs write; use report"
            )
        if "foreign_writes" in changes:
            async with runtime.foreign_writes.changed(wanted.value):
                await runtime.controls.change_settings(changes, by=by)
        else:
            await runtime.controls.change_settings(changes, by=by)
        await runtime.refresh()
        after = self.settings.to_dict()
        return ConfigView(
            service=self.service,
            settings=after,
            changed=tuple(name for name in changes if before.get(name) != after.get(name)),
        )


async def _side_health(runtime: ServiceRuntime, side: Side) -> SideHealthView:
    pool, view = runtime.stores[side].pool(), None
    if pool:
        view = PoolView(size_count=pool.size, in_use_count=pool.in_use, waiting_count=pool.waiting)
    started, detail = time.perf_counter(), None
    try:
        await runtime.stores[side].ping()
    except Exception as error:
        if not is_database_error(error):
            raise
        detail = describe(error)
    return SideHealthView(
        side=side,
        ok=detail is None,
        breaker=runtime.breakers[side].state,
        latency_seconds=time.perf_counter() - started if detail is None else None,
        pool=view,
        detail=detail,
    )


def _entity_of(runtime: ServiceRuntime, name: str | None) -> EntityMapping:
    if name is None and runtime.catalog.only:
        return runtime.catalog.only
    known = ", ".join(entity.name for entity in runtime.catalog.ordered)
    if name is None:
        raise ValidationError(f"say which entity: {known}")
    if name not in runtime.catalog:
        raise NotFoundError(f"there is no entity {name!r}; there are: {known}")
    return runtime.catalog[name]


def _failure_view(service: str, failure: Failure) -> FailureView:
    return FailureView(
        id=failure.id,
        service=service,
        entity=failure.entity,
        key=failure.key,
        direction=failure.direction.value,
        state=failure.state,
        attempts=failure.attempts,
        error=failure.reason,
        first_failed_at=failure.first_failed_at,
        last_failed_at=failure.last_failed_at,
    )


def _mismatch_view(service: str, mismatch: KeptMismatch) -> MismatchView:
    return MismatchView(
        id=mismatch.id,
        service=service,
        entity=mismatch.entity,
        key=mismatch.key,
        kind=mismatch.kind.value,
        fields=mismatch.fields,
        first_run=mismatch.first_run,
        last_run=mismatch.last_run,
        first_seen_at=mismatch.first_seen,
        last_seen_at=mismatch.last_seen,
    )
