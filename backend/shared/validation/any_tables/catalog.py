"""What a database says of a table: its columns with their types, and the indexes that can tell its rows apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from backend.shared.domain.phases import Side
from backend.shared.validation.any_tables.errors import NAMES, DiffError
from backend.shared.validation.sides import Sides

OLDEST_VERSION = 140000

_FIND = (
    "SELECT current_setting('server_version_num')::int AS version, c.oid::bigint AS oid, c.relkind::text AS kind, "
    "quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name "
    "FROM (SELECT to_regclass($1) AS oid) AS t LEFT JOIN pg_class AS c ON c.oid = t.oid "
    "LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace"
)
# A domain is taken for the type that it is made from: its values are that type's.
_COLUMNS = """
WITH RECURSIVE based (attnum, type, modifier) AS (
    SELECT attnum, atttypid, atttypmod FROM pg_attribute WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT b.attnum, t.typbasetype, t.typtypmod FROM based AS b JOIN pg_type AS t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT a.attname::text AS name, quote_ident(a.attname) AS quoted, a.attnotnull AS not_null,
       format_type(a.atttypid, a.atttypmod) AS declared, format_type(b.type, NULL) AS base,
       t.typtype::text AS kind, n.nspname = 'pg_catalog' AS built_in
FROM based AS b JOIN pg_attribute AS a ON a.attrelid = $1::bigint::oid AND a.attnum = b.attnum
JOIN pg_type AS t ON t.oid = b.type JOIN pg_namespace AS n ON n.oid = t.typnamespace
WHERE t.typtype <> 'd' ORDER BY a.attnum
"""
_INDEXES = """
SELECT (SELECT json_agg(coalesce(a.attname::text, '') ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
        LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts)::text AS columns,
       i.indisprimary AS is_primary, i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL AS is_unique,
       m.amname = 'btree' AND i.indpred IS NULL AS sorts
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
WHERE i.indrelid = $1::bigint::oid AND i.indisvalid ORDER BY i.indisprimary DESC, i.indnkeyatts, c.relname
"""
_TABLES = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. `declared` is its type as it was declared; `base` without length, and without domains."""

    name: str
    quoted: str
    declared: str
    base: str
    kind: str
    built_in: bool
    not_null: bool


@dataclass(frozen=True, kw_only=True)
class Index:
    """The columns of one index; an expression has no name."""

    columns: tuple[str, ...]
    is_primary: bool
    is_unique: bool
    sorts: bool


@dataclass(frozen=True, kw_only=True)
class TableDescription:
    """A table or view. `name` is qualified and quoted."""

    name: str
    kind: str
    columns: Mapping[str, Column]
    indexes: tuple[Index, ...]

    def unique_keys(self) -> list[tuple[str, ...]]:
        """Columns that together are unique and never NULL, the primary key first."""
        return [
            index.columns
            for index in self.indexes
            if index.is_unique
            and all(name in self.columns and self.columns[name].not_null for name in index.columns)
        ]

    def is_key(self, names: tuple[str, ...]) -> bool:
        """Whether an index holds the columns `names` to be unique, in whatever order, and none of them can be NULL."""
        return any(set(key) <= set(names) for key in self.unique_keys()) and all(
            self.columns[name].not_null for name in names
        )

    def sorts(self, names: tuple[str, ...]) -> bool:
        """Whether an index leads through the rows in the order of `names`."""
        return any(index.sorts and index.columns[: len(names)] == names for index in self.indexes)


async def describe_table(sides: Sides, side: Side, table: str) -> TableDescription:
    """Look up `table`, written as in SQL: `name`, `schema.name`, with double quotes where SQL needs them.

    Raises `DiffError` if there is none, or if it may not be looked at.
    """
    label = f"{NAMES[side]}: "
    (found,) = await sides.scan(side, _FIND, table)
    if found["version"] < OLDEST_VERSION:
        raise DiffError(f"{label}the server is older than PostgreSQL {OLDEST_VERSION // 10000}")
    if found["oid"] is None:
        raise DiffError(f"{label}there is no table {table}")
    if found["kind"] not in _TABLES:
        raise DiffError(f"{label}{table} is no table and no view")
    columns = await sides.scan(side, _COLUMNS, found["oid"])
    indexes = await sides.scan(side, _INDEXES, found["oid"])
    return TableDescription(
        name=found["name"],
        kind=_TABLES[found["kind"]],
        columns={row["name"]: Column(**dict(row)) for row in columns},
        indexes=tuple(
            Index(
                columns=tuple(json.loads(row["columns"])),
                is_primary=row["is_primary"],
                is_unique=row["is_unique"],
                sorts=row["sorts"],
            )
            for row in indexes
        ),
    )
