"""The second look at keys that seemed to differ: who is merely on the way is not reported (R9, I5).

A key is *different* only when the target's guard, read together with its row, is not newer than the snapshot that read
the source, and that snapshot shows no open journal row for it: then everything up to that snapshot has been carried, and
nothing later has. Else it is looked at again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.phases import Direction, Side
from backend.shared.stores.postgres.errors import classify
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.protocol import Trouble
from backend.shared.validation.report import FieldMismatch, Mismatch, MismatchKind
from backend.shared.validation.statements import EntityStatements

FIRST_WAIT_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """One key on both sides: fields as text by `table.column`, or None where it is not there."""

    key: str
    source: dict[str, str | None] | None
    target: dict[str, str | None] | None
    settled: bool
    failed: bool

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same and nothing says otherwise."""
        return self.source == self.target and not self.failed


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """Looks again at keys of one entity until they are equal, different, or patience is at an end."""

    engines: dict[Side, AsyncEngine]
    names: EngineNames
    statements: EntityStatements
    direction: Direction
    epoch: int
    show_values: bool = False

    async def judge(
        self, keys: Sequence[str], *, patience_seconds: float
    ) -> tuple[list[Mismatch], list[str]]:
        """Mismatches among `keys`, and those keys that were still moving when `patience_seconds` were over."""
        deadline = time.monotonic() + patience_seconds
        wait, moving, found = FIRST_WAIT_SECONDS, sorted(set(keys)), []
        while moving:
            looks = await self.look(moving)
            found += [self.mismatch(look) for look in looks if look.settled and not look.equal]
            moving = [look.key for look in looks if not look.settled and not look.equal]
            if not moving or time.monotonic() + wait > deadline:
                break
            await asyncio.sleep(wait)
            wait = min(LONGEST_WAIT_SECONDS, wait * 2)
        return found, moving

    async def look(self, keys: Sequence[str]) -> list[Look]:
        """Look at `keys` once: source first, then target, each in one statement.

        A row that its projection cannot read (a text that is no date) cannot be carried either: it counts as failed.
        """
        try:
            return await self._look(keys)
        except DBAPIError as error:
            if classify(error) is not Trouble.REFUSED:
                raise
            if len(keys) == 1:
                return [Look(key=keys[0], source=None, target=None, settled=True, failed=True)]
            middle = len(keys) // 2
            return [*await self.look(keys[:middle]), *await self.look(keys[middle:])]

    async def _look(self, keys: Sequence[str]) -> list[Look]:
        parameters = (list(keys), self.statements.entity.name)
        async with self.engines[self.direction.source].connect() as connection:
            statement = self.statements.look_at_source(self.names)
            source = (await connection.exec_driver_sql(statement, parameters)).one()
        async with self.engines[self.direction.target].connect() as connection:
            statement = self.statements.look_at_target(self.names)
            target = (await connection.exec_driver_sql(statement, parameters)).one()
        guards = json.loads(target.guards)
        read_at = (self.epoch, source.major, source.minor)
        moving, failed = frozenset(source.open or ()), frozenset(source.failed or ())
        of_source, of_target = self._fields(source), self._fields(target)
        return [
            Look(
                key=key,
                source=of_source.get(key),
                target=of_target.get(key),
                settled=key not in moving and tuple(guards.get(key, (0, 0, 0))) <= read_at,
                failed=key in failed,
            )
            for key in keys
        ]

    def _fields(self, row: Any) -> dict[str, dict[str, str | None]]:
        """Fields by key; a key is there if its root row is."""
        columns = [relation.sql.projection.table.name for relation in self.statements.target]
        tables = [json.loads(getattr(row, f"rows{n}")) for n in range(len(columns))]
        found: dict[str, dict[str, str | None]] = {}
        for key in {key for table in tables for key in table}:
            found[key] = {
                f"{name}.{field}": value
                for name, table in zip(columns, tables, strict=True)
                for field, value in table.get(key, {}).items()
            }
        return found

    def mismatch(self, look: Look) -> Mismatch:
        """`look` as a mismatch, with values only where they may be shown."""
        source, target = look.source or {}, look.target or {}
        names = sorted(
            name
            for name in source.keys() | target.keys()
            if source.get(name) != target.get(name) or (name in source) is not (name in target)
        )
        return Mismatch(
            key=look.key, kind=self._kind(look), fields=tuple(self._field(n, source, target) for n in names)
        )

    def _kind(self, look: Look) -> MismatchKind:
        if look.failed:
            return MismatchKind.FAILED
        if look.source is None or look.target is None:
            gone = self.direction.source if look.source is None else self.direction.target
            return MismatchKind.MISSING_IN_NEW if gone is Side.NEW else MismatchKind.MISSING_IN_LEGACY
        return MismatchKind.DIFFERENT

    def _field(
        self, name: str, source: dict[str, str | None], target: dict[str, str | None]
    ) -> FieldMismatch:
        if not self.show_values or name.rpartition(".")[2] in self.statements.entity.secret:
            return FieldMismatch(field=name)
        values = {
            self.direction.source: source.get(name, "<no row>"),
            self.direction.target: target.get(name, "<no row>"),
        }
        return FieldMismatch(
            field=name, **{side.value: "NULL" if value is None else value for side, value in values.items()}
        )
