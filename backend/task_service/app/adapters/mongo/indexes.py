"""The indexes of the collections: what the service's own queries and rules need."""

from __future__ import annotations

from typing import Any

import structlog
from pymongo import IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, OperationFailure

_TEXT = {"$type": "string"}
INDEXES: dict[str, list[IndexModel]] = {
    "users": [
        IndexModel("email_id", unique=True, partialFilterExpression={"email_id": _TEXT}),
        IndexModel("google_id", unique=True, partialFilterExpression={"google_id": _TEXT}),
    ],
    "teams": [
        IndexModel("invite_code", unique=True, partialFilterExpression={"invite_code": _TEXT}),
        IndexModel("created_by"),
    ],
    "labels": [IndexModel("name")],
    "tasks": [IndexModel("created_by"), IndexModel("labels")],
    "task_assignments": [IndexModel("task_id"), IndexModel("user_id")],
    "watchlists": [IndexModel("user_id")],
}

log = structlog.stdlib.get_logger(__name__)


async def create_indexes(database: AsyncDatabase[Any]) -> None:
    """Make the indexes that are missing; may be repeated. One that is there already, under any name, is left alone.

    One that cannot be made, as history breaks its rule, is told in the log: the service can do without. Raises what the
    driver raises for a server that is away.
    """
    for collection, indexes in INDEXES.items():
        for index in indexes:
            try:
                await database[collection].create_indexes([index])
            except (DuplicateKeyError, OperationFailure) as error:
                log.warning(
                    "index_not_made", collection=collection, index=index.document["name"], code=error.code
                )
