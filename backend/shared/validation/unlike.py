"""Compares a store of documents with SQL tables (R9): both streamed in key order, in chunks, in one canonical form.

The form is the rows that the document's shape makes: of what the tables hold, the document is made first, since a column of
theirs may say the same in two ways (decision 0012). So equal documents have equal rows, whichever side they come from, and
what a table's type has done to a value shows. Nothing is hashed, since one of the sides could not; a chunk of either side is
all that is held in memory.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from backend.shared.domain.mapping import DocumentShape, EntityMapping, UnfitError
from backend.shared.domain.phases import Direction, Side
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.key_pages import KeyPages
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.protocol import Position, StateBatch, UnfitKeysError
from backend.shared.stores.side import Connection, SideStore, StoreKind
from backend.shared.validation.changes import EntityChanges
from backend.shared.validation.recheck import FAILED_AT_ONCE, NOTHING, Entity, Fields, Look, Recheck
from backend.shared.validation.sides import Sides
from backend.shared.validation.statements import statements_of
from backend.shared.validation.walk import ChunkResult

CHUNK_KEYS = 1_000
UNREADABLE = "<unreadable>"
"""Stands for a field's name where what a side holds is neither a document of this shape nor rows of it."""
Stores = Mapping[Side, SideStore]


def shape_of(entity: EntityMapping) -> DocumentShape:
    """The shape of an entity of documents."""
    if entity.document is None:
        raise TypeError(f"{entity.name} is no document on either side")
    return entity.document


def canonical(store: SideStore, batch: StateBatch) -> dict[str, Entity]:
    """By key, what a side has of it, in the form in which both sides are compared; keys without a root row are left out."""
    tables = [projection.table.name for projection in batch.entity.projections(batch.direction)]
    columns = [projection.key[0] for projection in batch.entity.projections(batch.direction)]
    by_key: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for table, column, text in zip(tables, columns, batch.rows, strict=True):
        for row in json.loads(text, parse_float=Decimal):
            key = json.dumps([row[column]])
            by_key.setdefault(key, {name: [] for name in tables})[table].append(row)
    found = {}
    for key in batch.present[0]:
        rows: Mapping[str, Sequence[Mapping[str, Any]]] = by_key[key]
        try:
            if store.kind is StoreKind.POSTGRES:
                shape = shape_of(batch.entity)
                rows = shape.rows_of(shape.document_of(rows))
        except UnfitError as error:
            found[key] = Entity(fields={UNREADABLE: str(error)}, is_there=True)
        else:
            found[key] = Entity(fields=_fields(rows), is_there=True)
    return found


