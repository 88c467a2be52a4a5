"""Compares a store of documents with SQL tables (R9): both streamed in key order, in chunks, in the types of the tables.

What a document holds is turned into rows by its shape, and the SQL side reads these as a carry would write them: so equal
values print alike, whichever side they come from. Nothing is hashed, since one of the sides could not; a chunk of either side
is all that is held in memory.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Direction, Side
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.postgres.projection_sql import ProjectionSql
from backend.shared.stores.protocol import Position, StateBatch, UnfitKeysError
from backend.shared.stores.side import SideStore, StoreKind
from backend.shared.validation.changes import EntityChanges
from backend.shared.validation.recheck import FAILED_AT_ONCE, Recheck
from backend.shared.validation.relation import Among
from backend.shared.validation.sides import UnreadableRowError
from backend.shared.validation.statements import EntityStatements, TableStatements, received
from backend.shared.validation.walk import ChunkResult

CHUNK_KEYS = 1_000
Stores = Mapping[Side, SideStore]


@lru_cache(maxsize=1024)
def unlike_statements_of(entity: EntityMapping, direction: Direction) -> EntityStatements:
    """Statements on the SQL side, where every row of the documents is one that it receives."""
    tables = []
    for projection in entity.projections(direction):
        sql = ProjectionSql(entity, projection)
        tables.append(replace(TableStatements.of(sql), received=received(sql, "$1")))
    return EntityStatements(entity=entity, tables=tuple(tables))


@dataclass(frozen=True, kw_only=True)
class UnlikeRecheck(Recheck):
    """The second look, where one of the sides holds documents.

    Of a source of documents, journal and failures are read after the snapshot of the state, and before the target: a key
    without an open row by then was carried, with all that the snapshot had seen, before the target is looked at.
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

    async def look_at_source(self, keys: Sequence[str], *, readable: bool) -> Any:
        """See `Recheck`."""
        if self.source.kind is StoreKind.POSTGRES:
            plain = replace(
                self.statements, tables=tuple(replace(t, received=None) for t in self.statements.tables)
            )
            return await Recheck.look_at_source(
                Recheck(sides=self.sides, names=self.names, statements=plain, epoch=self.epoch),
                keys,
                readable=readable,
            )
        store, name = self.source, self.statements.entity.name
        try:
            async with store.reading() as connection:
                position, rows = await self._documents(connection, keys, readable=readable)
                opened = await store.journal.open_keys(connection, name, keys)
                failed = await store.failures.failed_keys(connection, name, keys)
        except UnfitKeysError as error:
            raise UnreadableRowError from error
        except Exception as error:
            raise _told(error, store.side) from error
        found = {
            "major": position.major,
            "minor": position.minor,
            "open": list(opened),
            "failed": list(failed),
        }
        return SimpleNamespace(**found, **{f"rows{n}": text for n, text in enumerate(rows)})

    async def _documents(
        self, connection: Any, keys: Sequence[str], *, readable: bool
    ) -> tuple[Position, Sequence[str]]:
        if not readable:
            return await self.source.state.position(connection), ()
        batch = await self.source.state.read_state(
            connection, self.statements.entity, self.sides.direction, keys=keys
        )
        return batch.position, batch.rows

    def made_rows(self, source: Any) -> list[str]:
        """See `Recheck`."""
        if self.source.kind is StoreKind.POSTGRES:
            return []
        return [getattr(source, f"rows{n}") for n in range(len(self.statements.tables))]

    async def look_at_target(self, keys: Sequence[str], made: Sequence[str], *, readable: bool) -> Any:
        """See `Recheck`."""
        if self.target.kind is StoreKind.POSTGRES:
            return await super().look_at_target(keys, made, readable=readable)
        store, entity = self.target, self.statements.entity
        try:
            async with store.connect() as connection:
                mark = await store.marks.read(connection)
                guards = await store.state.read_guards(connection, entity, keys=keys)
                stored = await store.state.read_stored(connection, entity, self.sides.direction, keys=keys)
        except UnfitKeysError as error:
            raise UnreadableRowError from error
        except Exception as error:
            raise _told(error, store.side) from error
        told = {key: [epoch, at.major, at.minor] for key, (epoch, at) in guards.items()}
        texts = await self.in_tables_types(stored.rows)
        return SimpleNamespace(
            guards=json.dumps(told),
            floor=None,
            closed_in=None if mark.is_open else mark.epoch,
            **{f"rows{n}": text for n, text in enumerate(texts)},
        )

    def _source_rows(self, source: Any, target: Any) -> list[str]:
        name, answer = (
            ("received", target) if self.source.kind is not StoreKind.POSTGRES else ("rows", source)
        )
        return [getattr(answer, f"{name}{n}") for n in range(len(self.statements.tables))]

    async def in_tables_types(self, rows: Sequence[str]) -> list[str]:
        """By table, the fields of JSON `rows` as the SQL side reads and prints them."""
        sql_side = next(side for side, store in self.stores.items() if store.kind is StoreKind.POSTGRES)
        queries = [
            received(table.sql, f"${n}").texts("") for n, table in enumerate(self.statements.tables, start=1)
        ]
        fields = ", ".join(f"({query}) AS rows{n}" for n, query in enumerate(queries))
        (found,) = await self.sides.ask(sql_side, f"SELECT {fields}", *rows)
        return [getattr(found, f"rows{n}") for n in range(len(queries))]

    async def failed_pages(self) -> AsyncIterator[list[str]]:
        """See `Recheck`."""
        if self.source.kind is StoreKind.POSTGRES:
            async for keys in super().failed_pages():
                yield keys
            return
        last = 0
        while True:
            async with self.source.reading() as connection:
                page = await self.source.failures.page(
                    connection, after_id=last, limit=FAILED_AT_ONCE, entity=self.statements.entity.name
                )
            if not page:
                return
            yield [failure.key for failure in page]
            last = page[-1].id


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
        while True:
            ours, theirs, upper = await self._keys(at)
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

    async def _keys(self, after: str | None) -> tuple[list[str], list[str], str | None]:
        """Keys of the next chunk on source and target, and its last one; None if it is the end of both."""
        found = []
        for store in (self.recheck.source, self.recheck.target):
            try:
                async with store.reading() as connection:
                    found.append(
                        await store.state.keys_after(
                            connection, self.recheck.statements.entity, after=after, limit=self.chunk_keys
                        )
                    )
            except Exception as error:
                raise _told(error, store.side) from error
        full = [keys[-1] for keys in found if len(keys) == self.chunk_keys]
        upper = min(full) if full else None
        ours, theirs = [[key for key in keys if upper is None or key <= upper] for keys in found]
        return ours, theirs, upper

    async def _compare(self, ours: Sequence[str], theirs: Sequence[str]) -> ChunkResult:
        keys = sorted({*ours, *theirs})
        if not keys:
            return ChunkResult()
        source, unfit = await self._texts(self.recheck.source, keys)
        target, unreadable = await self._texts(self.recheck.target, keys)
        differing = {key for key in keys if source.get(key) != target.get(key)}
        return ChunkResult(
            source_rows=len(source) + len(unfit),
            target_rows=len(target) + len(unreadable),
            suspects=tuple(sorted(differing | unfit | unreadable)),
        )

    async def _texts(self, store: SideStore, keys: Sequence[str]) -> tuple[dict[str, list[Any]], set[str]]:
        """By key, its rows by table as texts; keys without a root row are left out. And keys that cannot be read so."""
        recheck = self.recheck
        if store.kind is StoreKind.POSTGRES:
            selected = Among(keys=tuple(keys))
            texts = []
            for table in recheck.statements.tables:
                condition, parameters = selected.of(table.target)
                ((text,),) = await recheck.sides.ask(store.side, table.target.texts(condition), *parameters)
                texts.append(text)
            return _by_key(texts), set()
        try:
            batch, unfit = await self._fit(store, keys)
        except Exception as error:
            raise _told(error, store.side) from error
        if batch is None:
            return {}, unfit
        try:
            return _by_key(await recheck.in_tables_types(batch.rows)), unfit
        except UnreadableRowError:
            return await self._halved(store, [key for key in keys if key not in unfit], unfit)

    async def _halved(
        self, store: SideStore, keys: Sequence[str], unfit: set[str]
    ) -> tuple[dict[str, list[Any]], set[str]]:
        """One of `keys` has a value that its column's type does not take: find it."""
        if len(keys) == 1:
            return {}, unfit | set(keys)
        found: dict[str, list[Any]] = {}
        for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
            texts, more = await self._texts(store, half)
            found |= texts
            unfit |= more
        return found, unfit

    async def _fit(self, store: SideStore, keys: Sequence[str]) -> tuple[StateBatch | None, set[str]]:
        entity, direction = self.recheck.statements.entity, self.recheck.sides.direction
        async with store.reading() as connection:
            try:
                return await store.state.read_stored(connection, entity, direction, keys=keys), set()
            except UnfitKeysError as error:
                unfit = set(error.reasons)
            left = [key for key in keys if key not in unfit]
            if not left:
                return None, unfit
            return await store.state.read_stored(connection, entity, direction, keys=left), unfit


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


def _by_key(texts: Sequence[str]) -> dict[str, list[Any]]:
    tables = [json.loads(text) for text in texts]
    return {key: [table.get(key, []) for table in tables] for key in tables[0]}


def _told(error: Exception, side: Side) -> Exception:
    return to_side_error(error, side) if is_database_error(error) else error
