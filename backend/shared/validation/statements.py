"""SQL of the validator: both sides in the types of the target's columns, hashed where they are.

A row's image holds its columns in those types, exactly (`images`): NULL is not '', a trailing blank counts, -0 is not 0,
time goes to the microsecond, NaN is NaN. Images are compared by count and sum of their 64-bit hashes per chunk, by hash per
key, and by text per field. The image holds the key, so rows that have changed places do not cancel out; a sum, unlike an
exclusive or, does not lose rows that are there twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import Column
from sqlalchemy.types import ARRAY, CHAR, JSON, Integer, NullType, String, TypeEngine

from backend.shared.domain.mapping import EntityMapping, Projection
from backend.shared.domain.phases import Direction
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.projection_sql import (
    POSITION,
    ProjectionSql,
    compared_type,
    quoted,
    sql_type,
)
from backend.shared.validation.relation import KeyColumn, Relation, TablePair, ValueColumn


def _relation(sql: ProjectionSql, typed: str) -> Relation:
    return Relation(
        typed=typed,
        key=tuple(
            KeyColumn(name=name, sql_type=compared_type(part.type))
            for name, part in zip(sql.key, sql.entity.key, strict=True)
        ),
        columns=tuple(
            ValueColumn(name=name, sql_type=compared_type(column.type))
            for name, column in zip(sql.columns, sql.projection.columns, strict=True)
        ),
    )


def _typed(
    columns: Mapping[str, TypeEngine[object]], projection: Projection, names: list[str], source: str
) -> str:
    fields = ", ".join(
        f"{_in_type_of(projection.table.c[name], columns.get(name))} AS {quoted(projection.table.c[name].name)}"
        for name in names
    )
    return f"SELECT {fields} FROM {source} AS p"


def _in_type_of(column: Column[object], given: TypeEngine[object] | None) -> str:
    """`p.column` in its type as the target would store it; `given` is the type that the source declares, if known.

    Where the types are of different families the value goes the way that a carry goes, through JSON: a cast would take
    1.5 for 2 and 7 for true. Texts keep their length, since a cast to one would make a value fit that does not.
    """
    name, kind = f"p.{quoted(column.name)}", column.type
    if _family(kind) != _family(given) and not isinstance(kind, ARRAY | JSON):
        name = f"(to_json({name}) #>> '{{}}')"
    if isinstance(kind, CHAR):
        return f"rtrim({name}::text, ' ')"
    return f"{name}::{compared_type(kind)}"


def _family(kind: TypeEngine[object] | None) -> str:
    if kind is None or isinstance(kind, NullType):
        return "unknown"
    if isinstance(kind, Integer):
        return "integer"
    if isinstance(kind, String):
        return "text"
    before, _, after = sql_type(kind).partition("(")
    return before.strip() + after.partition(")")[2]


@dataclass(frozen=True, kw_only=True)
class TableStatements(TablePair):
    """One table of the target: how it is stored there, and how the source has it.

    Where a Python function makes the rows, `source` has their keys only, and `received` is the table that the function's
    rows (JSON, first parameter) make in the target's database.
    """

    sql: ProjectionSql

    @classmethod
    def of(cls, sql: ProjectionSql) -> TableStatements:
        """Statements for one projection."""
        projection = sql.projection
        names = [str(column.key) for column in projection.columns]
        stored = {str(column.key): column.type for column in projection.table.columns}
        given = {str(column.key): column.type for column in projection.query.selected_columns}
        target = _relation(sql, _typed(stored, projection, names, sql.table))
        if not projection.function:
            return cls(
                sql=sql,
                source=_relation(sql, _typed(given, projection, names, f"({sql.query})")),
                target=target,
            )
        keys = _typed(given, projection, list(projection.key), f"({sql.query})")
        return cls(
            sql=sql,
            source=_relation(sql, keys),
            target=target,
            received=_received(sql, "$1"),
        )

    def documents(self, condition: str) -> str:
        """One JSON array: the rows of the source under `condition` as a Python function gets them."""
        key = ", ".join(f"{field} AS {name}" for name, field in self._key_fields())
        return (
            "SELECT coalesce(json_agg(to_json(d.p)), '[]')::text AS rows FROM ("
            f"SELECT p, q.* FROM ({self.sql.query}) AS p, LATERAL (SELECT {key}) AS q {condition}) AS d"
        )

    def _key_fields(self) -> list[tuple[str, str]]:
        parts = zip(self.sql.key, self.sql.entity.key, strict=True)
        return [(name, f"p.{name}::{compared_type(part.type)}") for name, part in parts]

    @property
    def name(self) -> str:
        """The table's name in what is reported."""
        return self.sql.projection.table.fullname


