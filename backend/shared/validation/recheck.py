"""The second look at keys that seemed to differ: who is merely on the way is not reported (R9, I5).

A key is *different* only when the target's guard, read together with its row, is not newer than the snapshot that read
the source, and that snapshot shows no open journal row for it: then everything up to that snapshot has been carried, and
nothing later has. Else it is looked at again. Keys that a backfill copies have no guard of their own: for them the entity's
floor stands, which is the guard of all keys at once.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from backend.shared.domain.phases import Side
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.store import through_function
from backend.shared.validation.report import FieldMismatch, Mismatch, MismatchKind
from backend.shared.validation.sides import Sides, UnreadableRowError
from backend.shared.validation.statements import EntityStatements

Fields = dict[str, str | None]
FAILED_AT_ONCE = 1_000


@dataclass(frozen=True, kw_only=True)
class Entity:
    """What one side has of a key: the texts of its fields by `table.column`, and whether the root row is there."""

    fields: Fields
    is_there: bool


NOTHING = Entity(fields={}, is_there=False)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One key on both sides. `source` is None where its row cannot be read in the target's types."""

    key: str
    source: Entity | None
    target: Entity
    settled: bool
    """Whether what was seen can be believed: nothing is on its way, and nothing came in between."""
    failed: bool

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same and no failure says otherwise."""
        return self.source == self.target and not self.failed


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """Looks at keys of one entity. `epoch` is the one that the caller believes to hold."""

    sides: Sides
    names: EngineNames
    statements: EntityStatements
    epoch: int
    show_values: bool = False

    async def look(self, keys: Sequence[str]) -> list[Look]:
        """Look at `keys` once: source first, then target, each in one statement."""
        try:
            return await self._look(keys)
        except UnreadableRowError:
            if len(keys) > 1:
                middle = len(keys) // 2
                return [*await self.look(keys[:middle]), *await self.look(keys[middle:])]
            return await self._look(keys, readable=False)

    async def _look(self, keys: Sequence[str], *, readable: bool = True) -> list[Look]:
        source = await self.look_at_source(keys, readable=readable)
        made = self.made_rows(source) if readable else []
        target = await self.look_at_target(keys, made, readable=readable)
        guards = json.loads(target.guards)
        read_at = (self.epoch, source.major, source.minor)
        nothing_copied_since = tuple(json.loads(target.floor or "[0, 0, 0]")) <= read_at
        moving, failed = frozenset(source.open or ()), frozenset(source.failed or ())
        ours = self._entities(self._source_rows(source, target)) if readable else {}
        # Rows of the source beside no root row are no entity: the relay does not carry them either.
        ours = {key: entity for key, entity in ours.items() if entity.is_there}
        theirs = self._entities([getattr(target, f"rows{n}") for n in range(len(self.statements.tables))])
        return [
            Look(
                key=key,
                source=ours.get(key, NOTHING) if readable else None,
                target=theirs.get(key, NOTHING),
                settled=key not in moving
                and nothing_copied_since
                and tuple(guards.get(key, (0, 0, 0))) <= read_at
                # A side that was opened since, or closed in another epoch, is no copy of the source that was read.
                and target.closed_in == self.epoch,
                failed=key in failed,
            )
            for key in keys
        ]

    async def look_at_source(self, keys: Sequence[str], *, readable: bool) -> Any:
        """Position, keys open and failed, and, if they are `readable`, rows by table: see `EntityStatements`."""
        (found,) = await self.sides.ask_source(
            self.statements.look_at_source(self.names, rows=readable),
            list(keys),
            self.statements.entity.name,
        )
        return found

    async def look_at_target(self, keys: Sequence[str], made: Sequence[str], *, readable: bool) -> Any:
        """Guards, floor, mark and rows by table, those of the source that were `made` too: see `EntityStatements`."""
        (found,) = await self.sides.ask_target(
            self.statements.look_at_target(self.names, received_rows=readable),
            list(keys),
            self.statements.entity.name,
            *made,
        )
        return found

    async def failed_pages(self) -> AsyncIterator[list[str]]:
        """Keys with an open failure, some at a time; those that fail meanwhile are left out."""
        entity, last = self.statements.entity, 0
        (most,) = await self.sides.ask_source(f"SELECT coalesce(max(id), 0) AS id FROM {self.names.failure}")
        while True:
            rows = await self.sides.ask_source(
                f"SELECT id, key FROM {self.names.failure} "
                "WHERE entity = $1 AND state = 'open' AND id > $2 AND id <= $3 ORDER BY id LIMIT $4",
                entity.name,
                last,
                most.id,
                FAILED_AT_ONCE,
            )
            if not rows:
                return
            yield [row.key for row in rows]
            last = rows[-1].id

    def made_rows(self, source: Any) -> list[str]:
        """Rows (JSON) of the source by table that the target has to read in its types, where no SQL makes them."""
        return [
            through_function(self.statements.entity, table.sql.projection, getattr(source, f"rows{n}"))[0]
            for n, table in enumerate(self.statements.tables)
            if table.received
        ]

    def _source_rows(self, source: Any, target: Any) -> list[str]:
        """Rows of the source by table; those that a function made were read in the target's types by the target."""
        texts, back = [], 0
        for n, table in enumerate(self.statements.tables):
            if table.received:
                texts.append(getattr(target, f"received{back}"))
                back += 1
            else:
                texts.append(getattr(source, f"rows{n}"))
        return texts

    def _entities(self, texts: Sequence[str]) -> dict[str, Entity]:
        tables = [json.loads(text) for text in texts]
        found = {}
        for key in {key for table in tables for key in table}:
            fields: Fields = {}
            for statements, table in zip(self.statements.tables, tables, strict=True):
                rows = table.get(key, [])
                for row in rows:
                    fields |= {f"{statements.name}.{name}": value for name, value in row.items()}
                if len(rows) > 1:
                    fields[f"{statements.name}.*"] = f"{len(rows)} rows"
            found[key] = Entity(fields=fields, is_there=key in tables[0])
        return found

    def mismatch(self, look: Look) -> Mismatch:
        """`look` as a mismatch, with values only where they may be shown."""
        fields: tuple[FieldMismatch, ...] = ()
        if look.source is not None:
            ours, theirs = look.source.fields, look.target.fields
            names = sorted(
                name
                for name in ours.keys() | theirs.keys()
                if (name in ours, ours.get(name)) != (name in theirs, theirs.get(name))
            )
            fields = tuple(self._field(name, ours, theirs) for name in names)
        return Mismatch(key=look.key, kind=self.kind(look), fields=fields)

    def kind(self, look: Look) -> MismatchKind:
        """How a key differs."""
        if look.failed:
            return MismatchKind.FAILED
        if look.source is None:
            return MismatchKind.UNREADABLE
        if look.source.is_there is look.target.is_there:
            return MismatchKind.DIFFERENT
        missing = self.sides.direction.target if look.source.is_there else self.sides.direction.source
        return MismatchKind.MISSING_IN_NEW if missing is Side.NEW else MismatchKind.MISSING_IN_LEGACY

    def _field(self, name: str, ours: Fields, theirs: Fields) -> FieldMismatch:
        if not self.show_values or name.rpartition(".")[2] in self.statements.entity.secret:
            return FieldMismatch(field=name)
        direction = self.sides.direction
        values = {
            direction.source: ours.get(name, "<no row>"),
            direction.target: theirs.get(name, "<no row>"),
        }
        return FieldMismatch(
            field=name, **{side.value: "NULL" if value is None else value for side, value in values.items()}
        )
