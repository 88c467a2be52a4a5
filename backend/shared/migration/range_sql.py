"""SQL of a backfill: one entity in one direction, range by range of its keys.

A range is (lower, upper]: canonical keys, either of which may be missing. Where the key's columns are sorted by both
servers in the same way, a range means the same rows on both. Text under a linguistic collation is not: there the source's
own order pages through the keys, since only that has an index, and a range means nothing on the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import String

from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Direction
from backend.shared.stores.postgres import collations
from backend.shared.stores.postgres.key_sql import KeyColumns, KeyRange, also, nth_key, parts_of
from backend.shared.stores.postgres.projection_sql import (
    ProjectionSql,
    compared_key,
    compared_type,
    key_in,
    key_text,
    table_name,
)
from backend.shared.stores.postgres.store import entity_sql

# Types whose binary form means the same on every server.
_BINARY = frozenset(
    {
        *("boolean", "bytea", '"char"', "name", "bigint", "smallint", "integer", "real", "double precision"),
        *("text", "character varying", "character", "json", "jsonb", "numeric", "uuid", "interval", "date"),
        *("time without time zone", "time with time zone"),
        *("timestamp without time zone", "timestamp with time zone"),
    }
)
_TEXTS = frozenset({"text", "character varying"})
# Types whose text in COPY is that in JSON.
_SAME_TEXT = _TEXTS | {"bigint", "smallint", "integer", "numeric", "uuid", "character", "name", "date"}


@dataclass(frozen=True, kw_only=True)
class EntityRanges:
    """The statements for one entity. `exact`: a range means the same rows on both sides."""

    entity: EntityMapping
    direction: Direction
    exact: bool
    forms: tuple[str, ...]
    """By table, the form of COPY: binary or text; or empty, where COPY does not write what a carry writes."""

    @property
    def lock_source(self) -> str:
        """Keep the source's tables from being rewritten until the transaction ends."""
        tables = dict.fromkeys(
            table_name(source.table) for source in self.entity.sources(self.direction.source)
        )
        return f"LOCK TABLE {', '.join(tables)} IN ACCESS SHARE MODE"

    @property
    def tables(self) -> list[ProjectionSql]:
        """The target's tables, root first."""
        return entity_sql(self.entity, self.direction).projections

    @property
    def root(self) -> ProjectionSql:
        """The table whose row stands for the entity."""
        return self.tables[0]

    @property
    def by_keys(self) -> bool:
        """Whether rows go the way of a carry, key by key: where a Python function makes them, or COPY would differ."""
        return not all(self.forms)

    def form(self, sql: ProjectionSql) -> str:
        """The form in which the rows of a table are copied."""
        return self.forms[self.tables.index(sql)]

    def bound(self, *, lower: bool) -> str:
        """The `$1`th key of the source (above the key `$2`), if there are that many."""
        key = self._key(self.root, "q")
        return nth_key(
            self.root.query,
            names=key.columns,
            text=key_text(key.columns, self.entity.key),
            condition=key.between(lower="$2" if lower else None, upper=None),
            order=key.columns,
        )

    def middle(self, keys: KeyRange) -> tuple[str, tuple[str, ...]]:
        """The key in the middle of a range of the source, if the range has two keys at least."""
        key = self._key(self.root, "q")
        condition, parameters = keys.of(key)
        numbered = (
            f"SELECT {key_text(key.columns, self.entity.key)} AS k, "
            f"row_number() OVER (ORDER BY {', '.join(key.columns)}) AS n, "
            f"count(*) OVER () AS total FROM ({self.root.query}) AS q {condition}"
        )
        return f"SELECT k FROM ({numbered}) AS r WHERE n = total / 2", parameters

    def source_keys(self, keys: KeyRange) -> tuple[str, tuple[str, ...]]:
        """All keys of a range on the source."""
        return self._keys(f"({self.root.query})", keys)

    def target_keys(self, keys: KeyRange, *, most: int) -> tuple[str, tuple[str, ...]]:
        """The first keys of a range on the target, in their order; of an exact range only."""
        statement, parameters = self._keys(self.root.table, keys)
        order = ", ".join(f"q.{name}" for name in self.root.key)
        return f"{statement} ORDER BY {order} LIMIT {most}", parameters

    def _keys(self, relation: str, keys: KeyRange) -> tuple[str, tuple[str, ...]]:
        key = self._key(self.root, "q")
        condition, parameters = keys.of(key)
        text = key_text(key.columns, self.entity.key)
        return f"SELECT {text} AS k FROM {relation} AS q {condition}", parameters

    def rows(self, sql: ProjectionSql, keys: KeyRange) -> str:
        """The rows of one table of a range, as the source makes them, in key order. COPY takes no parameters.

        Rows of a further table beside no root row are none of the entity.
        """
        key = self._key(sql, "q")
        condition = keys.literally(key)
        if sql is not self.root:
            root = self._key(self.root, "o")
            roots = f"SELECT {', '.join(root.columns)} FROM ({self.root.query}) AS o {keys.literally(root)}"
            condition = also(condition, f"({', '.join(key.columns)}) IN ({roots})")
        columns = ", ".join(f"q.{name}" for name in sql.columns)
        order = ", ".join(key.columns)
        return f"SELECT {columns} FROM ({sql.query}) AS q {condition} ORDER BY {order}"

    def is_taken(self, sql: ProjectionSql, keys: KeyRange) -> tuple[str, tuple[str, ...]]:
        """Whether the target has a row in an exact range."""
        condition, parameters = keys.of(self._key(sql, "t"))
        return f"SELECT EXISTS (SELECT 1 FROM {sql.table} AS t {condition})", parameters

    def stage(self, sql: ProjectionSql, number: int) -> str:
        """A table for this transaction alone with the mapped columns of `sql`, and no constraints."""
        return (
            f"CREATE TEMP TABLE {stage_name(number)} ON COMMIT DROP AS "
            f"SELECT {', '.join(sql.columns)} FROM {sql.table} WITH NO DATA"
        )

    def merge(self, sql: ProjectionSql, number: int) -> str:
        """Insert or update what was staged."""
        order = ", ".join(f"s.{name}" for name in sql.key)
        return sql.upsert_of(
            f"SELECT {', '.join(f's.{name}' for name in sql.columns)} FROM {stage_name(number)} AS s ORDER BY {order}"
        )

    def remove(self, sql: ProjectionSql, number: int, keys: KeyRange) -> tuple[str, tuple[str, ...]]:
        """Delete what the target has in an exact range and the source has no longer."""
        condition, parameters = keys.of(self._key(sql, "t"))
        same = " AND ".join(f"s.{name} = t.{name}" for name in sql.key)
        absent = f"NOT EXISTS (SELECT 1 FROM {stage_name(number)} AS s WHERE {same})"
        return f"DELETE FROM {sql.table} AS t {also(condition, absent)}", parameters

    def remove_beside(self, sql: ProjectionSql, number: int) -> str:
        """Delete what a further table has of the staged keys and the source has no longer."""
        pairs = zip(sql.key, self.root.key, strict=True)
        staged = " AND ".join(f"o.{root} = t.{name}" for name, root in pairs)
        same = " AND ".join(f"s.{name} = t.{name}" for name in sql.key)
        return (
            f"DELETE FROM {sql.table} AS t WHERE EXISTS (SELECT 1 FROM {stage_name(0)} AS o WHERE {staged}) "
            f"AND NOT EXISTS (SELECT 1 FROM {stage_name(number)} AS s WHERE {same})"
        )

    def target_page(self, sql: ProjectionSql, *, lower: bool) -> str:
        """The next `$1` keys of a target's table (above the key `$2`), in the order that its index has."""
        key = self._key(sql, "q")
        condition = key.between(lower="$2" if lower else None, upper=None)
        return (
            f"SELECT {key_text(key.columns, self.entity.key)} AS k FROM {sql.table} AS q {condition} "
            f"ORDER BY {', '.join(key.columns)} LIMIT $1::bigint"
        )

    def absent_on_source(self) -> str:
        """Those of the keys in the array `$1` that the source does not have."""
        names = tuple(f"q.{name}" for name in self.root.key)
        present = (
            f"SELECT {key_text(names, self.entity.key)} FROM ({self.root.query}) AS q "
            f"WHERE {key_in(names, self.entity, '$1')}"
        )
        return f"SELECT k FROM unnest($1::text[]) AS k EXCEPT ({present})"

    def failures(self, table: str, keys: KeyRange) -> tuple[str, tuple[str, ...]]:
        """Open failures of a range, on the source."""
        own = f"f.state = 'open' AND f.entity = '{self.entity.name}'"
        if not self.exact:
            # A key's text out of the failure does not sort as the column does: so ask which keys the range has.
            of_range, parameters = self.source_keys(keys)
            return (
                f"SELECT f.id, f.last_failed_at FROM {table} AS f WHERE {own} AND f.key IN ({of_range})",
                parameters,
            )
        types = [compared_type(part.type) for part in self.entity.key]
        key = compared_key(parts_of("f.key", types), self.entity.key)
        condition, parameters = keys.of(key.by_bytes)
        return f"SELECT f.id, f.last_failed_at FROM {table} AS f {also(condition, own)}", parameters

    def _key(self, sql: ProjectionSql, alias: str) -> KeyColumns:
        """The key of a table in the columns' own order: what an index has, and where a range is exact the same on both sides."""
        return compared_key([f"{alias}.{name}" for name in sql.key], self.entity.key)


