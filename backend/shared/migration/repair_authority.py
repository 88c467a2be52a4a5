"""Repair towards the authoritative side: where the truth lies on the secondary.

The secondary's state goes over as an ordinary write: in a transaction on the authoritative side, captured, so that the
relay carries it on and both sides end equal. It is written only if the authoritative row is still as it was when the
difference was looked at. That transaction is REPEATABLE READ: whoever changes, deletes or inserts the same rows between
its snapshot and its commit makes it fail (40001), and the next try sees what has changed. A lock on the row would not do,
since a row that is missing cannot be locked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.errors import FencedError, SideError
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.mapping import EntityMapping, decode_key
from backend.shared.domain.phases import Direction
from backend.shared.migration.repair_looks import Looks
from backend.shared.migration.repair_results import Identity, RepairOutcome
from backend.shared.migration.repair_writers import Written, help_relay
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.postgres.errors import (
    DEADLOCK_DETECTED,
    FOREIGN_KEY_VIOLATION,
    SERIALIZATION_FAILURE,
)
from backend.shared.stores.postgres.store import PostgresStore
from backend.shared.stores.protocol import StateBatch
from backend.shared.validation.recheck import Look
from backend.shared.validation.statements import statements_of

_CHANGED = Written(
    outcome=RepairOutcome.CHANGED_MEANWHILE, detail="written after it was looked at: that write stands"
)
_ON_ITS_WAY = "written on the {} side; on its way to the {} side"
_HELD_BY_OTHERS = (SERIALIZATION_FAILURE, DEADLOCK_DETECTED, "55P03", "57014")
"""Another transaction holds the row for longer than this waits: that says something about this key, not about the side."""

_NO_WAY_BACK = "the mapping to the {} side cannot say it: {}"

Image = dict[str, Any]


class _CannotSayError(Exception):
    """What is written does not make the fields named differ less: carried on, it would undo the truth."""

    def __init__(self, fields: list[str]) -> None:
        super().__init__(", ".join(fields))


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One key to write: its states on both sides as they were looked at, in the authoritative side's shape."""

    entity: EntityMapping
    look: Look
    here: StateBatch
    there: StateBatch


class AuthorityWriter:
    """Writes the authoritative side from the secondary one, key by key, a short transaction each."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        *,
        direction: Direction,
        epoch: int,
        looks: Looks,
        patience_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._direction = direction
        self._back = Direction.towards(direction.source)
        self._epoch = epoch
        self._looks = looks
        self._patience_seconds = patience_seconds
        self._store = PostgresStore(runtime.names, runtime.catalog)

    async def write(self, looks: Mapping[Identity, Look]) -> dict[Identity, Written]:
        """Write the keys of `looks`, and help the relay to carry them on until both sides are seen to be equal."""
        done = {item: await self._one(item, looks[item]) for item in self._ordered(looks)}
        written = [item for item, result in done.items() if result.outcome is RepairOutcome.REPAIRED]
        seen = await self._looks.settled(
            written,
            patience_seconds=self._patience_seconds,
            help_along=partial(help_relay, self._runtime, self._direction),
        )
        sides = (self._direction.source.value, self._direction.target.value)
        for item, look in seen.items():
            if not look.equal:
                done[item] = Written(outcome=RepairOutcome.MOVING, detail=_ON_ITS_WAY.format(*sides))
        return done

    def _ordered(self, looks: Mapping[Identity, Look]) -> list[Identity]:
        """Deletes children first, then the others parents first."""

        def place(item: Identity) -> tuple[bool, int]:
            stays, rank = looks[item].target.is_there, self._runtime.catalog.rank(item[0])
            return stays, rank if stays else -rank

        return sorted(looks, key=place)

    async def _one(self, item: Identity, look: Look) -> Written:
        side = self._direction.source
        try:
            case = await self._case(item, look)
            if case is None:
                return _CHANGED
            runner = self._runtime.sql_runner(side)
            return await runner.repeat(partial(self._attempt, case))
        except _CannotSayError as error:
            return Written(outcome=RepairOutcome.REFUSED, detail=_NO_WAY_BACK.format(side.value, error))
        except FencedError:
            raise
        except SideError as error:
            if error.unavailable and error.sqlstate not in _HELD_BY_OTHERS:
                raise
            waits = error.sqlstate == FOREIGN_KEY_VIOLATION
            return Written(outcome=RepairOutcome.REFUSED, detail=error.reason, waits=waits)

    async def _case(self, item: Identity, look: Look) -> _Case | None:
        """Both states, read between two looks that saw the same; None if they did not."""
        entity = self._runtime.catalog[item[0]]
        engines, key = self._runtime.engines, [item[1]]
        try:
            async with engines[self._back.target].connect() as connection:
                here = await self._store.read_stored(connection, entity, self._back, keys=key)
            async with engines[self._back.source].connect() as connection:
                there = await self._store.read_state(connection, entity, self._back, keys=key)
        except Exception as error:
            if not is_database_error(error):
                raise
            raise to_side_error(error, self._back.source) from error
        await self._runtime.hook("repair_read")
        if (await self._looks.once([item]))[item] != look:
            return None
        await self._runtime.hook("repair_confirmed")
        return _Case(entity=entity, look=look, here=here, there=there)

    async def _attempt(self, case: _Case) -> Written:
        side = self._direction.source
        runner = self._runtime.sql_runner(side)
        keys = list(case.here.keys)
        async with runner.transaction(
            request_id="repair", journals_touched=True, isolation=Isolation.REPEATABLE_READ
        ) as transaction:
            connection = transaction.connection
            await self._runtime.stores[side].marks.hold_authority(connection, epoch=self._epoch)
            now = await self._store.read_stored(connection, case.entity, self._back, keys=keys)
            await self._runtime.hook("repair_compared")
            if not now.same_rows(case.here):
                return _CHANGED
            before = await self._image(connection, case) if case.look.source is not None else None
            await self._store.write(connection, [case.there], {case.entity.name: frozenset(keys)})
            if before is not None:
                self._check_said(case, before, await self._image(connection, case))
            # By hand too: where rows are equal and only a failure is open, no trigger sees a change.
            transaction.work.touch(case.entity.name, decode_key(keys[0]))
            await transaction.commit()
        await self._runtime.hook("repair_written")
        return Written(outcome=RepairOutcome.REPAIRED)

    async def _image(self, connection: AsyncConnection, case: _Case) -> Image:
        """The fields that a carry to the secondary would read in this transaction."""
        batch = await self._store.read_state(
            connection, case.entity, self._direction, keys=list(case.here.keys)
        )
        image: Image = {}
        for table, rows in zip(statements_of(case.entity, self._direction).tables, batch.rows, strict=True):
            for row in json.loads(rows, parse_float=str):
                image |= {f"{table.name}.{name}": value for name, value in row.items()}
        return image if batch.present[0] else {}

    @staticmethod
    def _check_said(case: _Case, before: Image, after: Image) -> None:
        """Raise unless every field that differed has changed: one that has not would be carried over the truth."""
        if case.look.source is None:
            return
        ours, theirs = case.look.source.fields, case.look.target.fields
        same = [
            name
            for name in sorted(ours.keys() | theirs.keys())
            if (name in ours, ours.get(name)) != (name in theirs, theirs.get(name))
            and (name in before, before.get(name)) == (name in after, after.get(name))
        ]
        if same:
            raise _CannotSayError(same)
