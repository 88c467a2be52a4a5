"""How an entity looks on both sides: its key, and one projection per table and direction.

A projection is a SQLAlchemy select over the tables of one side that yields the rows of one table of the other. It is
written once and used by relay, synchronous write, backfill, validator and repair alike, and by the unit of work to
read and write the new shape while legacy is still authoritative.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Column, FromClause, Select, Table, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.phases import Direction, Side

Key = tuple[Any, ...]
"""The values of an entity's key, in the order of `EntityMapping.key`."""

RowFunction = Callable[[dict[str, Any]], dict[str, Any] | None]
KeysOfChanged = Callable[[FromClause], Select[Any]]


def encode_key(key: Key) -> str:
    """The canonical text of a key, equal to PostgreSQL's `jsonb_build_array(…)::text` for integers and text."""
    return json.dumps([part if isinstance(part, int) else str(part) for part in key], ensure_ascii=False)


def decode_key(text: str) -> Key:
    """The inverse of `encode_key`."""
    return tuple(json.loads(text))


@dataclass(frozen=True, kw_only=True)
class KeyPart:
    """One column of an entity's key, the same on both sides."""

    name: str
    type: TypeEngine[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """The rows of one target table, as a query over the tables of the source side.

    `query` labels its columns with the names of `table`'s columns; columns that it does not name are never written.
    `key` names the columns of `table` that hold the entity's key. The first projection of a direction is the root: an
    entity without a root row does not exist. `function`, where SQL cannot say it, turns one row of the query (as JSON
    values) into one row of `table`, or None for no row: rows then pass through Python, which costs about ten times as
    much per row.
    """

    table: Table
    key: tuple[str, ...]
    query: Select[Any]
    function: RowFunction | None = None
    function_columns: tuple[str, ...] = ()
    """The columns of `table` that `function` yields."""
    many: bool = False
    """Whether an entity may have several rows in `table`; then they are replaced as a whole. Never true of the root."""

    @property
    def columns(self) -> tuple[Column[Any], ...]:
        """The mapped columns of the target table."""
        names = self.function_columns or tuple(str(column.key) for column in self.query.selected_columns)
        return tuple(self.table.c[name] for name in names)

    @property
    def key_columns(self) -> tuple[Column[Any], ...]:
        """The columns of the target table that hold the key."""
        return tuple(self.table.c[name] for name in self.key)


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A table that projections read, and which keys a changed row of it touches.

    `keys` is either the names of the columns that hold the entity's key, or a function that gets the changed rows (OLD
    and NEW alike) and returns a select of keys, for tables that are only looked up.
    """

    table: Table
    keys: tuple[str, ...] | KeysOfChanged

    @property
    def is_direct(self) -> bool:
        """Whether the key stands in the row itself."""
        return isinstance(self.keys, tuple)


class LegacyWriter(Protocol):
    """Hand-written writes to the legacy tables of one entity, where evaluating its projection cannot say it.

    `rows` holds the values by name of the new side's tables, `session` runs on the legacy side.
    """

    async def insert(self, session: AsyncSession, rows: dict[str, dict[str, Any]]) -> Key:
        """Insert the entity; answers its key."""
        ...

    async def update(self, session: AsyncSession, key: Key, rows: dict[str, dict[str, Any]]) -> bool:
        """Change the values named; False if there is no such entity."""
        ...

    async def delete(self, session: AsyncSession, key: Key) -> bool:
        """Delete the entity; False if there is none."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class EntityMapping:
    """One kind of thing a service owns, with a key and one shape per side.

    `parents` names the entities that have to be on a side before this one (foreign keys). `secret` names columns whose
    values are never shown. `legacy_sources` and `new_sources` list every table that the projections read; the first is
    the root table, whose row stands for the entity.
    """

    name: str
    key: tuple[KeyPart, ...]
    to_new: tuple[Projection, ...]
    to_legacy: tuple[Projection, ...]
    legacy_sources: tuple[Source, ...]
    new_sources: tuple[Source, ...]
    parents: tuple[str, ...] = ()
    secret: frozenset[str] = frozenset()
    parked: Mapping[str, str] = field(default_factory=dict)
    """SQL expressions to park a unique column at during a swap, by column name; by default NULL or a random value."""

    legacy_writer: LegacyWriter | None = None
    document: DocumentShape | None = None
    """How the entity looks in a collection of documents, where one of the sides is such a store."""
    is_mirror: bool = False
    """Legacy never had it: its table has a twin there (`mirrors.py`)."""

    def __post_init__(self) -> None:
        for sources in (self.legacy_sources, self.new_sources):
            if not sources or not sources[0].is_direct:
                raise ConfigurationError(
                    f"entity {self.name}: the first source must hold the key in its rows"
                )
        for projection in (*self.to_new, *self.to_legacy):
            if len(projection.key) != len(self.key):
                raise ConfigurationError(
                    f"entity {self.name}: {projection.table.name} needs {len(self.key)} key columns"
                )
            names = {column.name for column in projection.columns}
            if missing := set(projection.key) - names:
                raise ConfigurationError(
                    f"entity {self.name}: the projection of {projection.table.name} lacks its key {sorted(missing)}"
                )

    def projections(self, direction: Direction) -> tuple[Projection, ...]:
        """The projections of one direction, root first."""
        return self.to_new if direction is Direction.TO_NEW else self.to_legacy

    def sources(self, side: Side) -> tuple[Source, ...]:
        """The tables of `side` that are read, root first."""
        return self.legacy_sources if side is Side.LEGACY else self.new_sources

    def new_tables(self) -> tuple[Table, ...]:
        """The tables of the new side, root first."""
        return tuple(projection.table for projection in self.to_new)


