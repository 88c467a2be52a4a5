"""SQL of a backfill: one entity in one direction, range by range of its keys.

A range is (lower, upper]: canonical keys, either of which may be missing. Where the key's columns are sorted by both
servers in the same way, a range means the same rows on both. Text under a linguistic collation is not: there the source's
own order pages through the keys, since only that has an index, and a range means nothing on the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import String

from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Direction
from backend.shared.stores.postgres import collations
from backend.shared.stores.postgres.projection_sql import (
    ProjectionSql,
    key_in,
    key_text,
    key_values,
    ordered_bound,
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
class KeyRange:
    """Keys above `lower` (or from the first) up to `upper` (or to the last), both canonical."""

    lower: str | None
    upper: str | None


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
        key = [f"q.{name}" for name in self.root.key]
        condition = f"WHERE {self._above(key, '$2')}" if lower else ""
        return (
            f"SELECT {key_text(key, self.entity.key)} AS k FROM ({self.root.query}) AS q {condition} "
            f"ORDER BY {', '.join(key)} LIMIT 1 OFFSET $1::bigint - 1"
        )

    def middle(self, keys: KeyRange) -> tuple[str, list[str]]:
        """The key in the middle of a range of the source, if the range has two keys at least."""
        key = [f"q.{name}" for name in self.root.key]
        condition, parameters = self._within(key, keys)
        numbered = (
            f"SELECT {key_text(key, self.entity.key)} AS k, row_number() OVER (ORDER BY {', '.join(key)}) AS n, "
            f"count(*) OVER () AS total FROM ({self.root.query}) AS q {condition}"
        )
        return f"SELECT k FROM ({numbered}) AS r WHERE n = total / 2", parameters

    def source_keys(self, keys: KeyRange) -> tuple[str, list[str]]:
        """All keys of a range on the source."""
        return self._keys(f"({self.root.query})", keys)

    def target_keys(self, keys: KeyRange, *, most: int) -> tuple[str, list[str]]:
        """The first keys of a range on the target, in their order; of an exact range only."""
        statement, parameters = self._keys(self.root.table, keys)
        order = ", ".join(f"q.{name}" for name in self.root.key)
        return f"{statement} ORDER BY {order} LIMIT {most}", parameters

    def _keys(self, relation: str, keys: KeyRange) -> tuple[str, list[str]]:
        key = [f"q.{name}" for name in self.root.key]
        condition, parameters = self._within(key, keys)
        return f"SELECT {key_text(key, self.entity.key)} AS k FROM {relation} AS q {condition}", parameters

    def rows(self, sql: ProjectionSql, keys: KeyRange) -> str:
        """The rows of one table of a range, as the source makes them, in key order. COPY takes no parameters.

        Rows of a further table beside no root row are none of the entity.
        """
        key = [f"q.{name}" for name in sql.key]
        condition = self._within_literally(key, keys)
        if sql is not self.root:
            root = [f"o.{name}" for name in self.root.key]
            within = self._within_literally(root, keys)
            beside = (
                f"({', '.join(key)}) IN (SELECT {', '.join(root)} FROM ({self.root.query}) AS o {within})"
            )
            condition += f" {'AND' if condition else 'WHERE'} {beside}"
        columns = ", ".join(f"q.{name}" for name in sql.columns)
        order = ", ".join(key)
        return f"SELECT {columns} FROM ({sql.query}) AS q {condition} ORDER BY {order}"

    def is_taken(self, sql: ProjectionSql, keys: KeyRange) -> tuple[str, list[str]]:
        """Whether the target has a row in an exact range."""
        condition, parameters = self._within([f"t.{name}" for name in sql.key], keys)
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

    def remove(self, sql: ProjectionSql, number: int, keys: KeyRange) -> tuple[str, list[str]]:
        """Delete what the target has in an exact range and the source has no longer."""
        condition, parameters = self._within([f"t.{name}" for name in sql.key], keys)
        same = " AND ".join(f"s.{name} = t.{name}" for name in sql.key)
        absent = f"NOT EXISTS (SELECT 1 FROM {stage_name(number)} AS s WHERE {same})"
        return (
            f"DELETE FROM {sql.table} AS t {condition} {'AND' if condition else 'WHERE'} {absent}",
            parameters,
        )

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
        key = [f"q.{name}" for name in sql.key]
        condition = f"WHERE {self._above(key, '$2')}" if lower else ""
        return (
            f"SELECT {key_text(key, self.entity.key)} AS k FROM {sql.table} AS q {condition} "
            f"ORDER BY {', '.join(key)} LIMIT $1::bigint"
        )

    def absent_on_source(self) -> str:
        """Those of the keys in the array `$1` that the source does not have."""
        names = tuple(f"q.{name}" for name in self.root.key)
        present = (
            f"SELECT {key_text(names, self.entity.key)} FROM ({self.root.query}) AS q "
            f"WHERE {key_in(names, self.entity, '$1')}"
        )
        return f"SELECT k FROM unnest($1::text[]) AS k EXCEPT ({present})"

    def failures(self, table: str, keys: KeyRange) -> tuple[str, list[str]]:
        """Open failures of a range, on the source."""
        own = f"f.state = 'open' AND f.entity = '{self.entity.name}'"
        if not self.exact:
            # A key's text out of the failure does not sort as the column does: so ask which keys the range has.
            of_range, parameters = self.source_keys(keys)
            return (
                f"SELECT f.id, f.last_failed_at FROM {table} AS f WHERE {own} AND f.key IN ({of_range})",
                parameters,
            )
        conditions, parameters = [own], []
        for bound, operator in ((keys.lower, ">"), (keys.upper, "<=")):
            if bound is not None:
                parameters.append(bound)
                key = ordered_bound("f.key", self.entity.key)
                limit = ordered_bound(f"${len(parameters)}::text", self.entity.key)
                conditions.append(f"{key} {operator} {limit}")
        return (
            f"SELECT f.id, f.last_failed_at FROM {table} AS f WHERE {' AND '.join(conditions)}",
            parameters,
        )

    def _within_literally(self, key: Sequence[str], keys: KeyRange) -> str:
        condition, parameters = self._within(key, keys)
        for number, value in enumerate(parameters, start=1):
            condition = condition.replace(f"${number}::text", f"{_literal(value)}::text")
        return condition

    def _within(self, key: Sequence[str], keys: KeyRange) -> tuple[str, list[str]]:
        conditions, parameters = [], []
        if keys.lower is not None:
            parameters.append(keys.lower)
            conditions.append(self._above(key, f"${len(parameters)}"))
        if keys.upper is not None:
            parameters.append(keys.upper)
            conditions.append(self._above(key, f"${len(parameters)}", operator="<="))
        return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), parameters

    def _above(self, key: Sequence[str], parameter: str, *, operator: str = ">") -> str:
        """A condition in the columns' own order: what an index has, and where a range is exact the same on both sides."""
        bound = ", ".join(key_values(f"{parameter}::text", self.entity.key))
        return f"({', '.join(key)}) {operator} ({bound})"


def _literal(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


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
