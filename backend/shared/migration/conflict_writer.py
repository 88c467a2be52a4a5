"""Puts a foreign write into force on the authoritative side, as an ordinary captured write; or takes one back there.

A foreign write to the secondary side is tried out where it was made, in a transaction that is rolled back: the authoritative
state of the key, as a carry would write it; then the columns that the foreign statement changed, on top of it. What the
mapping makes of the one and of the other differs in the columns that have to be written on the authoritative side. So no
other column is touched there, however far behind the secondary side is and whatever else was written to it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.errors import ConflictError
from backend.shared.domain.mapping import EntityMapping, decode_key
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.conflict_records import Conflict, ConflictOperation
from backend.shared.journal.conflicts import ConflictRepository
from backend.shared.migration.conflict_images import ImageWriter, field, images_of, parsed
from backend.shared.migration.repair_authority import assert_authority
from backend.shared.migration.repair_results import FieldChange
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.postgres.store import PostgresStore, entity_sql
from backend.shared.stores.protocol import Position, StateBatch

_TRIES = 10
_NOWHERE = Position(major=0, minor=0)
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a foreign write comes to: what the secondary side holds without it and with it, in its own shape; and what the
    authoritative side holds now, and is to hold. Where no row of the secondary side was changed, the first two are the same.
    """

    without: StateBatch
    with_it: StateBatch
    now: StateBatch
    wanted: StateBatch

    @property
    def says_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return all(_row(self.now, n) == _row(self.wanted, n) for n in range(len(self.now.rows)))

    @property
    def is_in_force(self) -> bool:
        """Whether the authoritative state is already what the foreign write would make it."""
        return self.says_nothing and self.without.same_rows(self.with_it)

    @property
    def changed(self) -> list[str]:
        """The fields that the foreign write changes on the secondary side."""
        return [name for name, _ in _changes(self.without, self.with_it)]

    def fields(self, *, show_values: bool) -> tuple[FieldChange, ...]:
        """What would be written on the authoritative side."""
        found = []
        for name, (before, after) in _changes(self.now, self.wanted):
            table, _, column = name.rpartition(".")
            found.append(field(self.now.entity, table, column, before, after, show_values=show_values))
        return tuple(found)


class ConflictWriter:
    """Writes the authoritative side for one conflict. `side` is the authoritative one, `epoch` the one believed to hold."""

    def __init__(self, runtime: ServiceRuntime, *, side: Side, epoch: int, by: str) -> None:
        self._runtime = runtime
        self._side = side
        self._epoch = epoch
        self._by = by
        self._out = Direction.towards(side.other)
        self._back = Direction.towards(side)
        self._store = PostgresStore(runtime.names, runtime.catalog)
        self._conflicts = ConflictRepository(runtime.names)

    async def journal(self, entity: str, keys: Sequence[str]) -> None:
        """Put keys on their way once more. Raises `FencedError` if the authority has moved."""
        async with self._runtime.engines[self._side].begin() as connection:
            await assert_authority(connection, self._runtime.names, self._side, epoch=self._epoch)
            await self._runtime.stores[self._side].journal.add(connection, entity, keys)

    async def put(self, conflict: Conflict) -> None:
        """Bring a foreign write to the secondary side into force. May be repeated; what holds already is not written.

        Raises `ConflictError` if the mapping cannot say it, `SideError` if a side refuses it or does not answer, and
        `FencedError` if the authority has moved.
        """
        for _ in range(_TRIES):
            trial = await self.trial(conflict)
            await self._runtime.hook("conflict_tried")
            if trial.is_in_force:
                return
            if trial.says_nothing:
                raise self._cannot_say(trial.changed)
            runner = self._runtime.sql_runner(self._side)
            if await runner.repeat(partial(self._write, conflict, trial)):
                await self._runtime.hook("conflict_written")
                return
        raise ConflictError("the key is written too often to come in between; try again")

    def _cannot_say(self, fields: Sequence[str]) -> ConflictError:
        names = ", ".join(sorted(fields))
        return ConflictError(f"the mapping to the {self._side.value} side cannot say it: {names}")

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
        wanted = _on_top(now, without=made, with_it=made_with_it)
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
            await self._store.write(connection, [_kept(entity, self._out, conflict)], everything)
            made = _kept(entity, self._back, conflict, other=True)
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

    async def _write(self, conflict: Conflict, trial: Trial) -> bool:
        """One transaction. False, with nothing kept, if the key was written since the trial."""
        keys = list(trial.now.keys)
        entity = trial.now.entity
        async with self._runtime.sql_runner(self._side).transaction(
            request_id="settle", journals_touched=True, isolation="REPEATABLE READ"
        ) as transaction:
            connection = transaction.connection
            await assert_authority(connection, self._runtime.names, self._side, epoch=self._epoch)
            if not await self._conflicts.claim_settlement(
                connection, conflict, kept=conflict.side, by=self._by
            ):
                return True
            now = await self._store.read_stored(connection, entity, self._back, keys=keys)
            await self._runtime.hook("conflict_compared")
            if not now.same_rows(trial.now):
                return False
            before = await self._store.read_state(connection, entity, self._out, keys=keys)
            await self._store.write(connection, [trial.wanted], {entity.name: frozenset(keys)})
            after = await self._store.read_state(connection, entity, self._out, keys=keys)
            if unsaid := _unsaid(trial, before, after):
                raise self._cannot_say(unsaid)
            transaction.work.touch(entity.name, decode_key(keys[0]))
            await transaction.commit()
        return True

    async def put_here(self, conflict: Conflict, *, keep: Side) -> None:
        """For a foreign write to the side that has become authoritative since: make it hold, or take it back.

        Raises `ConflictError` where the row was written again since.
        """
        runner = self._runtime.sql_runner(self._side)
        await runner.repeat(partial(self._write_here, conflict, keep))
        await self._runtime.hook("conflict_written")

    async def _write_here(self, conflict: Conflict, keep: Side) -> None:
        entity = self._runtime.catalog[conflict.entity]
        async with self._runtime.sql_runner(self._side).transaction(
            request_id="settle", journals_touched=True, isolation="REPEATABLE READ"
        ) as transaction:
            connection = transaction.connection
            await assert_authority(connection, self._runtime.names, self._side, epoch=self._epoch)
            if not await self._conflicts.claim_settlement(connection, conflict, kept=keep, by=self._by):
                return
            images = images_of(self._runtime.catalog, conflict)
            if images is not None:
                writer = ImageWriter(connection, conflict, images)
                await (writer.put() if keep is conflict.side else writer.take_back())
            elif conflict.operation is ConflictOperation.FAILED:
                batch = _kept(entity, self._back, conflict)
                await self._store.write(connection, [batch], {entity.name: frozenset(batch.keys)})
            transaction.work.touch(entity.name, decode_key(conflict.key))
            await transaction.commit()