Document = Mapping[str, Any]
"""A document as the driver of its store reads it."""
RowsByTable = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows by table's name, their values as JSON: texts, numbers, true, false and None; a numeric, date or json column's as text."""


class UnfitError(Exception):
    """A document that rows cannot hold, or rows that no document can. Names the field and what is wrong, never a value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DocumentShape:
    """How an entity looks in a collection: the document with `_id`, an ObjectId, is that of the key, its 24 digits.

    `rows_of` turns a document into rows of the projections' tables and `document_of` rows back into the document, both
    without loss: `document_of(rows_of(document)) == document`. Both raise `UnfitError` for what does not fit.
    """

    collection: str
    rows_of: Callable[[Document], RowsByTable]
    document_of: Callable[[RowsByTable], Document]
    codec: Any = None
    """How the store's driver is to decode the collection (`CodecOptions`), where its own way would lose or refuse something."""


def document_entity(
    name: str,
    *,
    shape: DocumentShape,
    tables: Mapping[Table, str],
    mapped: Mapping[Table, Sequence[str]] | None = None,
    parents: Sequence[str] = (),
    secret: frozenset[str] = frozenset(),
) -> EntityMapping:
    """An entity that is a document on one side and rows of `tables` on the other, root first, by the column with its key.

    All tables but the root may have several rows of an entity. Without `mapped` all columns of a table are mapped.
    """
    mapped = mapped or {}

    def projection(number: int, table: Table, key: str) -> Projection:
        columns = [table.c[name] for name in mapped.get(table, table.c.keys())]
        return Projection(table=table, key=(key,), query=select(*columns), many=number > 0)

    projections = tuple(projection(number, table, key) for number, (table, key) in enumerate(tables.items()))
    sources = tuple(Source(table=table, keys=(key,)) for table, key in tables.items())
    root, key = next(iter(tables.items()))
    return EntityMapping(
        name=name,
        key=(KeyPart(name=key, type=root.c[key].type),),
        to_new=projections,
        to_legacy=projections,
        legacy_sources=sources,
        new_sources=sources,
        parents=tuple(parents),
        secret=secret,
        document=shape,
    )


def entity_of_table(
    name: str,
    table: Table,
    *,
    twin: Table | None = None,
    parents: Sequence[str] = (),
    secret: frozenset[str] = frozenset(),
) -> EntityMapping:
    """Rows of `table` as an entity whose key is their primary key; on the legacy side they stand in its `twin`.

    Without a twin it is one of a service with a single database.
    """
    legacy = table if twin is None else twin
    keys = tuple(column.name for column in table.primary_key.columns)
    return EntityMapping(
        name=name,
        key=tuple(KeyPart(name=key, type=table.c[key].type) for key in keys),
        to_new=(Projection(table=table, key=keys, query=select(*legacy.c)),),
        to_legacy=(Projection(table=legacy, key=keys, query=select(*table.c)),),
        legacy_sources=(Source(table=legacy, keys=keys),),
        new_sources=(Source(table=table, keys=keys),),
        parents=tuple(parents),
        secret=secret,
        is_mirror=twin is not None,
    )


class EntityCatalog:
    """The entities of one service, parents before children."""

    def __init__(self, entities: Sequence[EntityMapping]) -> None:
        self._by_name = {entity.name: entity for entity in entities}
        if len(self._by_name) != len(entities):
            raise ConfigurationError("two entities bear the same name")
        self.ordered: tuple[EntityMapping, ...] = tuple(self._sorted(entities))
        self._rank = {entity.name: rank for rank, entity in enumerate(self.ordered)}

    def _sorted(self, entities: Sequence[EntityMapping]) -> list[EntityMapping]:
        ordered: list[EntityMapping] = []
        waiting = list(entities)
        while waiting:
            done = {entity.name for entity in ordered}
            ready = [entity for entity in waiting if set(entity.parents) <= done]
            if not ready:
                names = ", ".join(entity.name for entity in waiting)
                raise ConfigurationError(
                    f"entities are each other's parents, or a parent is unknown: {names}"
                )
            ordered += ready
            waiting = [entity for entity in waiting if entity not in ready]
        return ordered

    def __getitem__(self, name: str) -> EntityMapping:
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(self._by_name)
            raise ConfigurationError(f"unknown entity {name!r}; known: {known}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def rank(self, name: str) -> int:
        """Position in parents-first order."""
        return self._rank[name]

    @property
    def only(self) -> EntityMapping | None:
        """The one that is meant where none is named: the only one there is, mirrored tables aside. None if there are several."""
        own = [entity for entity in self.ordered if not entity.is_mirror]
        return own[0] if len(own) == 1 else None

    def owner_of(self, table: Table) -> EntityMapping:
        """The entity that `table` of the new side belongs to."""
        for entity in self.ordered:
            if table in entity.new_tables():
                return entity
        raise ConfigurationError(f"no entity is kept in table {table.name}")
