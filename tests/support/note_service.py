"""A service whose legacy side is a MongoDB and whose new side is PostgreSQL: notes and boards."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pymongo
import pytest
from bson import ObjectId
from prometheus_client import CollectorRegistry

from backend.shared import DualWriteManager, DualWriteSettings, EntityMapping, Key, Phase, Side
from backend.shared.database import DatabaseLimits
from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.observability.metrics import Metrics
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.document_servers import DocumentServer
from tests.support.notes import BOARD, DDL, NOTE, NOTES, digits
from tests.support.people import create_tables

Work = Any
"""The unit of work of either kind."""
DOCUMENTS_FIRST = Phase.DUALWRITE
"""MongoDB is authoritative."""
ROWS_FIRST = Phase.RAMPDOWN
"""PostgreSQL is."""
EITHER_FIRST = pytest.mark.parametrize("phase", [DOCUMENTS_FIRST, ROWS_FIRST], ids=["documents", "rows"])


class NotesManager(DualWriteManager):
    """The front door of the service."""

    service = "notes"

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (NOTE, BOARD)

    async def write_probe(self, work: Work) -> tuple[str, Key]:
        await put(1, 1)(work)
        return "note", (digits(1),)


def put(number: int, n: int) -> Callable[[Work], Awaitable[int]]:
    """A unit that makes a note what it is to be, on a side of either kind."""

    async def unit(work: Work) -> int:
        key = (digits(number),)
        if isinstance(work, DocumentUnitOfWork):
            if not await work.update("note", key, {"n": n}):
                await work.insert("note", {"_id": ObjectId(digits(number)), "n": n})
        elif not await work.update("note", key, {NOTES.c.n: n}):
            await work.insert("note", {NOTES.c.id: digits(number), NOTES.c.n: n})
        return n

    return unit


def gone(number: int) -> Callable[[Work], Awaitable[bool]]:
    """A unit that deletes a note."""

    async def unit(work: Work) -> bool:
        return bool(await work.delete("note", (digits(number),)))

    return unit


async def read_note(work: Work, number: int) -> int | None:
    """What a side holds of a note."""
    found = await work.get("note", (digits(number),))
    return found["n"] if found else None


@dataclass(kw_only=True)
class Servers:
    """Both servers, by the side whose database is on them."""

    cluster: Cluster
    documents: DocumentServer
    were_frozen: bool = False

    def of(self, side: Side) -> Cluster | DocumentServer:
        return self.documents if side is Side.LEGACY else self.cluster

    async def kill(self, *sides: Side) -> None:
        for side in sides:
            await asyncio.to_thread(self.of(side).kill9)

    async def freeze(self, side: Side) -> None:
        self.were_frozen = True
        await asyncio.to_thread(self.of(side).suspend)

    async def bring_back(self) -> None:
        """Both run again."""
        for side in Side:
            await asyncio.to_thread(self.of(side).resume)
            await asyncio.to_thread(self.of(side).start)


@dataclass(frozen=True, kw_only=True)
class NoteDatabases:
    """The two databases, looked at from outside."""

    urls: dict[Side, str]

    async def notes(self, side: Side) -> dict[int, int]:
        """All notes of a side, by number."""
        if side is Side.LEGACY:
            async with pymongo.AsyncMongoClient[dict[str, Any]](self.urls[side]) as client:
                found = await client.get_default_database()["notes"].find().to_list()
            return {int(str(item["_id"]), 16): item["n"] for item in found}
        connection = await asyncpg.connect(self.urls[side])
        try:
            return {int(row["id"], 16): row["n"] for row in await connection.fetch("SELECT * FROM notes")}
        finally:
            await connection.close()

    async def both(self) -> tuple[dict[int, int], dict[int, int]]:
        """Notes of legacy, and of new."""
        return await self.notes(Side.LEGACY), await self.notes(Side.NEW)

    async def own(self, side: Side, name: str) -> list[dict[str, Any]]:
        """What the engine keeps on a side."""
        if side is Side.LEGACY:
            async with pymongo.AsyncMongoClient[dict[str, Any]](self.urls[side]) as client:
                return await client.get_default_database()[f"tandem_notes_{name}"].find().to_list()
        connection = await asyncpg.connect(self.urls[side])
        try:
            return [dict(row) for row in await connection.fetch(f"SELECT * FROM tandem_notes.{name}")]
        finally:
            await connection.close()

    async def sql(self, statement: str) -> None:
        """Run a statement on the new side."""
        await create_tables(self.urls[Side.NEW], statement)

    async def plant(self, side: Side, number: int, n: int) -> None:
        """Another program writes a note."""
        if side is Side.NEW:
            row = f"('{digits(number)}', {n})"
            await self.sql(f"INSERT INTO notes VALUES {row} ON CONFLICT (id) DO UPDATE SET n = {n}")
            return
        async with pymongo.AsyncMongoClient[dict[str, Any]](self.urls[side]) as client:
            await client.get_default_database()["notes"].replace_one(
                {"_id": ObjectId(digits(number))}, {"n": n}, upsert=True
            )

    async def refuse(self, side: Side, number: int) -> None:
        """From now on a side takes no note with this `n`."""
        if side is Side.NEW:
            await self.sql(f"ALTER TABLE notes ADD CONSTRAINT refused_{number} CHECK (n <> {number})")
            return
        async with pymongo.AsyncMongoClient[dict[str, Any]](self.urls[side]) as client:
            await client.get_default_database().command(
                "collMod",
                "notes",
                validator={"$jsonSchema": {"properties": {"n": {"not": {"enum": [number]}}}}},
            )


class MakeNotes(Protocol):
    """Makes an installed manager; closes it after the test."""

    async def __call__(
        self, phase: Phase = DOCUMENTS_FIRST, *, hook: Hook = no_hook, install: bool = True, **settings: Any
    ) -> NotesManager: ...


@pytest.fixture(scope="session")
def durable_documents(worker_directory: Path) -> Iterator[DocumentServer]:
    """A server of documents that keeps what it has committed when it is killed."""
    server = DocumentServer(worker_directory / "durable_documents")
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def servers(services_cluster: Cluster, durable_documents: DocumentServer) -> AsyncIterator[Servers]:
    """Both servers; whatever a test does to them, they run afterwards."""
    servers = Servers(cluster=services_cluster, documents=durable_documents)
    yield servers
    await servers.bring_back()


@pytest.fixture
async def note_databases(
    servers: Servers, make_database: Callable[..., Awaitable[str]]
) -> AsyncIterator[NoteDatabases]:
    new_url = await make_database(servers.cluster)
    await create_tables(new_url, ";".join(DDL))
    name = f"t_{secrets.token_hex(6)}"
    yield NoteDatabases(urls={Side.LEGACY: servers.documents.url(name), Side.NEW: new_url})
    if (
        servers.were_frozen
    ):  # a transaction that was given up stays open there for long, and nothing is dropped meanwhile
        await servers.kill(Side.LEGACY)
    await servers.bring_back()
    await asyncio.to_thread(servers.documents.drop_database, name)


PATIENT = DatabaseLimits(statement_seconds=5, lock_seconds=5, connect_seconds=5, pool_wait_seconds=5)
IMPATIENT = DatabaseLimits(statement_seconds=2, lock_seconds=2, connect_seconds=1, pool_wait_seconds=2)
"""For tests with a server that hangs; on a busy machine one that does not may take as long."""


@pytest.fixture
async def make_notes(note_databases: NoteDatabases, servers: Servers) -> AsyncIterator[MakeNotes]:
    made: list[NotesManager] = []

    async def make(
        phase: Phase = DOCUMENTS_FIRST,
        *,
        hook: Hook = no_hook,
        install: bool = True,
        limits: DatabaseLimits = PATIENT,
        **settings: Any,
    ) -> NotesManager:
        chosen = DualWriteSettings(
            service="notes",
            legacy_database_url=note_databases.urls[Side.LEGACY],
            database_url=note_databases.urls[Side.NEW],
            phase=phase,
            async_legacy=False,
            retry_delay_seconds=0.0,
            timeout_seconds=2.0,
        )
        manager = NotesManager(
            settings=replace(chosen, **settings),
            metrics=Metrics(CollectorRegistry()),
            hook=hook,
            document_limits=DocumentLimits(
                server_selection_timeout_ms=1000,
                connect_timeout_ms=1000,
                wait_queue_timeout_ms=2000,
                max_time_ms=2000,
                socket_timeout_ms=2500,
            ),
            limits=limits,
        )
        made.append(manager)
        if install:
            await manager.install()
        await manager.start()
        return manager

    yield make
    await servers.bring_back()
    for manager in made:
        await manager.close()
