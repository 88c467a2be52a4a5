"""Copies history from the authoritative side to the other while both are in use (R8).

Entities go parents first, each in key order, chunk by chunk, and several chunks at a time. What a chunk writes, and that it
is done, is one transaction on the target: a process that dies loses the chunks in its hand, and the next one takes them up.
Any number of processes may work on the same service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from backend.shared.domain.errors import ConflictError, InstallationError
from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Direction
from backend.shared.identity import system_user, this_process
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.migration.backfill_state import (
    BackfillControl,
    BackfillLimits,
    EntityProgress,
    Stage,
)
from backend.shared.migration.chunk_copy import ChunkCopier
from backend.shared.migration.entity_copy import FIRST_CHUNK_ROWS, LEAST_CHUNK_ROWS, EntityCopy, patiently
from backend.shared.migration.key_carry import KeyCarrier
from backend.shared.migration.keyed_copy import KeyedCopy
from backend.shared.migration.progress import keeper_of, repository_of
from backend.shared.migration.range_sql import EntityRanges, ranges_of
from backend.shared.migration.throttle import Throttle
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import is_database_error
from backend.shared.stores.postgres.projection_sql import mapping_print
from backend.shared.stores.postgres.store import PostgresStore, entity_sql

CHUNK_SECONDS = 0.5
"""What a chunk should take: so long may a carry of one of its keys have to wait."""


@dataclass(frozen=True, kw_only=True)
class EntityStatus:
    """One entity as an operator sees it. `failures_open` counts all open failures of it, whoever found them."""

    progress: EntityProgress
    failures_open: int
    void: str | None = None
    """Why what was copied does not count: capture had a gap since."""

    @property
    def summary(self) -> str:
        """The state in words, such as `copy`, `complete` or `complete with 3 failures`."""
        if self.void:
            return f"void: {self.void}"
        state = self.progress.stage.value
        count = self.failures_open
        if self.progress.stage is not Stage.COMPLETE or not count:
            return state
        return f"{state} with {count} failure{'s' if count > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class BackfillStatus:
    """All entities of a service, and the process that works on them."""

    service: str
    direction: Direction
    entities: tuple[EntityStatus, ...]
    missing: tuple[str, ...]
    """Entities that no backfill was begun of."""
    control: BackfillControl

    @property
    def is_complete(self) -> bool:
        """Whether every entity was copied to the end, and nothing has made that void since."""
        return not self.missing and all(
            item.progress.stage is Stage.COMPLETE and not item.void for item in self.entities
        )

    @property
    def failures_open(self) -> int:
        """Open failures of all entities."""
        return sum(item.failures_open for item in self.entities)


class Backfill:
    """Copies the history of one service. `run` may be repeated, and may run beside others, writers and relays."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        *,
        chunk_seconds: float = CHUNK_SECONDS,
        first_chunk_rows: int = FIRST_CHUNK_ROWS,
        hook: Hook = no_hook,
    ) -> None:
        self._runtime = runtime
        self._first_chunk_rows = first_chunk_rows
        self._chunk_seconds = chunk_seconds
        self._hook = hook
        self._names = runtime.names
        direction = runtime.phase.policy.direction
        if direction is None:
            raise ConflictError(
                f"phase {runtime.phase.value} captures no changes, and a copy without capture misses them: "
                "a backfill needs a phase from dualwrite to rampdown"
            )
        self.direction: Direction = direction
        self._source, self._target = runtime.stores[direction.source], runtime.stores[direction.target]
        self._keeper = keeper_of(runtime, direction.target)
        self._state = repository_of(runtime, direction.target)
        self._keys = KeyCarrier(
            source=self._source,
            target=self._target,
            catalog=runtime.catalog,
            direction=direction,
            hook=runtime.hook,
        )
        self.throttle = Throttle(
            source=self._source,
            target=self._target,
            keeper=self._keeper,
            direction=direction,
            state=self._state,
            by=_who(),
        )

    async def run(self, entities: Sequence[str] | None = None) -> BackfillStatus:
        """Copy `entities` (all, if None) to the end; answers how it ended.

        What an earlier run left undone is taken up; if all was complete it is all done again, which also removes what the
        source has no longer. Raises `InstallationError` where capture has a hole, `FencedError` when the target is opened
        meanwhile and `SideError` for a statement that is wrong; a database that does not answer is waited for.
        """
        chosen = self._chosen(entities)
        capture = await self._capture()
        self._begun_at = await self._source.now()
        await self._source.await_older_units()
        await self._begin(chosen, capture)
        await self.throttle.look()  # limits hold from the first chunk on
        watching = asyncio.create_task(self.throttle.watch())
        try:
            for entity in chosen:
                await self._entity(entity)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await self._rest()
        return await self.status()

    async def status(self) -> BackfillStatus:
        """How far each entity has come. Changes nothing."""
        capture = await self._capture(demanded=False)
        async with self._keeper.connect() as connection:
            progress = await self._state.progress(connection)
            control = await self._state.control(connection)
        async with self._source.connect() as connection:
            failures = await self._source.failures.count_by_entity(connection)
        known = [entity.name for entity in self._runtime.catalog.ordered]
        return BackfillStatus(
            service=self._runtime.service,
            direction=self.direction,
            entities=tuple(
                EntityStatus(
                    progress=progress[name],
                    failures_open=failures.get(name, 0),
                    void=self._void(progress[name], capture),
                )
                for name in known
                if name in progress
            ),
            missing=tuple(name for name in known if name not in progress),
            control=control,
        )

    async def rows_expected(self) -> int:
        """Rows that there are to copy on the source, about."""
        return sum([await self._source.estimated_rows(entity) for entity in self._runtime.catalog.ordered])

    async def tell(
        self, *, paused: bool | None = None, limits: BackfillLimits | None = None, by: str | None = None
    ) -> BackfillControl:
        """Pause, resume or limit whatever works on this service, within half a second; answers what holds now."""
        async with self._keeper.begin() as connection:
            before = await self._state.control(connection)
            await self._state.change_control(
                connection, paused=paused, limits=limits or before.limits, by=by or _who()
            )
            return await self._state.control(connection)

    def _chosen(self, entities: Sequence[str] | None) -> list[EntityMapping]:
        catalog = self._runtime.catalog
        wanted = {catalog[name].name for name in entities} if entities else None
        return [entity for entity in catalog.ordered if wanted is None or entity.name in wanted]

    async def _capture(self, *, demanded: bool = True) -> str:
        """The token of capture as it is now; raises `InstallationError` if it has a hole and is `demanded`."""
        runtime = self._runtime
        async with self._source.connect() as connection:
            token = await runtime.capture_token(connection, self.direction.source)
        if token:
            # Rows that were copied through another mapping do not count.
            token += ":" + mapping_print(
                sql
                for entity in runtime.catalog.ordered
                for sql in entity_sql(entity, self.direction).projections
            )
        if demanded and not token:
            raise InstallationError(
                f"capture on the {self.direction.source.value} side is incomplete, and a copy would miss changes: "
                f"run `tandem install {runtime.service}`"
            )
        return token

    async def _begin(self, chosen: Sequence[EntityMapping], capture: str) -> None:
        async with self._keeper.connect() as connection:
            progress = await self._state.progress(connection)
        again = all(
            entity.name in progress
            and progress[entity.name].stage is Stage.COMPLETE
            and not self._void(progress[entity.name], capture)
            for entity in chosen
        )
        for entity in chosen:
            before = progress.get(entity.name)
            if before and not again and not self._void(before, capture):
                continue
            expected = await self._source.estimated_rows(entity)
            async with self._keeper.begin() as connection:
                await self._state.begin(
                    connection,
                    entity.name,
                    before=before,
                    direction=self.direction,
                    epoch=self._runtime.control.epoch,
                    capture=capture,
                    rows_expected=expected,
                    chunk_rows=before.chunk_rows if before else self._first_chunk_rows,
                )

    def _void(self, progress: EntityProgress, capture: str) -> str | None:
        # That the authority has moved and come back makes nothing void: what was written meanwhile was carried, or the way
        # back was refused.
        if progress.capture != capture:
            return "capture has had a gap since, or it or the mapping was changed"
        return None

    async def _entity(self, entity: EntityMapping) -> None:
        progress = await patiently(self.throttle, self.direction.target, self._progress, entity.name)
        if self._runtime.both_sql:
            await self._copy_in_sql(entity, progress)
        else:
            await KeyedCopy(
                entity=entity,
                begun_at=progress.started_at,
                epoch=self._runtime.control.epoch,
                source=self._source,
                target=self._target,
                keeper=self._keeper,
                state=self._state,
                keys=self._keys,
                throttle=self.throttle,
                service=self._runtime.service,
                hook=self._hook,
            ).run()
        # A process that died between a chunk's commit and closing the failures of its rows has left them open: what goes
        # over when it is tried once more closes them.
        await patiently(self.throttle, self.direction.target, self._retry_older_failures, entity.name)

    async def _progress(self, entity: str) -> EntityProgress:
        async with self._keeper.connect() as connection:
            return (await self._state.progress(connection))[entity]

    async def _retry_older_failures(self, entity: str) -> None:
        async with self._source.begin() as connection:
            await self._source.failures.retry(connection, entity=entity, failed_before=self._begun_at)

    async def _copy_in_sql(self, entity: EntityMapping, progress: EntityProgress) -> None:
        engines, direction = self._runtime.engines, self.direction
        source, target = engines[direction.source], engines[direction.target]

        async def look() -> EntityRanges:
            async with source.connect() as here, target.connect() as there:
                return await ranges_of(here, there, entity, direction)

        await EntityCopy(
            ranges=await patiently(self.throttle, direction.target, look),
            begun_at=progress.started_at,
            epoch=self._runtime.control.epoch,
            source=source,
            target=target,
            state=self._state,
            copier=ChunkCopier(
                source=source,
                target=target,
                store=PostgresStore(self._runtime.names, self._runtime.catalog),
                direction=direction,
                hook=self._hook,
            ),
            keys=self._keys,
            throttle=self.throttle,
            chunk_seconds=self._chunk_seconds,
            least_chunk_rows=min(self._first_chunk_rows, LEAST_CHUNK_ROWS),
            service=self._runtime.service,
            hook=self._hook,
        ).run()

    async def _rest(self) -> None:
        """Say that nobody is at work any more; a target that does not answer learns it by the silence."""
        try:
            async with self._keeper.begin() as connection:
                await self._state.rest(connection)
        except Exception as error:
            if not is_database_error(error):
                raise


def _who() -> str:
    return f"{system_user()}@{this_process()}"
