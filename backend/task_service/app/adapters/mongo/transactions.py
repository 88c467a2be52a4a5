"""The unit of work over one MongoDB."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError as DriverConfigurationError
from pymongo.errors import InvalidURI
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from backend.shared import ConfigurationError

from ...core.settings import Address
from ...ports import Repositories
from .errors import explain_mongo_error, is_repeatable_mongo_error
from .indexes import create_indexes
from .repository import mongo_repositories

# In milliseconds; what the URL says wins. No `timeoutMS`: it would be the time to look for a server in as well.
_LIMITS: dict[str, Any] = {
    "maxPoolSize": 10,
    "waitQueueTimeoutMS": 5000,
    "connectTimeoutMS": 5000,
    "serverSelectionTimeoutMS": 5000,
    "socketTimeoutMS": 35000,
}


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
        await create_indexes(self._database)

    async def check(self) -> None:
        await self._database.command("ping")

    async def close(self) -> None:
        await self._client.close()
