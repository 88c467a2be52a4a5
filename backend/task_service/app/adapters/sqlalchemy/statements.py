"""A repository's statements in SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, and_, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from ...ports import Repositories
from ..rows.all import row_repositories
from ..rows.repository import Statements
from ..rows.shapes import KEY, POSITION, Items, Row, Shape
from .tables import tables


def sqlalchemy_repositories(session: AsyncSession) -> Repositories:
    """Repositories that work in the transaction of `session`, which stays the caller's."""
    return row_repositories(SqlAlchemyStatements(session))


class SqlAlchemyStatements(Statements):
    """Runs in the transaction of a session that is the caller's."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._tables = tables(session.get_bind().dialect.name)

    async def find(
        self,
        shape: Shape[Any],
        *,
        equal: Mapping[str, Any],
        within: Mapping[tuple[str, str, str], Any],
        after: str | None = None,
        limit: int,
        lock: bool = False,
    ) -> list[Row]:
        root = self._tables[shape.table]
        key = root.c[KEY]
        query = select(*(root.c[name] for name in shape.columns))
        query = query.where(*(root.c[name] == value for name, value in equal.items()))
        for (table, owner, column), value in within.items():
            there = self._tables[table]
            query = query.where(exists().where(and_(there.c[owner] == key, there.c[column] == value)))
        if after is not None:
            query = query.where(key > after)
        if lock:
            query = query.with_for_update()  # left out on SQLite, where writers come one after the other
        return await self._rows(query.order_by(key).limit(limit))

    async def items(self, items: Items[Any], *, owners: Sequence[str]) -> list[Row]:
        table = self._tables[items.table]
        columns = (table.c[name] for name in (items.owner, *items.columns))
        query = select(*columns).where(table.c[items.owner].in_(owners))
        return await self._rows(query.order_by(table.c[items.owner], table.c[POSITION]))

    async def insert(self, table: str, rows: Sequence[Row]) -> None:
        await self._session.execute(insert(self._tables[table]), [dict(row) for row in rows])

    async def update(self, table: str, key: str, values: Row) -> None:
        target = self._tables[table]
        await self._session.execute(update(target).where(target.c[KEY] == key).values(dict(values)))

    async def delete(self, table: str, *, column: str, value: str) -> bool:
        target = self._tables[table]
        done = await self._session.execute(delete(target).where(target.c[column] == value))
        return isinstance(done, CursorResult) and done.rowcount > 0

    async def _rows(self, query: Any) -> list[Row]:
        return [dict(row) for row in (await self._session.execute(query)).mappings()]