def _fields(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Fields:
    fields: Fields = {}
    for number, (table, rows) in enumerate(tables.items()):
        for position, row in enumerate(rows):
            place = table if number == 0 else f"{table}[{position}]"
            fields |= {f"{place}.{name}": _text(value) for name, value in row.items()}
    return fields


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


@dataclass(frozen=True, kw_only=True)
class UnlikeRecheck(Recheck):
    """The second look, where one of the sides holds documents.

    In this order: the source's state with its position; then its journal and failures: a key without an open row by then was
    carried, with all that the position has seen, before the target is looked at; then the target's rows, and its guards last: a
    carry that comes in between shows as a guard that is newer than what was read of the source.
    """

    stores: Stores

    @property
    def source(self) -> SideStore:
        """The side that state is carried from."""
        return self.stores[self.sides.direction.source]

    @property
    def target(self) -> SideStore:
        """The side that state is carried to."""
        return self.stores[self.sides.direction.target]

    async def look(self, keys: Sequence[str]) -> list[Look]:
        """Look at `keys` once. Raises `SideError` if a side does not answer."""
        entity = self.statements.entity
        try:
            async with self.source.reading() as connection:
                ours, unfit, position = await self._state(connection, keys)
                moving = await self.source.journal.open_keys(connection, entity.name, keys)
                failed = await self.source.failures.failed_keys(connection, entity.name, keys)
        except Exception as error:
            raise _told(error, self.source.side) from error
        try:
            async with self.target.connect() as connection:
                theirs = await stored(self.target, connection, entity, self.sides.direction, keys)
                guards = await self.target.state.read_guards(connection, entity, keys=keys)
                mark = await self.target.marks.read(connection)
        except Exception as error:
            raise _told(error, self.target.side) from error
        is_copy = not mark.is_open and mark.epoch == self.epoch
        read_at, never = (self.epoch, position), (0, Position(major=0, minor=0))
        return [
            Look(
                key=key,
                source=None if key in unfit else ours.get(key, NOTHING),
                target=theirs.get(key, NOTHING),
                settled=is_copy and key not in moving and guards.get(key, never) <= read_at,
                failed=key in failed,
            )
            for key in keys
        ]

    async def _state(
        self, connection: Connection, keys: Sequence[str]
    ) -> tuple[dict[str, Entity], set[str], Position]:
        state, entity, direction = self.source.state, self.statements.entity, self.sides.direction
        unfit: set[str] = set()
        try:
            batch = await state.read_state(connection, entity, direction, keys=keys)
        except UnfitKeysError as error:
            unfit = set(error.reasons)
            left = [key for key in keys if key not in unfit]
            if not left:
                return {}, unfit, error.position
            batch = await state.read_state(connection, entity, direction, keys=left)
        found = canonical(self.source, batch)
        unfit |= {key for key, item in found.items() if UNREADABLE in item.fields}
        return found, unfit, batch.position

    async def failed_pages(self) -> AsyncIterator[list[str]]:
        """See `Recheck`."""
        last = 0
        while True:
            try:
                async with self.source.reading() as connection:
                    page = await self.source.failures.page(
                        connection, after_id=last, limit=FAILED_AT_ONCE, entity=self.statements.entity.name
                    )
            except Exception as error:
                raise _told(error, self.source.side) from error
            if not page:
                return
            yield [failure.key for failure in page]
            last = page[-1].id


def recheck_of(
    entity: EntityMapping,
    *,
    sides: Sides,
    names: EngineNames,
    epoch: int,
    stores: Stores,
    show_values: bool = False,
) -> Recheck:
    """The second look at keys of `entity`, for sides of these kinds."""
    statements = statements_of(entity, sides.direction)
    if any(store.kind is not StoreKind.POSTGRES for store in stores.values()):
        return UnlikeRecheck(
            sides=sides,
            names=names,
            statements=statements,
            epoch=epoch,
            show_values=show_values,
            stores=stores,
        )
    return Recheck(sides=sides, names=names, statements=statements, epoch=epoch, show_values=show_values)


async def stored(
    store: SideStore,
    connection: Connection,
    entity: EntityMapping,
    direction: Direction,
    keys: Sequence[str],
) -> dict[str, Entity]:
    """By key, what a side itself holds of it; one that is no document of its shape is there, and equal to nothing."""
    unreadable: dict[str, Entity] = {}
    try:
        batch = await store.state.read_stored(connection, entity, direction, keys=keys)
    except UnfitKeysError as error:
        unreadable = {
            key: Entity(fields={UNREADABLE: reason}, is_there=True) for key, reason in error.reasons.items()
        }
        left = [key for key in keys if key not in unreadable]
        if not left:
            return unreadable
        batch = await store.state.read_stored(connection, entity, direction, keys=left)
    return canonical(store, batch) | unreadable


@dataclass(frozen=True, kw_only=True)
class UnlikeComparer:
    """Compares one entity chunk by chunk. Reads only."""

    recheck: UnlikeRecheck
    chunk_keys: int = CHUNK_KEYS

    async def chunks(
        self, *, after: str | None = None, share: float = 1.0, seed: int = 0
    ) -> AsyncGenerator[ChunkResult, None]:
        """Compare all keys behind `after`, chunk by chunk; with `share` below 1, about that share of the chunks."""
        at, number, every, compared = after or None, 0, max(1, round(1 / share)), False
        entity = self.recheck.statements.entity
        pages = [
            KeyPages(store, entity, chunk_keys=self.chunk_keys)
            for store in (self.recheck.source, self.recheck.target)
        ]
        while True:
            ours, theirs, upper = await self._keys(at, pages)
            # At least one: the last, if it comes to that.
            if (number - seed) % every == 0 or (upper is None and not compared):
                compared = True
                yield replace(await self._compare(ours, theirs), resume_at=upper)
            elif upper is None:
                yield ChunkResult(resume_at=None)
            if upper is None:
                return
            at, number = upper, number + 1

    async def among(self, keys: Sequence[str]) -> ChunkResult:
        """Compare `keys` only."""
        found = [
            await self._compare(piece, piece)
            for start in range(0, len(keys), self.chunk_keys)
            if (piece := list(keys[start : start + self.chunk_keys]))
        ]
        return ChunkResult(
            source_rows=sum(item.source_rows for item in found),
            target_rows=sum(item.target_rows for item in found),
            suspects=tuple(key for item in found for key in item.suspects),
        )

    async def _keys(
        self, after: str | None, pages: Sequence[KeyPages]
    ) -> tuple[list[str], list[str], str | None]:
        """Keys of the next chunk on source and target, and its last one; None if it is the end of both."""
        found = []
        for store, ahead in zip((self.recheck.source, self.recheck.target), pages, strict=True):
            try:
                found.append(await ahead.after(after))
            except Exception as error:
                raise _told(error, store.side) from error
        full = [keys[-1] for keys in found if len(keys) == self.chunk_keys]
        upper = min(full) if full else None
        ours, theirs = [[key for key in keys if upper is None or key <= upper] for keys in found]
        return ours, theirs, upper

    async def _compare(self, ours: Sequence[str], theirs: Sequence[str]) -> ChunkResult:
        keys = sorted({*ours, *theirs})
        source = await self._stored(self.recheck.source, keys)
        target = await self._stored(self.recheck.target, keys)
        suspects = {
            key
            for key in keys
            if source.get(key) != target.get(key) or (key in source and UNREADABLE in source[key].fields)
        }
        return ChunkResult(source_rows=len(source), target_rows=len(target), suspects=tuple(sorted(suspects)))

    async def _stored(self, store: SideStore, keys: Sequence[str]) -> dict[str, Entity]:
        if not keys:
            return {}
        recheck = self.recheck
        try:
            async with store.reading() as connection:
                return await stored(
                    store, connection, recheck.statements.entity, recheck.sides.direction, keys
                )
        except Exception as error:
            raise _told(error, store.side) from error


@dataclass(frozen=True, kw_only=True)
class UnlikeChanges:
    """Stands for `Changes` where one side holds documents: which keys have changed since a run is not kept track of."""

    stores: Stores
    direction: Direction

    async def beginning(self, _entity: str) -> Position:
        """Where the source stands."""
        store = self.stores[self.direction.source]
        try:
            async with store.reading() as connection:
                return await store.state.position(connection)
        except Exception as error:
            raise _told(error, store.side) from error

    async def since(self, positions: Mapping[str, Position]) -> dict[str, EntityChanges]:
        """Too many to name, of each: so everything is compared."""
        return {entity: EntityChanges(keys=None) for entity in positions}


def _told(error: Exception, side: Side) -> Exception:
    return to_side_error(error, side) if is_database_error(error) else error
