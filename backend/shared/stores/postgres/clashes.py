"""Unique values that change hands: who holds the value now, and how to let go of it before it is taken.

Two keys that swap a unique value cannot be written one after the other. The keys that hold the value on the target are
found by the clashing index itself, whatever its expressions; the rows are then parked at a value that nobody has.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.mapping import EntityMapping
from backend.shared.stores.postgres.projection_sql import ProjectionSql, key_in, key_text, quoted
from backend.shared.stores.postgres.store import entity_sql
from backend.shared.stores.protocol import StateBatch

_INDEX = text(
    """
SELECT i.indexrelid, t.relname AS table_name, coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_equal,
       NOT i.indimmediate AS deferrable,
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       (SELECT array_agg(pg_get_indexdef(i.indexrelid, n, true) ORDER BY n)
          FROM generate_series(1, i.indnkeyatts) AS n) AS expressions,
       (SELECT array_agg(a.attname ORDER BY a.attnotnull, a.attnum) FROM pg_attribute AS a
         WHERE a.attrelid = i.indrelid AND (a.attnum = ANY (i.indkey::smallint[]) OR a.attnum IN
               (SELECT d.refobjsubid FROM pg_depend AS d
                 WHERE d.objid = i.indexrelid AND d.refobjid = i.indrelid))) AS columns
  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_class AS t ON t.oid = i.indrelid
 WHERE i.indisunique AND c.relname = :name AND t.oid = ANY (CAST(:tables AS regclass[]))"""
)
_COLUMN = text(
    "SELECT a.attnotnull AS not_null, t.typcategory::text AS category, t.typname AS type, "
    "CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 END AS length "
    "FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid "
    "WHERE a.attrelid = CAST(:table AS regclass) AND a.attname = :column"
)


@dataclass(frozen=True, kw_only=True)
class UniqueIndex:
    """A unique index of a target table, as the catalogue describes it."""

    sql: ProjectionSql
    rows: str
    expressions: tuple[str, ...]
    columns: tuple[str, ...]
    predicate: str | None
    nulls_equal: bool
    deferrable: bool


async def find_index(connection: AsyncConnection, batch: StateBatch, name: str | None) -> UniqueIndex | None:
    """The unique index called `name` on one of the tables that `batch` is written to."""
    statements = entity_sql(batch.entity, batch.direction).projections
    row = (
        (await connection.execute(_INDEX, {"name": name, "tables": [sql.table for sql in statements]}))
        .mappings()
        .first()
    )
    if row is None:
        return None
    for sql, rows in zip(statements, batch.rows, strict=True):
        if sql.projection.table.name == row["table_name"]:
            return UniqueIndex(
                sql=sql,
                rows=rows,
                expressions=tuple(row["expressions"]),
                columns=tuple(row["columns"] or ()),
                predicate=row["predicate"],
                nulls_equal=row["nulls_equal"],
                deferrable=row["deferrable"],
            )
    return None


async def holders(connection: AsyncConnection, batch: StateBatch, index: UniqueIndex) -> set[str]:
    """Keys that hold, on the target, a unique value which a row of the batch is to get."""
    entity, sql = batch.entity, index.sql
    same = "IS NOT DISTINCT FROM" if index.nulls_equal else "="
    where = f" WHERE {index.predicate}" if index.predicate else ""

    def keyed(relation: str) -> str:
        values = ", ".join(f"{expression} AS e{n}" for n, expression in enumerate(index.expressions))
        return f"SELECT {key_text(sql.key, entity.key)} AS k, {values} FROM {relation}{where}"

    condition = " AND ".join(f"held.e{n} {same} wanted.e{n}" for n in range(len(index.expressions)))
    found = await connection.exec_driver_sql(
        f"SELECT DISTINCT held.k FROM ({keyed(sql.table)}) AS held "
        f"JOIN ({keyed(sql.recordset)}) AS wanted ON {condition} AND held.k <> wanted.k",
        (index.rows,),
    )
    return {row.k for row in found}


async def let_go(
    connection: AsyncConnection, entity: EntityMapping, index: UniqueIndex, keys: list[str]
) -> None:
    """Take the rows of `keys` out of the unique index's way, in the caller's transaction.

    A deferrable constraint is deferred; else one column of the index is parked. Where no way is known nothing is done,
    and the write that follows is refused as it was before.
    """
    if index.deferrable:
        await connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
        return
    sql = index.sql
    for column in index.columns:
        if quoted(column) in sql.key:
            continue
        value = entity.parked.get(column) or await _parking_value(
            connection, sql, column, nulls_equal=index.nulls_equal
        )
        if value is not None:
            await connection.exec_driver_sql(
                f"UPDATE {sql.table} SET {quoted(column)} = {value} WHERE {key_in(sql.key, entity, '$1')}",
                (keys,),
            )
            return


async def _parking_value(
    connection: AsyncConnection, sql: ProjectionSql, column: str, *, nulls_equal: bool
) -> str | None:
    """SQL for a value of `column` that no row has."""
    row = (await connection.execute(_COLUMN, {"table": sql.table, "column": column})).mappings().one()
    if not row["not_null"] and not nulls_equal:
        return "NULL"
    if row["category"] == "S":
        return f"left('~' || replace(gen_random_uuid()::text, '-', ''), {row['length'] or 33})"
    if row["type"] == "uuid":
        return "gen_random_uuid()"
    if row["type"] in ("int4", "int8", "numeric"):
        return "-(1 + floor(random() * 2147483646))::int"
    return None
