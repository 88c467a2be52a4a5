"""The new shape on the legacy side: read through the projections to new, written through those to legacy.

A write evaluates the entity's own projection to legacy on the legacy server, with the row at hand standing in for the
new side's tables (a WITH query of the same name): so there is one mapping, and it is the one the relay uses.
"""

from __future__ import annotations

import json
from decimal import Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import FromClause, Table
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import JSON as ANY_JSON

from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.mapping import EntityMapping, Key, encode_key
from backend.shared.stores.postgres.projection_sql import ProjectionSql, key_in, quoted, sql_type, table_name
from backend.shared.stores.protocol import json_ready

Rows = dict[str, dict[str, Any]]
"""Values by name of the new side's table."""


class LegacyShape:
    """Reads and writes one entity on the legacy side as if the new side's tables were there."""

    def __init__(self, entity: EntityMapping) -> None:
        if any(projection.function for projection in (*entity.to_new, *entity.to_legacy)):
            raise ConfigurationError(
                f"entity {entity.name} is mapped by Python; write its legacy tables directly"
            )
        self.entity = entity
        self._to_new = [ProjectionSql(entity, projection) for projection in entity.to_new]
        self._to_legacy = [ProjectionSql(entity, projection) for projection in entity.to_legacy]
        self._relations = {p.table.name: p.query.subquery(p.table.name) for p in entity.to_new}
        self._insert = [
            self._insert_sql(sql, first=number == 0) for number, sql in enumerate(self._to_legacy)
        ]
        self._update = [self._update_sql(sql) for sql in self._to_legacy]
        self._current = self._current_sql()

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(entity: EntityMapping) -> LegacyShape:
        """The shape of an entity, compiled once."""
        return LegacyShape(entity)

    def relation(self, table: Table) -> FromClause:
        """The rows of a table of the new side, as the legacy side has them."""
        return self._relations[table.name]

    async def insert(self, session: AsyncSession, rows: Rows) -> Key:
        """Insert an entity; answers its key, from the legacy sequence if `rows` has none."""
        if self.entity.legacy_writer:
            return await self.entity.legacy_writer.insert(session, rows)
        connection = await session.connection()
        root = self.entity.to_new[0]
        key = await self._key_for(session, rows[root.table.name], root.key)
        document = json.dumps(self._complete(self._texts(rows, defaults=True), key))
        for statement in self._insert:
            await connection.exec_driver_sql(statement, (document,))
        return key

    async def _key_for(self, session: AsyncSession, row: dict[str, Any], names: tuple[str, ...]) -> Key:
        given = [row.get(name) for name in names]
        if None not in given:
            return tuple(given)
        source = self.entity.legacy_sources[0]
        if len(names) != 1 or not isinstance(source.keys, tuple):
            raise ConfigurationError(f"entity {self.entity.name} has no key that the legacy side could make")
        connection = await session.connection()
        sequence = f"pg_get_serial_sequence('{table_name(source.table)}', '{source.keys[0]}')"
        return (int((await connection.exec_driver_sql(f"SELECT nextval({sequence})")).scalar_one()),)

    async def update(self, session: AsyncSession, key: Key, rows: Rows) -> bool:
        """Change some values; False if there is no such entity. Columns that keep their value keep their legacy form."""
        if self.entity.legacy_writer:
            return await self.entity.legacy_writer.update(session, key, rows)
        connection = await session.connection()
        text = encode_key(key)
        await connection.exec_driver_sql(self._lock_sql(), ([text],))
        found = (await connection.exec_driver_sql(self._current, ([text],))).scalar_one_or_none()
        current = json.loads(found, parse_float=Decimal) if found else {}
        if current.get(self.entity.to_new[0].table.name) is None:
            return False
        changed = self._texts(rows)
        before = self._complete({name: row or {} for name, row in current.items()}, key)
        after = self._complete({name: (current[name] or {}) | changed.get(name, {}) for name in current}, key)
        for statement in self._update:
            await connection.exec_driver_sql(statement, (json.dumps(before), json.dumps(after)))
        return True

    async def delete(self, session: AsyncSession, key: Key) -> bool:
        """Delete an entity; False if there was none."""
        if self.entity.legacy_writer:
            return await self.entity.legacy_writer.delete(session, key)
        connection = await session.connection()
        text = encode_key(key)
        found = False
        for sql in reversed(self._to_legacy):
            found = (await connection.exec_driver_sql(sql.delete, ([text],))).rowcount > 0
        return found

    def _complete(self, rows: Rows, key: Key) -> dict[str, dict[str, Any]]:
        """Rows for every table of the new side, with the key in each, ready for JSON."""
        return {
            projection.table.name: json_ready(
                rows.get(projection.table.name, {}) | dict(zip(projection.key, key, strict=True))
            )
            for projection in self.entity.to_new
        }

    def _texts(self, rows: Rows, *, defaults: bool = False) -> Rows:
        """`rows` with JSON columns as text and, if asked, the columns' own scalar defaults filled in."""
        texts: Rows = {}
        for projection in self.entity.to_new:
            columns = projection.table.c
            row = dict(rows.get(projection.table.name, {}))
            for item in columns if defaults else ():
                if item.key not in row and item.default is not None and item.default.is_scalar:
                    row[item.key] = item.default.arg  # type: ignore[attr-defined]  # a ScalarElementColumnDefault
            texts[projection.table.name] = {
                name: json.dumps(value) if isinstance(columns[name].type, ANY_JSON) else value
                for name, value in row.items()
            }
        return texts

    def _stand_ins(self, parameter: str) -> str:
        """WITH queries named like the new side's tables, holding the one row of each in JSON `parameter`."""
        parts = []
        for sql in self._to_new:
            name = sql.projection.table.name
            types = ", ".join(
                f"{quoted(item.name)} {'text' if isinstance(item.type, ANY_JSON) else sql_type(item.type)}"
                for item in sql.projection.table.columns
            )
            fields = ", ".join(
                f"r.{quoted(item.name)}::{sql_type(item.type)} AS {quoted(item.name)}"
                for item in sql.projection.table.columns
            )
            parts.append(
                f"{quoted(name)} AS (SELECT {fields} "
                f"FROM json_to_record({parameter}::json -> '{name}') AS r({types}))"
            )
        return "WITH " + ", ".join(parts)

    def _insert_sql(self, sql: ProjectionSql, *, first: bool) -> str:
        conflict = "" if first else f" ON CONFLICT ({', '.join(sql.key)}) DO NOTHING"
        columns = ", ".join(sql.columns)
        return f"{self._stand_ins('$1')} INSERT INTO {sql.table} ({columns}) SELECT {columns} FROM ({sql.query}) AS p{conflict}"

    def _update_sql(self, sql: ProjectionSql) -> str:
        before = f"({self._stand_ins('$1')} SELECT * FROM ({sql.query}) AS p)"
        after = f"({self._stand_ins('$2')} SELECT * FROM ({sql.query}) AS p)"
        others = [name for name in sql.columns if name not in sql.key]
        changes = ", ".join(
            f"{name} = CASE WHEN after.{name} IS DISTINCT FROM before.{name} THEN after.{name} ELSE t.{name} END"
            for name in others
        )
        condition = " AND ".join(f"t.{name} = after.{name}" for name in sql.key)
        return f"UPDATE {sql.table} AS t SET {changes} FROM {after} AS after, {before} AS before WHERE {condition}"

    def _lock_sql(self) -> str:
        sql = self._to_legacy[0]
        return f"SELECT 1 FROM {sql.table} WHERE {key_in(sql.key, self.entity, '$1')} FOR UPDATE"

    def _current_sql(self) -> str:
        fields = ", ".join(
            f"'{sql.projection.table.name}', (SELECT k.r FROM ({sql.keyed_rows(f'({sql.query})', '$1')}) AS k)"
            for sql in self._to_new
        )
        return f"SELECT json_build_object({fields})::text"
