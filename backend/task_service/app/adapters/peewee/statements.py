"""A repository's statements in Peewee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any
from weakref import WeakKeyDictionary

from peewee import SQL, PostgresqlDatabase, fn
from playhouse.pwasyncio import AsyncDatabaseMixin  # type: ignore[import-untyped]  # it ships no types

from ...ports import Repositories
from ..rows.all import row_repositories
from ..rows.repository import Statements
from ..rows.shapes import KEY, POSITION, Items, Row, Shape
from .models import Models, make_models

_MODELS: WeakKeyDictionary[Any, Models] = WeakKeyDictionary()


def peewee_repositories(database: AsyncDatabaseMixin) -> Repositories:
    """Repositories that work in the transaction that the current task has open on `database`, which stays the caller's."""
    return row_repositories(PeeweeStatements(database))


def models_of(database: AsyncDatabaseMixin) -> Models:
    """The models bound to `database`, made once."""
    if database not in _MODELS:
        _MODELS[database] = make_models(database)
    return _MODELS[database]


class PeeweeStatements(Statements):
    """Runs in the transaction that the current task has open on a database."""

    def __init__(self, database: AsyncDatabaseMixin) -> None:
        self._database = database
        self._models = models_of(database)

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
        root = self._models[shape.table]
        key = self._field(shape.table, KEY)
        query = root.select(*(self._field(shape.table, name) for name in shape.columns))
        conditions = [self._field(shape.table, name) == value for name, value in equal.items()]
        for (table, owner, column), value in within.items():
            there = (
                self._models[table]
                .select(SQL("1"))
                .where(self._field(table, owner) == key, self._field(table, column) == value)
            )
            conditions.append(fn.EXISTS(there))
        if after is not None:
            conditions.append(key > after)
        if conditions:
            query = query.where(reduce(and_, conditions))
        query = query.order_by(key).limit(limit)
        if lock and isinstance(
            self._database, PostgresqlDatabase
        ):  # on SQLite writers come one after the other
            query = query.for_update()
        return await self._rows(query)

    async def items(self, items: Items[Any], *, owners: Sequence[str]) -> list[Row]:
        owner = self._field(items.table, items.owner)
        columns = [self._field(items.table, name) for name in (items.owner, *items.columns)]
        query = self._models[items.table].select(*columns).where(owner.in_(list(owners)))
        return await self._rows(query.order_by(owner, self._field(items.table, POSITION)))

    async def insert(self, table: str, rows: Sequence[Row]) -> None:
        await self._database.aexecute(self._models[table].insert_many([dict(row) for row in rows]))

    async def update(self, table: str, key: str, values: Row) -> None:
        query = self._models[table].update(**values).where(self._field(table, KEY) == key)
        await self._database.aexecute(query)

    async def delete(self, table: str, *, column: str, value: str) -> bool:
        query = self._models[table].delete().where(self._field(table, column) == value)
        return bool(await self._database.aexecute(query))

    async def _rows(self, query: Any) -> list[Row]:
        return list(await self._database.list(query.dicts()))

    def _field(self, table: str, column: str) -> Any:
        return getattr(self._models[table], column)