def _received(sql: ProjectionSql, parameter: str) -> Relation:
    """The rows in the JSON array `parameter` in the types of the target's columns, read there as an apply reads them."""
    stored = {str(column.key): column.type for column in sql.projection.table.columns}
    names = [str(column.key) for column in sql.projection.columns]
    values = f"(SELECT {sql.values()} FROM {sql.recordset_of(parameter)})"
    return _relation(sql, _typed(stored, sql.projection, names, values))


@dataclass(frozen=True, kw_only=True)
class EntityStatements:
    """The tables of one entity in one direction, root first."""

    entity: EntityMapping
    tables: tuple[TableStatements, ...]

    @classmethod
    def of(cls, entity: EntityMapping, projections: tuple[Projection, ...]) -> EntityStatements:
        """Statements for `projections`."""
        tables = tuple(TableStatements.of(ProjectionSql(entity, projection)) for projection in projections)
        return cls(entity=entity, tables=tables)

    def look_at_source(self, names: EngineNames, *, rows: bool = True) -> str:
        """Position, open and failed keys and, with `rows`, fields of the keys `$1` of entity `$2`, in one snapshot.

        Of a table that a function makes: the function's rows to come.
        """
        queries = [
            table.documents(table.source.among("$1"))
            if table.received
            else table.source.texts(table.source.among("$1"))
            for table in self.tables
        ]
        return (
            f"SELECT pos.major, pos.minor, "
            f"(SELECT array_agg(DISTINCT j.key) FROM {names.journal} AS j WHERE j.entity = $2 "
            "AND j.key = ANY ($1::text[])) AS open, "
            f"(SELECT array_agg(f.key) FROM {names.failure} AS f WHERE f.entity = $2 AND f.state = 'open' "
            f"AND f.key = ANY ($1::text[])) AS failed{_columns(queries if rows else [], 'rows')} "
            f"FROM ({POSITION}) AS pos"
        )

    def look_at_target(self, names: EngineNames, *, received_rows: bool = True) -> str:
        """Guards, floor, mark and fields of the keys `$1` of entity `$2`, in one snapshot.

        With `received_rows`, `$3` and on are the rows that functions made, one parameter per such table; they come back
        as fields too.
        """
        queries = [table.target.texts(table.target.among("$1")) for table in self.tables]
        made = [table for table in self.tables if table.received and received_rows]
        back = [_received(table.sql, f"${n}").texts("") for n, table in enumerate(made, start=3)]
        return (
            "SELECT (SELECT coalesce(json_object_agg(g.key, json_build_array(g.epoch, g.major, g.minor)), '{}')::text "
            f"FROM {names.guard} AS g WHERE g.entity = $2 AND g.key = ANY ($1::text[])) AS guards, "
            f"(SELECT json_build_array(f.epoch, f.major, f.minor)::text FROM {names.guard_floor} AS f WHERE f.entity = $2) "
            "AS floor, "
            f"(SELECT m.epoch FROM {names.mark} AS m WHERE m.state = 'closed') AS closed_in"
            f"{_columns(queries, 'rows')}{_columns(back, 'received')}"
        )


@lru_cache(maxsize=1024)
def statements_of(entity: EntityMapping, direction: Direction) -> EntityStatements:
    """The statements that compare `entity` in `direction`."""
    return EntityStatements.of(entity, entity.projections(direction))


def _columns(queries: list[str], name: str) -> str:
    return "".join(f", ({query}) AS {name}{n}" for n, query in enumerate(queries))