def stage_name(number: int) -> str:
    """The staging table of the entity's table with this number."""
    return f"tandem_stage_{number}"


async def ranges_of(
    source: AsyncConnection, target: AsyncConnection, entity: EntityMapping, direction: Direction
) -> EntityRanges:
    """The statements for `entity`, made for how both databases sort its key and for the types that they have."""
    tables = entity_sql(entity, direction).projections
    exact = True
    texts = [number for number, part in enumerate(entity.key) if isinstance(part.type, String)]
    if texts:
        exact = await _encoding(source) == await _encoding(target)
        for sql in tables:
            names = [sql.key[number] for number in texts]
            exact = exact and await _sorts_by_bytes(source, sql.query, names)
            exact = exact and await _sorts_by_bytes(target, f"TABLE {sql.table}", names)
    forms = tuple([await _form(source, target, sql) for sql in tables])
    return EntityRanges(entity=entity, direction=direction, exact=exact, forms=forms)


async def _sorts_by_bytes(connection: AsyncConnection, query: str, columns: list[str]) -> bool:
    return bool((await connection.exec_driver_sql(collations.sorts_by_bytes(query, columns))).scalar_one())


async def _encoding(connection: AsyncConnection) -> str:
    return str((await connection.execute(text("SHOW server_encoding"))).scalar_one())


