"""Statements made from an entity's projections: compiled once, parameters `$1…`, rows passed as JSON text.

Rows travel as one JSON document per batch that PostgreSQL builds (`json_agg`) and PostgreSQL reads
(`json_to_recordset`): Python carries the text and never parses it. JSON keeps numerics as they are written; NaN and
the infinities travel as text. Columns of type json/jsonb travel as text inside, since a JSON null would else become
an SQL NULL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from sqlalchemy import Column, Select, Table
from sqlalchemy.dialects.postgresql import asyncpg as pg
from sqlalchemy.types import JSON, String, TypeEngine

from backend.shared.domain.mapping import EntityMapping, KeyPart, Projection
from backend.shared.stores.postgres.key_sql import TEXT, KeyColumns, parts_of

DIALECT = pg.dialect()  # type: ignore[no-untyped-call]
_PREPARER = DIALECT.identifier_preparer

# A function that is STABLE would do as well; inlined it needs nothing installed on the source. The transaction's own
# id is in progress too but left out of its own snapshot: without counting it, a snapshot taken by another transaction
# that sees more could compare as equal.
POSITION = (
    "SELECT pg_snapshot_xmax(s.s)::text::bigint AS major, "
    "-((SELECT count(*) FROM pg_snapshot_xip(s.s)) "
    "+ (coalesce(pg_current_xact_id_if_assigned() < pg_snapshot_xmax(s.s), false))::int)::bigint AS minor "
    "FROM (SELECT pg_current_snapshot() AS s) AS s"
)

ESTIMATED_ROWS = "SELECT reltuples::bigint AS n FROM pg_class WHERE oid = to_regclass($1) AND reltuples >= 0"
"""About how many rows the table `$1` has, as its server estimates it; no row if it has never counted."""


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return str(_PREPARER.quote(name))


def table_name(table: Table) -> str:
    """The qualified name of a table."""
    return str(_PREPARER.format_table(table))


def sql_type(type_: TypeEngine[object]) -> str:
    """The PostgreSQL name of a column type."""
    return str(type_.compile(dialect=DIALECT))


def select_text(query: Select[tuple[object, ...]]) -> str:
    """A query with its constants written in."""
    return str(query.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))


def compared_type(type_: TypeEngine[object]) -> str:
    """The type that values are compared in: texts keep their length, since a cast to one would cut them."""
    return TEXT if isinstance(type_, String) else sql_type(type_)


def key_text(columns: Iterable[str], parts: Iterable[KeyPart]) -> str:
    """SQL for the canonical text of a key held in `columns`."""
    return KeyColumns(columns=list(columns), types=[sql_type(part.type) for part in parts]).text


def key_in(columns: Sequence[str], entity: EntityMapping, parameter: str) -> str:
    """A condition that the key in `columns` is one of the canonical keys in the array `parameter`."""
    return KeyColumns(columns=columns, types=[sql_type(part.type) for part in entity.key]).among(parameter)


def compared_key(columns: Iterable[str], parts: Iterable[KeyPart]) -> KeyColumns:
    """The key in `columns`, to compare with bounds."""
    return KeyColumns(columns=list(columns), types=[compared_type(part.type) for part in parts])


def ordered_bound(key: str, parts: Sequence[KeyPart]) -> str:
    """A canonical key (an SQL expression of type text) as a row in the order that every server has: by bytes."""
    found = compared_key(parts_of(key, [compared_type(part.type) for part in parts]), parts).by_bytes.columns
    return found[0] if len(found) == 1 else f"({', '.join(found)})"


def _is_json(column: Column[object]) -> bool:
    return isinstance(column.type, JSON)


class ProjectionSql:
    """The statements of one projection."""

    def __init__(self, entity: EntityMapping, projection: Projection) -> None:
        self.entity = entity
        self.projection = projection
        self.table = table_name(projection.table)
        self.query = select_text(projection.query)
        self.columns = [quoted(column.name) for column in projection.columns]
        self.key = tuple(quoted(column.name) for column in projection.key_columns)
        self.recordset = self.recordset_of("$1")
        self.upsert = self._upsert()
        self.delete = f"DELETE FROM {self.table} WHERE {key_in(self.key, entity, '$1')}"

    def source_rows(self, *, parameter: str = "$1") -> str:
        """A query of one row: the JSON of the projected rows of the keys in `parameter`, and their keys."""
        return self._rows(f"({self.query})", parameter)

    def stored_rows(self, *, parameter: str = "$1") -> str:
        """The same as `source_rows`, of what the target table itself holds, mapped columns only."""
        return self._rows(self.table, parameter)

    def keyed_rows(self, relation: str, parameter: str) -> str:
        """A query of (k, r): canonical key and JSON of each row of `relation` whose key is in `parameter`."""
        columns = "*"
        if not self.projection.function:
            columns = ", ".join(
                f"p.{name}::text AS {name}" if _is_json(column) else f"p.{name}"
                for name, column in zip(self.columns, self.projection.columns, strict=True)
            )
        condition = key_in(tuple(f"p.{name}" for name in self.key), self.entity, parameter)
        key = key_text([f"q.{name}" for name in self.key], self.entity.key)
        return (
            f"SELECT {key} AS k, to_json(q) AS r "
            f"FROM (SELECT {columns} FROM {relation} AS p WHERE {condition}) AS q ORDER BY {self._order}"
        )

    @property
    def _order(self) -> str:
        # Of several rows of a key the same come in the same order, whichever side they are read on.
        return "1" if not self.projection.many else '1, to_json(q)::text COLLATE "C"'

    def _rows(self, relation: str, parameter: str) -> str:
        return (
            "SELECT coalesce(json_agg(r.r)::text, '[]') AS rows, coalesce(array_agg(r.k), '{}') AS present "
            f"FROM ({self.keyed_rows(relation, parameter)}) AS r"
        )

    def recordset_of(self, parameter: str) -> str:
        """A FROM item: the rows in the JSON array `parameter`, read as the target's types read them."""
        types = ", ".join(
            f"{name} {'text' if _is_json(column) else sql_type(column.type)}"
            for name, column in zip(self.columns, self.projection.columns, strict=True)
        )
        return f"json_to_recordset({parameter}::json) AS r({types})"

    def values(self, alias: str = "r") -> str:
        """The columns of the recordset, in their final types."""
        return ", ".join(
            f"{alias}.{name}::{sql_type(column.type)}" if _is_json(column) else f"{alias}.{name}"
            for name, column in zip(self.columns, self.projection.columns, strict=True)
        )

    def _upsert(self) -> str:
        """Insert or update the rows of JSON `$1` whose key is in `$2`; a row that is equal to the byte stays untouched.

        `*<>` compares images: `IS DISTINCT FROM` would take -0 for 0, 1.0 for 1.00, and 'A' for 'a' in some
        collations, and then not carry the change.
        """
        # `= ANY ($2)` would be hashed only as long as the server plans anew for each array; the plan that it keeps after
        # some executions compares every row with every key.
        key = key_text([f"r.{name}" for name in self.key], self.entity.key)
        moved = f"{key} IN (SELECT unnest($2::text[]))"
        return self.upsert_of(f"SELECT {self.values()} FROM {self.recordset} WHERE {moved}")

    def upsert_of(self, rows: str) -> str:
        """Insert or update what the query `rows` yields, its columns in the order of `columns`."""
        insert = f"INSERT INTO {self.table} AS t ({', '.join(self.columns)}) OVERRIDING SYSTEM VALUE {rows} "
        if self.projection.many:
            return insert.rstrip()  # those that were there have been deleted
        insert += f"ON CONFLICT ({', '.join(self.key)}) DO "
        others = [name for name in self.columns if name not in self.key]
        if not others:
            return insert + "NOTHING"
        assignments = ", ".join(f"{name} = excluded.{name}" for name in others)
        mine = ", ".join(f"t.{name}" for name in others)
        theirs = ", ".join(f"excluded.{name}" for name in others)
        return insert + f"UPDATE SET {assignments} WHERE ROW({mine})::record *<> ROW({theirs})::record"


def mapping_print(projections: Iterable[ProjectionSql]) -> str:
    """A text that changes when something is mapped otherwise."""
    parts = [
        f"{sql.table} {sql.key} {sql.columns} {sql.query} {getattr(sql.projection.function, '__qualname__', '')}"
        for sql in projections
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class EntitySql:
    """The statements of one entity in one direction."""

    def __init__(self, entity: EntityMapping, projections: tuple[Projection, ...]) -> None:
        self.entity = entity
        self.projections = [ProjectionSql(entity, projection) for projection in projections]
        self.read_state = self._read([p.source_rows() for p in self.projections])
        self.read_stored = self._read([p.stored_rows() for p in self.projections])

    @staticmethod
    def _read(queries: list[str]) -> str:
        fields = ", ".join(f"p{n}.rows AS rows{n}, p{n}.present AS present{n}" for n in range(len(queries)))
        tables = ", ".join(f"({query}) AS p{n}" for n, query in enumerate(queries))
        return f"SELECT pos.major, pos.minor, {fields} FROM ({POSITION}) AS pos, {tables}"
