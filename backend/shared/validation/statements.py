"""SQL of the validator: both sides in the types of the target's columns, hashed where they are.

A row's image is the text of its columns in those types, as a record: NULL is not '', a trailing blank counts, -0 is not 0,
time goes to the microsecond, NaN is NaN. Images are compared by count and sum of their 64-bit hashes per chunk, by hash per
key, and by text per field. The image holds the key, so rows that have changed places do not cancel out; a sum, unlike an
exclusive or, does not lose rows that are there twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Column
from sqlalchemy.types import ARRAY, CHAR, JSON, Integer, NullType, String, TypeEngine

from backend.shared.domain.mapping import EntityMapping, Projection
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.projection_sql import (
    POSITION,
    ProjectionSql,
    key_in,
    key_text,
    quoted,
    sql_type,
)


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One table of the target, as one side has it: `typed` is a query of its columns in their own types."""

    sql: ProjectionSql
    typed: str

    def chunk(self, condition: str) -> str:
        """Count and sum of hashes of the rows under `condition`."""
        return (
            f"SELECT count(*) AS n, coalesce(sum({self._hash}::numeric), 0)::text AS h "
            f"FROM ({self.typed}) AS q {condition}"
        )

    def key_hashes(self, condition: str) -> str:
        """Key and hash of each row under `condition`."""
        return f"SELECT {self._key} AS k, {self._hash} AS h FROM ({self.typed}) AS q {condition}"

    def keys(self, condition: str) -> str:
        """Key of each row under `condition`; the other columns are not computed, so none of them can fail."""
        return f"SELECT {self._key} AS k FROM ({self.typed}) AS q {condition}"

    def texts(self, condition: str) -> str:
        """One JSON object for the rows under `condition`: by key, a list of its rows, each with its fields as text."""
        fields = ", ".join(f"(q.{name})::text AS {name}" for name in self.sql.columns)
        return (
            "SELECT coalesce(json_object_agg(x.k, x.r), '{}')::text FROM ("
            f"SELECT {self._key} AS k, json_agg((SELECT to_json(f) FROM (SELECT {fields}) AS f)) AS r "
            f"FROM ({self.typed}) AS q {condition} GROUP BY 1) AS x"
        )

    def bounds(self, *, lower: str | None) -> str:
        """Every `$1`th key in the `$2` rows that follow the key `lower`, in order."""
        names = [f"q.{name}" for name in self.sql.key]
        order = ", ".join(self._ordered_key())
        key = key_text([f"b.{name}" for name in self.sql.key], self.sql.entity.key)
        return (
            f"SELECT {key} AS k FROM (SELECT {', '.join(names)}, row_number() OVER (ORDER BY {order}) AS tandem_n "
            f"FROM ({self.typed}) AS q {self.between(lower=lower, upper=None)} ORDER BY {order} LIMIT $2::bigint) AS b "
            "WHERE b.tandem_n % $1::bigint = 0 ORDER BY b.tandem_n"
        )

    def between(self, *, lower: str | None, upper: str | None) -> str:
        """A condition on the key: above the canonical key in `lower`, up to that in `upper` (both parameters)."""
        conditions = []
        for operator, parameter in ((">", lower), ("<=", upper)):
            if parameter:
                left, right = ", ".join(self._ordered_key()), ", ".join(self._bound(parameter))
                conditions.append(f"({left}) {operator} ({right})")
        return f"WHERE {' AND '.join(conditions)}" if conditions else ""

    def among(self, parameter: str) -> str:
        """A condition on the key: one of the canonical keys in the array `parameter`."""
        return f"WHERE {key_in(tuple(f'q.{name}' for name in self.sql.key), self.sql.entity, parameter)}"

    @property
    def _key(self) -> str:
        return key_text([f"q.{name}" for name in self.sql.key], self.sql.entity.key)

    @property
    def _hash(self) -> str:
        columns = ", ".join(f"q.{name}" for name in self.sql.columns)
        return f"hashtextextended(ROW({columns})::text, 0)"

    def _ordered_key(self) -> list[str]:
        """The key's columns as both sides sort them, whatever their collations."""
        parts = zip(self.sql.key, self.sql.entity.key, strict=True)
        return [
            f'q.{name} COLLATE "C"' if isinstance(part.type, String) else f"q.{name}" for name, part in parts
        ]

    def _bound(self, parameter: str) -> list[str]:
        return [
            f"({parameter}::text::jsonb ->> {n})::{'text' if isinstance(part.type, String) else sql_type(part.type)}"
            for n, part in enumerate(self.sql.entity.key)
        ]


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
    return f"{name}::{'text' if isinstance(kind, String) else sql_type(kind)}"


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
class TableStatements:
    """One table of the target: how it is stored there, and how the source has it.

    Where a Python function makes the rows, `source` has their keys only, and `received` is the table that the function's
    rows (JSON, first parameter) make in the target's database.
    """

    sql: ProjectionSql
    source: Relation
    target: Relation
    received: Relation | None = None

    @classmethod
    def of(cls, sql: ProjectionSql) -> TableStatements:
        """Statements for one projection."""
        projection = sql.projection
        names = [str(column.key) for column in projection.columns]
        stored = {str(column.key): column.type for column in projection.table.columns}
        given = {str(column.key): column.type for column in projection.query.selected_columns}
        target = Relation(sql=sql, typed=_typed(stored, projection, names, sql.table))
        if not projection.function:
            return cls(
                sql=sql,
                source=Relation(sql=sql, typed=_typed(given, projection, names, f"({sql.query})")),
                target=target,
            )
        keys = _typed(given, projection, list(projection.key), f"({sql.query})")
        return cls(
            sql=sql,
            source=Relation(sql=sql, typed=keys),
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
        return [
            (name, f"p.{name}::{'text' if isinstance(part.type, String) else sql_type(part.type)}")
            for name, part in parts
        ]

    @property
    def name(self) -> str:
        """The table's name in what is reported."""
        return self.sql.projection.table.fullname


def _received(sql: ProjectionSql, parameter: str) -> Relation:
    """The rows in the JSON array `parameter` in the types of the target's columns, read there as an apply reads them."""
    stored = {str(column.key): column.type for column in sql.projection.table.columns}
    names = [str(column.key) for column in sql.projection.columns]
    values = f"(SELECT {sql.values()} FROM {sql.recordset_of(parameter)})"
    return Relation(sql=sql, typed=_typed(stored, sql.projection, names, values))


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
        """Guards, mark and fields of the keys `$1` of entity `$2`, in one snapshot.

        With `received_rows`, `$3` and on are the rows that functions made, one parameter per such table; they come back
        as fields too.
        """
        queries = [table.target.texts(table.target.among("$1")) for table in self.tables]
        made = [table for table in self.tables if table.received and received_rows]
        back = [_received(table.sql, f"${n}").texts("") for n, table in enumerate(made, start=3)]
        return (
            "SELECT (SELECT coalesce(json_object_agg(g.key, json_build_array(g.epoch, g.major, g.minor)), '{}')::text "
            f"FROM {names.guard} AS g WHERE g.entity = $2 AND g.key = ANY ($1::text[])) AS guards, "
            f"(SELECT m.epoch FROM {names.mark} AS m WHERE m.state = 'closed') AS closed_in"
            f"{_columns(queries, 'rows')}{_columns(back, 'received')}"
        )


def _columns(queries: list[str], name: str) -> str:
    return "".join(f", ({query}) AS {name}{n}" for n, query in enumerate(queries))
