"""A side of documents with its units: what tests of MongoDB alone ask."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from bson import ObjectId

from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.document_units import DocumentUnitRunner
from backend.shared.domain.phases import Direction, Phase
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.collections import Client
from backend.shared.stores.mongo.journal import LEASE_SECONDS
from backend.shared.stores.mongo.side import MongoSide
from backend.shared.stores.protocol import Position
from tests.contract.conftest import NoBreaker
from tests.support.note_sides import note_side
from tests.support.notes import CATALOG, NOTE, digits, key

T = TypeVar("T")


class Scene:
    """A side of documents, its units, and what it holds."""

    def __init__(self, client: Client, database: str) -> None:
        self._client = client
        self._database = database
        self.side = self.process()
        self.runner = DocumentUnitRunner(self.side, catalog=CATALOG, breaker=NoBreaker())

    def process(self, *, hook: Hook = no_hook, lease_seconds: float = LEASE_SECONDS) -> MongoSide:
        return note_side(self._client, self._database, hook=hook, lease_seconds=lease_seconds)

    async def run(
        self,
        work: Callable[[DocumentUnitOfWork], Awaitable[T]],
        *,
        only_reads: bool = False,
        even_if_closed: bool = False,
    ) -> T:
        """Run a unit."""

        async def attempt() -> T:
            async with self.runner.transaction(
                request_id="r",
                journals_touched=True,
                only_reads=only_reads,
                even_if_closed=even_if_closed,
            ) as transaction:
                found = await work(transaction.work)
                await transaction.commit()
            return found

        return await self.runner.repeat(attempt)

    async def put(self, entity: str, number: int, **fields: Any) -> None:
        """Write a document, whatever was there, by a unit."""
        document = {"_id": ObjectId(digits(number)), **fields}

        async def write(work: DocumentUnitOfWork) -> None:
            await work.delete(entity, (digits(number),))
            await work.insert(entity, document)

        await self.run(write)

    async def read(self, side: MongoSide, number: int) -> tuple[Position, int]:
        """Position and value of a note."""
        async with side.reading() as connection:
            state = await side.state.read_state(connection, NOTE, Direction.TO_NEW, keys=[key(number)])
        return state.position, json.loads(state.rows[0])[0]["n"]


@asynccontextmanager
async def limited(document_url: str, *, max_time_ms: int) -> AsyncIterator[Scene]:
    """A scene whose units have so much time."""
    client = create_client(document_url, application_name="test")
    scene = Scene(client, document_url.rpartition("/")[2].partition("?")[0])
    await scene.side.install(phase=Phase.DUALWRITE, epoch=1, foreign_writes="report")
    scene.side.unit_seconds = max_time_ms / 1000
    try:
        yield scene
    finally:
        await client.close()


@pytest.fixture
async def scene(document_url: str) -> AsyncIterator[Scene]:
    """On a database of its own."""
    client = create_client(document_url, application_name="test")
    found = Scene(client, document_url.rpartition("/")[2].partition("?")[0])
    await found.side.install(phase=Phase.DUALWRITE, epoch=1, foreign_writes="report")
    yield found
    await client.close()