async def _form(source: AsyncConnection, target: AsyncConnection, sql: ProjectionSql) -> str:
    """How COPY takes the rows of a table: in binary, as text, or not at all.

    Binary where each column has the same built-in type on both sides. Text where the text of a value is what the JSON of a
    carry has as well: of true, of a date with its time or of an array it is not, unless the same type reads it.
    """
    if sql.projection.function:
        return ""
    columns = ", ".join(sql.columns)
    ours = await _types(source, f"SELECT {columns} FROM ({sql.query}) AS q LIMIT 0")
    theirs = await _types(target, f"SELECT {columns} FROM {sql.table} LIMIT 0")
    pairs = list(zip(ours, theirs, strict=True))
    if all((one == other and one in _BINARY) or {one, other} <= _TEXTS for one, other in pairs):
        return "binary"
    return "text" if all(one == other or one in _SAME_TEXT for one, other in pairs) else ""


async def _types(connection: AsyncConnection, query: str) -> list[str]:
    """The types of the columns of a query without rows, by name."""
    description: Any = (await connection.exec_driver_sql(query)).cursor.description
    oids = [int(column[1]) for column in description or ()]
    found = await connection.exec_driver_sql(
        "SELECT t.oid::int8 AS oid, format_type(t.oid, NULL) AS name FROM pg_type AS t WHERE t.oid = ANY ($1::oid[])",
        (oids,),
    )
    names = {row.oid: row.name for row in found}
    return [names[oid] for oid in oids]
