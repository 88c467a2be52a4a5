"""Rows that a foreign key asks for and that the target does not have yet: which keys would bring them.

While history is still being copied, a change to a child may come before its parent has. The relay need not wait for the
backfill then: the parent's key is carried like any other, and the child after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.mapping import EntityCatalog, EntityMapping
from backend.shared.domain.phases import Direction
from backend.shared.stores.postgres.projection_sql import ProjectionSql, key_text, quoted
from backend.shared.stores.postgres.store import entity_sql
from backend.shared.stores.protocol import StateBatch

_FOREIGN_KEY = text(
    """
SELECT child.relname AS child, parent.relname AS parent,
       (SELECT array_agg(a.attname ORDER BY k.n) FROM unnest(f.conkey) WITH ORDINALITY AS k(num, n)
          JOIN pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.num) AS columns,
       (SELECT array_agg(a.attname ORDER BY k.n) FROM unnest(f.confkey) WITH ORDINALITY AS k(num, n)
          JOIN pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.num) AS keys
  FROM pg_constraint AS f JOIN pg_class AS child ON child.oid = f.conrelid JOIN pg_class AS parent ON parent.oid = f.confrelid
 WHERE f.contype = 'f' AND f.conname = :name AND f.conrelid = ANY (CAST(:tables AS regclass[]))
   AND f.confrelid = ANY (CAST(:parents AS regclass[]))"""
)


@dataclass(frozen=True, kw_only=True)
class _ParentTable:
    """The root table of an entity, which children point to."""

    entity: EntityMapping
    sql: ProjectionSql


async def missing_parents(
    connection: AsyncConnection, catalog: EntityCatalog, batches: Sequence[StateBatch], name: str | None
) -> dict[str, list[str]]:
    """Keys by entity that the foreign key `name` asks for and the target lacks; nothing where that cannot be told.

    It can where the foreign key points to the key of another entity's root table.
    """
    direction = batches[0].direction
    roots = {
        sql.projection.table.name: _ParentTable(entity=entity, sql=sql)
        for entity in catalog.ordered
        for sql in entity_sql(entity, direction).projections[:1]
    }
    tables = [sql.table for batch in batches for sql in _statements(batch, direction)]
    found = await connection.execute(
        _FOREIGN_KEY,
        {"name": name, "tables": tables, "parents": [root.sql.table for root in roots.values()]},
    )
    row = found.mappings().first()
    if row is None:
        return {}
    root = roots[row["parent"]]
    by_key = dict(zip(row["keys"], row["columns"], strict=True))
    names = [column.name for column in root.sql.projection.key_columns]
    if set(by_key) != set(names):
        return {}
    keys: set[str] = set()
    for batch in batches:
        for sql, rows in zip(_statements(batch, direction), batch.rows, strict=True):
            if sql.projection.table.name == row["child"]:
                keys |= await _absent(connection, root, sql, rows, [by_key[key] for key in names])
    return {root.entity.name: sorted(keys)} if keys else {}


async def _absent(
    connection: AsyncConnection, root: _ParentTable, sql: ProjectionSql, rows: str, columns: Sequence[str]
) -> set[str]:
    pointing = [f"r.{quoted(column)}" for column in columns]
    same = " AND ".join(f"p.{key} = {column}" for key, column in zip(root.sql.key, pointing, strict=True))
    given = " AND ".join(f"{column} IS NOT NULL" for column in pointing)
    found = await connection.exec_driver_sql(
        f"SELECT DISTINCT {key_text(pointing, root.entity.key)} AS k FROM {sql.recordset} "
        f"WHERE {given} AND NOT EXISTS (SELECT 1 FROM {root.sql.table} AS p WHERE {same})",
        (rows,),
    )
    return {row.k for row in found}


def _statements(batch: StateBatch, direction: Direction) -> list[ProjectionSql]:
    return entity_sql(batch.entity, direction).projections
