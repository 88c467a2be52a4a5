"""A repository over one collection."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import structlog
from bson import ObjectId
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

from backend.shared.domain.mapping import UnfitError

from ...domain.errors import StoreRefusedError
from ...domain.people import (
    Assignment,
    AssignmentFilter,
    Label,
    LabelFilter,
    Team,
    TeamFilter,
    User,
    UserFilter,
    WatchList,
    WatchListFilter,
)
from ...domain.tasks import Task, TaskFilter
from ...mapping import CODEC
from ...ports import Repositories
from ..rows.shapes import ASSIGNMENT, LABEL, TASK, TEAM, USER, WATCH_LIST, Shape
from .documents import Documents

Item = TypeVar("Item")
Wanted = TypeVar("Wanted")

LOCKS = "task_service_locks"
STRIPES = 1024

log = structlog.stdlib.get_logger(__name__)


def mongo_repositories(
    database: AsyncDatabase[Any], session: AsyncClientSession | None = None
) -> Repositories:
    """Repositories that work in the transaction of `session`, which stays the caller's; without one, in none."""
    return Repositories(
        tasks=MongoRepository[Task, TaskFilter](database, session, shape=TASK),
        teams=MongoRepository[Team, TeamFilter](database, session, shape=TEAM),
        labels=MongoRepository[Label, LabelFilter](database, session, shape=LABEL),
        assignments=MongoRepository[Assignment, AssignmentFilter](database, session, shape=ASSIGNMENT),
        watch_lists=MongoRepository[WatchList, WatchListFilter](database, session, shape=WATCH_LIST),
        users=MongoRepository[User, UserFilter](database, session, shape=USER),
    )


class MongoRepository(Generic[Item, Wanted]):
    """Things of one shape. What a document holds beyond it is kept.

    A document that does not fit the schema raises StoreRefusedError where it is asked for by its key, and is left out of
    listings, with a warning. The driver's errors come out as they are: whoever runs the transaction has to know them.
    """

    def __init__(
        self, database: AsyncDatabase[Any], session: AsyncClientSession | None = None, *, shape: Shape[Item]
    ) -> None:
        self._documents = Documents(shape)
        self._session = session
        self._locks = database[LOCKS]
        self._collection = database.with_options(codec_options=CODEC)[self._documents.collection]

    async def get(self, item_id: str, *, lock: bool = False) -> Item | None:
        if lock:
            await self._lock(item_id)
        document = await self._find(item_id)
        if document is None:
            return None
        try:
            return self._documents.read(document)
        except UnfitError as error:
            raise self._unfit(item_id, error) from error

    async def list(self, wanted: Wanted, *, after: str | None = None, limit: int) -> list[Item]:
        query = self._documents.query(wanted, after=after)
        found: list[Item] = []
        cursor = self._collection.find(query, session=self._session).sort("_id").batch_size(limit)
        async with cursor:
            async for document in cursor:
                try:
                    found.append(self._documents.read(document))
                except UnfitError as error:
                    log.warning(
                        "document_left_out",
                        collection=self._collection.name,
                        key=str(document.get("_id")),
                        reason=str(error),
                    )
                if len(found) >= limit:
                    break
        return found

    async def save(self, item: Item) -> None:
        key = self._documents.key(item)
        document = await self._find(key)
        try:
            if document is None:
                new = self._documents.new(item)
                await self._collection.insert_one(new, session=self._session)
            elif update := self._documents.change(document, item):
                await self._collection.update_one({"_id": ObjectId(key)}, update, session=self._session)
        except UnfitError as error:
            raise self._unfit(key, error) from error

    async def delete(self, item_id: str) -> bool:
        done = await self._collection.delete_one({"_id": ObjectId(item_id)}, session=self._session)
        return done.deleted_count > 0

    async def _find(self, item_id: str) -> dict[str, Any] | None:
        return await self._collection.find_one({"_id": ObjectId(item_id)}, session=self._session)

    async def _lock(self, item_id: str) -> None:
        """Of two transactions that lock the same key, one fails with a conflict and is to be run again.

        Reading the document holds nobody off, and writing what is there already is no write: so one of several stripes is
        written, which are few and stay.
        """
        if self._session is None:
            return
        stripe = int(item_id, 16) % STRIPES
        await self._locks.update_one(
            {"_id": stripe}, {"$inc": {"turn": 1}}, upsert=True, session=self._session
        )

    def _unfit(self, item_id: str, error: UnfitError) -> StoreRefusedError:
        return StoreRefusedError(f"{self._collection.name} {item_id} does not fit: {error}", store="MongoDB")