def _kept(
    entity: EntityMapping, direction: Direction, conflict: Conflict, *, other: bool = False
) -> StateBatch:
    """What the conflict of a FAILED key says that its own side (or the `other` one) held, as rows to write there."""
    document = json.loads((conflict.before if other else conflict.after) or "{}", parse_float=str)
    tables = [document.get(projection.table.fullname, []) for projection in entity.projections(direction)]
    return StateBatch(
        entity=entity,
        direction=direction,
        keys=(conflict.key,),
        position=_NOWHERE,
        rows=tuple(json.dumps(rows, ensure_ascii=False) for rows in tables),
        present=tuple(frozenset([conflict.key] if rows else []) for rows in tables),
    )


def _on_top(now: StateBatch, *, without: StateBatch, with_it: StateBatch) -> StateBatch:
    """`now` with the columns changed in which `with_it` differs from `without`."""
    tables = [
        _merged(_row(now, number), _row(without, number), _row(with_it, number))
        for number in range(len(now.rows))
    ]
    if tables[0] is None:
        tables = [None] * len(tables)  # without its root row there is no such entity
    return replace(
        now,
        rows=tuple(json.dumps([] if row is None else [row], ensure_ascii=False) for row in tables),
        present=tuple(frozenset() if row is None else frozenset(now.keys) for row in tables),
    )


def _merged(now: Row | None, without: Row | None, with_it: Row | None) -> Row | None:
    if without == with_it:
        return now
    if with_it is None or now is None:
        return with_it
    old = without or {}
    return now | {name: value for name, value in with_it.items() if without is None or old.get(name) != value}


def _unsaid(trial: Trial, before: StateBatch, after: StateBatch) -> list[str]:
    """The fields that the foreign write changes, and that would be carried `after` as they were `before`.

    Such a field would undo the very write that is to be kept.
    """
    said = {name for name, _ in _changes(before, after)}
    return [name for name in trial.changed if name not in said]


def _changes(one: StateBatch, other: StateBatch) -> list[tuple[str, tuple[str | None, str | None]]]:
    """The fields in which two states of one key differ, with both values; None is no row."""
    found = []
    for number, projection in enumerate(one.entity.projections(one.direction)):
        rows = _row(one, number), _row(other, number)
        if rows[0] == rows[1]:
            continue
        for name in dict.fromkeys([*(rows[0] or {}), *(rows[1] or {})]):
            if None in rows or rows[0].get(name) != rows[1].get(name):  # type: ignore[union-attr]
                first, second = [None if row is None else _text(row.get(name)) for row in rows]
                found.append((f"{projection.table.fullname}.{name}", (first, second)))
    return found


def _row(batch: StateBatch, number: int) -> Row | None:
    rows = parsed(batch.rows[number])
    return rows[0] if rows and batch.present[0] else None


def _text(value: object) -> str:
    if value is None:
        return "NULL"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
