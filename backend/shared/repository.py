"""The common part of a service's repositories: an entity's rows as objects, on whichever side a unit of work runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import Column, ColumnElement, Select, select

from backend.shared.domain.mapping import EntityMapping, Key
from backend.shared.unit_of_work import UnitOfWork

T = TypeVar("T")


class Repository(ABC, Generic[T]):
    """Objects of one entity, for one unit of work. A subclass names the entity, says what a row is, and asks its own questions.

    Values are given by the names of the new side's columns, and go to whichever of the entity's tables has them.
    """

    entity: ClassVar[EntityMapping]

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._root = work.shape(self.entity.new_tables()[0])

    async def get(self, *key: Any) -> T | None:
        """The object with this key."""
        names = self.entity.to_new[0].key
        return await self._first(*(self._root.c[name] == part for name, part in zip(names, key, strict=True)))

    async def hold(self, *key: Any) -> T | None:
        """The object as it is once nobody else changes it, and until the unit ends."""
        return await self.get(*key) if await self._work.lock(self.entity, key) else None

    async def delete(self, *key: Any) -> bool:
        """Delete an object; False if there was none."""
        return await self._work.delete(self.entity, key)

    @abstractmethod
    def _object(self, row: dict[str, Any]) -> T:
        """A row of `_query` as what the service speaks of."""

    def _query(self) -> Select[Any]:
        """What is read of each; all columns of the root table, if a subclass says nothing else."""
        return select(self._root)

    async def _first(self, *conditions: ColumnElement[bool]) -> T | None:
        return next(iter(await self._all(self._query().where(*conditions))), None)

    async def _all(self, query: Select[Any]) -> list[T]:
        return [self._object(row) for row in await self._work.rows(query)]

    async def _latest(self, *conditions: ColumnElement[bool], before_id: int | None, limit: int) -> list[T]:
        """Up to `limit` with ids below `before_id`, the latest first."""
        query = self._query().where(*conditions)
        if before_id is not None:
            query = query.where(self._root.c.id < before_id)
        return await self._all(query.order_by(self._root.c.id.desc()).limit(limit))

    async def _insert(self, **values: Any) -> Key:
        """Insert one; answers its key, made by the side if it is not given."""
        return await self._work.insert(self.entity, _by_column(self.entity, values))

    async def _change(self, *key: Any, **values: Any) -> bool:
        """Give one other values; False if there is none."""
        return await self._work.update(self.entity, key, _by_column(self.entity, values))


def _by_column(entity: EntityMapping, values: Mapping[str, Any]) -> dict[Column[Any], Any]:
    columns = _columns(entity)
    return {columns[name]: value for name, value in values.items()}


@lru_cache(maxsize=256)
def _columns(entity: EntityMapping) -> Mapping[str, Column[Any]]:
    """The columns of the entity's tables by name; of two of the same name the one that stands nearer to the root."""
    return {column.key: column for table in reversed(entity.new_tables()) for column in table.c}
