"""The unit of work over one MongoDB."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from pymongo import AsyncMongoClient, IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError as DriverConfigurationError
from pymongo.errors import DuplicateKeyError, InvalidURI, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from backend.shared import ConfigurationError

from ...core.settings import Address
from ...ports import Repositories
from .errors import explain_mongo_error, is_repeatable_mongo_error
from .repository import mongo_repositories

# In milliseconds; what the URL says wins. No `timeoutMS`: it would be the time to look for a server in as well.
_LIMITS: dict[str, Any] = {
    "maxPoolSize": 10,
    "waitQueueTimeoutMS": 5000,
    "connectTimeoutMS": 5000,
    "serverSelectionTimeoutMS": 5000,
    "socketTimeoutMS": 35000,
}
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
"""What the service's own queries and rules need. An index that is there already is left alone."""

log = structlog.stdlib.get_logger(__name__)


def open_transactions(address: Address) -> MongoTransactions:
    """Transactions on the database at `address`. Connects to nothing yet."""
    try:
        parsed = parse_uri(address.url)
        if not parsed["database"]:
            raise ConfigurationError(
                "names no database, as mongodb://host/name does", variable=address.variable
            )
        told = {name.lower() for name in parsed["options"]}
        limits = {name: value for name, value in _LIMITS.items() if name.lower() not in told}
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(address.url, tz_aware=True, **limits)
    except (InvalidURI, DriverConfigurationError, ValueError):
        raise ConfigurationError("is no URL of a MongoDB", variable=address.variable) from None
    return MongoTransactions(client, client[parsed["database"]], address)


class MongoTransactions:
    """A session and a transaction for each unit of work that writes. Owns the client."""

    def __init__(
        self, client: AsyncMongoClient[dict[str, Any]], database: AsyncDatabase[Any], address: Address
    ) -> None:
        self._client = client
        self._database = database
        self._address = address

    @asynccontextmanager
    async def begin(self, *, only_reads: bool = False) -> AsyncIterator[Repositories]:
        if only_reads:
            yield mongo_repositories(self._database)
            return
        async with self._client.start_session() as session:
            transaction = await session.start_transaction(
                read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
            )
            async with transaction:
                yield mongo_repositories(self._database, session)

    def explain(self, error: Exception) -> Exception | None:
        return explain_mongo_error(error)

    def is_repeatable(self, error: Exception) -> bool:
        return is_repeatable_mongo_error(error)

    async def start(self) -> None:
        """See that there are transactions, and make the indexes that are missing."""
        said = await self._database.command("hello")
        if "setName" not in said and said.get("msg") != "isdbgrid":
            raise ConfigurationError(
                "is neither a replica set nor a sharded cluster, and so has no transactions",
                variable=self._address.variable,
            )
        for collection, indexes in INDEXES.items():
            for index in indexes:
                await self._create(collection, index)

    async def _create(self, collection: str, index: IndexModel) -> None:
        try:
            await self._database[collection].create_indexes([index])
        except (DuplicateKeyError, OperationFailure) as error:
            # History breaks the rule, or somebody has an index of this name: the service can do without.
            log.warning(
                "index_not_made", collection=collection, index=index.document["name"], code=error.code
            )

    async def check(self) -> None:
        await self._database.command("ping")

    async def close(self) -> None:
        await self._client.close()
