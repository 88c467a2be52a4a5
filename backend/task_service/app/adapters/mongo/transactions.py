"""The unit of work over one MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pymongo
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from backend.shared import ConfigurationError
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.limits import DocumentLimits

from ...core.settings import Address
from ...ports import Repositories
from .errors import explain_mongo_error, is_repeatable_mongo_error
from .indexes import create_indexes
from .repository import mongo_repositories

_ABORT_SECONDS = 5.0


def open_transactions(address: Address, *, limits: DocumentLimits) -> MongoTransactions:
    """Transactions on the database at `address`. Connects to nothing yet."""
    client = create_client(
        address.url, limits=limits, application_name="tandem-task", variable=address.variable
    )
    return MongoTransactions(client, address, limits=limits)


class MongoTransactions:
    """A session and a transaction for each unit of work that writes. Owns the client.

    A unit as a whole takes no longer than `max_time_ms`.
    """

    def __init__(
        self, client: AsyncMongoClient[dict[str, Any]], address: Address, *, limits: DocumentLimits
    ) -> None:
        self._client = client
        self._database = client.get_default_database()
        self._address = address
        # Not the driver's own `pymongo.timeout`, which the waits for a server and for a connection would take for theirs.
        self._seconds = limits.max_time_ms / 1000

    @asynccontextmanager
    async def begin(self, *, only_reads: bool = False) -> AsyncIterator[Repositories]:
        if only_reads:
            async with asyncio.timeout(self._seconds):
                yield mongo_repositories(self._database)
            return
        async with self._client.start_session() as session:
            await session.start_transaction(
                read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
            )
            try:
                async with asyncio.timeout(self._seconds):
                    yield mongo_repositories(self._database, session)
                    await session.commit_transaction()
            except BaseException:
                await _abort(session)
                raise

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
        async with asyncio.timeout(self._seconds):
            await self._database.command("ping")

    async def close(self) -> None:
        await self._client.close()


async def _abort(session: AsyncClientSession) -> None:
    """Abort, if the server hears it in time; if not, it does so by itself when the transaction has lived too long."""
    if session.in_transaction:
        with pymongo.timeout(_ABORT_SECONDS):
            await session.abort_transaction()
