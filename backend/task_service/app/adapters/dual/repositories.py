"""The repositories of a unit of work of the engine, on whichever side it runs."""

from __future__ import annotations

import builtins
from typing import Any, Generic, TypeVar, cast

from backend.shared import UnitOfWork
from backend.shared.document_unit_of_work import DocumentUnitOfWork

from ...ports import Repositories, Repository
from ..mongo.repository import mongo_repositories
from ..sqlalchemy.statements import sqlalchemy_repositories

LABELS = "labels"
_ENTITIES = {
    "tasks": "tasks",
    "teams": "teams",
    "labels": LABELS,
    "assignments": "task_assignments",
    "watch_lists": "watchlists",
    "users": "users",
}
"""The engine's names of what the repositories keep."""

Item = TypeVar("Item")
Wanted = TypeVar("Wanted")


class TouchingRepository(Generic[Item, Wanted]):
    """A repository whose writes tell the unit of work which keys they touch."""

    def __init__(self, inner: Repository[Item, Wanted], work: UnitOfWork, *, entity: str) -> None:
        self._inner = inner
        self._work = work
        self._entity = entity

    async def get(self, item_id: str, *, lock: bool = False) -> Item | None:
        """See `Repository`."""
        return await self._inner.get(item_id, lock=lock)

    async def list(self, wanted: Wanted, *, after: str | None = None, limit: int) -> builtins.list[Item]:
        """See `Repository`."""
        return await self._inner.list(wanted, after=after, limit=limit)

    async def save(self, item: Item) -> None:
        """See `Repository`."""
        self._work.touch(self._entity, (cast("Any", item).id,))
        await self._inner.save(item)

    async def delete(self, item_id: str) -> bool:
        """See `Repository`."""
        self._work.touch(self._entity, (item_id,))
        return await self._inner.delete(item_id)


def repositories_of(work: UnitOfWork) -> Repositories:
    """Repositories in the transaction of `work`."""
    given: Any = work
    if isinstance(given, DocumentUnitOfWork):
        inner = mongo_repositories(given.database, given.session)
    else:
        inner = sqlalchemy_repositories(work.session)
    touching = {
        name: TouchingRepository(getattr(inner, name), work, entity=entity)
        for name, entity in _ENTITIES.items()
    }
    return Repositories(**cast("Any", touching))
