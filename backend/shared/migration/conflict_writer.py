"""Puts a foreign write into force on the authoritative side, as an ordinary captured write; or takes one back there.

A foreign write to the secondary side is tried out where it was made, in a transaction that is rolled back: the authoritative
state of the key, as a carry would write it; then the columns that the foreign statement changed, on top of it. What the
mapping makes of the one and of the other differs in the columns that have to be written on the authoritative side. So no
other column is touched there, however far behind the secondary side is and whatever else was written to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.errors import ConflictError
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.conflict_records import BY_KEY, Conflict, ConflictOperation
from backend.shared.migration.conflict_authority import TRIES, ConflictAuthority
from backend.shared.migration.conflict_images import ImageWriter, images_of
from backend.shared.migration.conflict_states import Wanted, cannot_say, changes, on_top, unsaid
from backend.shared.migration.repair_plan import plan_of
from backend.shared.migration.repair_results import FieldChange
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.postgres.store import PostgresStore, entity_sql
from backend.shared.stores.protocol import StateBatch
from backend.shared.validation.recheck import Look
from backend.shared.validation.statements import statements_of


@dataclass(frozen=True, kw_only=True)
class Trial(Wanted):
    """What a foreign write comes to: what the secondary side holds without it and with it, in its own shape.

    Where no row of the secondary side was changed, these two are the same.
    """

    without: StateBatch
    with_it: StateBatch

    @property
    def is_in_force(self) -> bool:
        """Whether the authoritative state is already what the foreign write would make it."""
        return self.says_nothing and self.without.same_rows(self.with_it)

    @property
    def changed(self) -> list[str]:
        """The fields that the foreign write changes on the secondary side."""
        return [name for name, _ in changes(self.without, self.with_it)]


class ConflictWriter:
    """Writes the authoritative side for one conflict. `side` is the authoritative one, `epoch` the one believed to hold."""

    def __init__(self, runtime: ServiceRuntime, *, side: Side, epoch: int, by: str) -> None:
        self._runtime = runtime
        self._side = side
        self._epoch = epoch
        self._out = Direction.towards(side.other)
        self._back = Direction.towards(side)
        self._store = PostgresStore(runtime.names, runtime.catalog)
        self._authority = ConflictAuthority(runtime, side=side, epoch=epoch, by=by)

    @staticmethod
    def takes_back(conflict: Conflict) -> bool:
        """Whether what a foreign program did to a row is known, so that it can be undone."""
        return conflict.has_images and conflict.operation not in BY_KEY

    async def put(self, conflict: Conflict) -> None:
        """Bring a foreign write to the secondary side into force. May be repeated; what holds already is not written.

        Raises `ConflictError` if the mapping cannot say it, `SideError` if a side refuses it or does not answer, and
        `FencedError` if the authority has moved.
        """
        for _ in range(TRIES):
            trial = await self.trial(conflict)
            await self._runtime.hook("conflict_tried")
            if trial.is_in_force:
                return
            if trial.says_nothing:
                raise cannot_say(self._side, ", ".join(sorted(trial.changed)))
            if await self._authority.write(conflict, partial(self._write, trial), keep=conflict.side):
                await self._runtime.hook("conflict_written")
                return
        raise ConflictError("the key is written too often to come in between; try again")

    async def trial(self, conflict: Conflict) -> Trial:
        """What `put` would do. Changes nothing."""
        entity, keys = self._runtime.catalog[conflict.entity], [conflict.key]
        async with self._connected(self._side, isolation="REPEATABLE READ") as connection:
            now = await self._store.read_stored(connection, entity, self._back, keys=keys)
            state = await self._store.read_state(connection, entity, self._out, keys=keys)
        async with self._connected(self._side.other) as connection:
            without, with_it, made, made_with_it = await self._try_out(connection, conflict, state, now)
            await connection.rollback()
        async with self._connected(self._side) as connection:
            made = await self._as_stored(connection, made)
            made_with_it = await self._as_stored(connection, made_with_it)
        wanted = on_top(now, without=made, with_it=made_with_it)
        return Trial(without=without, with_it=with_it, now=now, wanted=wanted)

    @asynccontextmanager
    async def _connected(
        self, side: Side, *, isolation: str = "READ COMMITTED"
    ) -> AsyncIterator[AsyncConnection]:
        engine = self._runtime.engines[side].execution_options(isolation_level=isolation)
        try:
            async with engine.connect() as connection:
                yield connection
        except Exception as error:
            if not is_database_error(error):
                raise
            raise to_side_error(error, side) from error

    async def _try_out(
        self, connection: AsyncConnection, conflict: Conflict, state: StateBatch, now: StateBatch
    ) -> tuple[StateBatch, StateBatch, StateBatch, StateBatch]:
        """On the secondary side: what it holds without the foreign write and with it, and what the mapping makes of both.

        Nothing of it is kept. It is marked as a carry, so that fence and capture take no notice.
        """
        entity, keys = state.entity, list(state.keys)
        everything = {entity.name: frozenset(keys)}
        await self._store.enter(connection, self._out, epoch=self._epoch)
        await self._store.write(connection, [state], everything)
        without = await self._store.read_stored(connection, entity, self._out, keys=keys)
        made = await self._store.read_state(connection, entity, self._back, keys=keys)
        images, with_it = images_of(self._runtime.catalog, conflict), without
        if images is not None:
            await ImageWriter(connection, conflict, images).put()
            with_it = await self._store.read_stored(connection, entity, self._out, keys=keys)
        elif conflict.operation is ConflictOperation.FAILED:
            # What this side had changed is where the mapping made another state of it than the other side held then.
            there, here = (self._runtime.stores[side].state for side in (self._side, self._side.other))
            kept = here.state_of(entity, key=conflict.key, rows=conflict.after)
            await self._store.write(connection, [kept], everything)
            made = there.state_of(entity, key=conflict.key, rows=conflict.before)
        else:
            made = now  # of a table that is looked up: whatever the mapping makes of the key now is its doing
        made_with_it = await self._store.read_state(connection, entity, self._back, keys=keys)
        return without, with_it, made, made_with_it

    async def _as_stored(self, connection: AsyncConnection, batch: StateBatch) -> StateBatch:
        """A batch as it would be read back, once it was written."""
        rows = []
        for sql, text in zip(entity_sql(batch.entity, batch.direction).projections, batch.rows, strict=True):
            found = await connection.exec_driver_sql(
                f"SELECT coalesce(json_agg(to_json(r)), '[]')::text FROM {sql.recordset}", (text,)
            )
            rows.append(str(found.scalar_one()))
        return replace(batch, rows=tuple(rows))

    async def _write(self, trial: Trial, connection: AsyncConnection) -> bool:
        """In a transaction. False if the key was written since the trial."""
        keys = list(trial.now.keys)
        entity = trial.now.entity
        now = await self._store.read_stored(connection, entity, self._back, keys=keys)
        await self._runtime.hook("conflict_compared")
        if not now.same_rows(trial.now):
            return False
        before = await self._store.read_state(connection, entity, self._out, keys=keys)
        await self._store.write(connection, [trial.wanted], {entity.name: frozenset(keys)})
        after = await self._store.read_state(connection, entity, self._out, keys=keys)
        if fields := unsaid(trial.changed, before, after):
            raise cannot_say(self._side, fields)
        return True

    def carry(self, look: Look, conflict: Conflict, *, show_values: bool) -> tuple[FieldChange, ...]:
        """The fields that one more carry of the key would change on the other side."""
        plan = plan_of(statements_of(self._runtime.catalog[conflict.entity], self._out), look)
        return plan.fields if show_values else plan.without_values().fields

    async def put_here(self, conflict: Conflict, *, keep: Side) -> None:
        """For a foreign write to the side that has become authoritative since: make it hold, or take it back.

        Raises `ConflictError` where the row was written again since.
        """
        await self._authority.write(conflict, partial(self._write_here, conflict, keep), keep=keep)
        await self._runtime.hook("conflict_written")

    async def _write_here(self, conflict: Conflict, keep: Side, connection: AsyncConnection) -> bool:
        images = images_of(self._runtime.catalog, conflict)
        if images is not None:
            writer = ImageWriter(connection, conflict, images)
            await (writer.put() if keep is conflict.side else writer.take_back())
        elif conflict.operation is ConflictOperation.FAILED:
            entity = self._runtime.catalog[conflict.entity]
            kept = self._runtime.stores[self._side].state.state_of(
                entity, key=conflict.key, rows=conflict.after
            )
            await self._store.write(connection, [kept], {entity.name: frozenset(kept.keys)})
        return True
