"""The ways of writing one document, or its row, that are measured against each other."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from alembic import command
from alembic.config import Config
from bson import ObjectId
from prometheus_client import CollectorRegistry
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.shared import DualWriteSettings, Phase, UnitOfWork
from backend.shared.database import DatabaseLimits
from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.observability.metrics import Metrics
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.testing.document_servers import DocumentServer
from backend.shared.testing.programs import REPOSITORY
from backend.task_service.app.core.dual_write_manager import TaskDualWriteManager
from backend.task_service.app.models import METADATA
from benchmarks.stack import POOL_SIZE, Stack, run_sql
from benchmarks.ways import Operation, plain_engine

LABELS = METADATA.tables["labels"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A database of documents, which is legacy, and one of rows, which is new; both empty at first."""

    documents_url: str
    rows_url: str

    def manager(self, *, phase: Phase, async_legacy: bool = True) -> TaskDualWriteManager:
        """A manager of the pair; whoever asks for it closes it."""
        settings = DualWriteSettings(
            legacy_database_url=self.documents_url,
            database_url=self.rows_url,
            phase=phase,
            async_legacy=async_legacy,
            batch_size=1_000,
            validate_sync=False,
        )
        return TaskDualWriteManager(
            settings=settings,
            metrics=Metrics(CollectorRegistry()),
            limits=DatabaseLimits(pool_size=POOL_SIZE),
            document_limits=DocumentLimits(max_pool_size=POOL_SIZE),
        )


@dataclass(frozen=True, kw_only=True)
class DocumentWay:
    """One way of writing. `open` gives the operation with everything connected; `tidy` empties its journal."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[Operation]]
    tidy: Callable[[], Any]


@contextmanager
def document_server(stack: Stack) -> Iterator[DocumentServer]:
    """A server of documents that syncs every commit to disk; gone afterwards."""
    server = DocumentServer(stack.directory / "documents")
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def make_pair(stack: Stack, server: DocumentServer, *, phase: Phase) -> Pair:
    """Fresh databases with the service's tables, and with the engine in place."""
    name = f"documents_{secrets.token_hex(4)}"
    await run_sql(stack.new_url, f"CREATE DATABASE {name}")
    pair = Pair(documents_url=server.url(name), rows_url=f"{stack.new_url.rpartition('/')[0]}/{name}")
    config = Config(str(REPOSITORY / "backend/task_service/alembic.ini"))
    config.attributes["database_url"] = pair.rows_url
    await asyncio.to_thread(command.upgrade, config, "head")
    manager = pair.manager(phase=phase)
    try:
        await manager.install()
    finally:
        await manager.close()
    return pair


def _values(number: int) -> dict[str, str]:
    return {"name": f"label {number}", "color": f"#{number % 0x1000000:06x}"}


@asynccontextmanager
async def plain_document(pair: Pair) -> AsyncIterator[Operation]:
    """One document in a transaction of its own, in a collection that Tandem has nothing to do with."""
    client = create_client(
        pair.documents_url, limits=DocumentLimits(max_pool_size=POOL_SIZE), application_name="bench"
    )
    labels = client.get_default_database()["plain_labels"]

    async def write(number: int) -> None:
        async with client.start_session() as session:
            transaction = await session.start_transaction(
                read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
            )
            async with transaction:
                await labels.insert_one({"_id": ObjectId(), **_values(number)}, session=session)

    try:
        yield write
    finally:
        await client.close()


@asynccontextmanager
async def plain_row(pair: Pair) -> AsyncIterator[Operation]:
    """The same row and its commit through a session, in a table that Tandem has nothing to do with."""
    await run_sql(pair.rows_url, "CREATE TABLE IF NOT EXISTS plain_labels (LIKE labels INCLUDING ALL)")
    plain = LABELS.to_metadata(type(METADATA)(), name="plain_labels")
    engine = plain_engine(pair.rows_url)

    async def write(number: int) -> None:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            await session.execute(insert(plain).values(mongo_id=str(ObjectId()), **_values(number)))
            await session.commit()

    try:
        yield write
    finally:
        await engine.dispose()


@asynccontextmanager
async def dual_document(pair: Pair, *, phase: Phase, async_legacy: bool) -> AsyncIterator[Operation]:
    """The same inside a unit of work, on whichever side is authoritative."""
    manager = pair.manager(phase=phase, async_legacy=async_legacy)
    await manager.start()

    async def write(number: int) -> None:
        number_of_document = ObjectId()  # once, since the unit may run on both sides

        async def unit(work: UnitOfWork) -> None:
            given: Any = work
            if isinstance(given, DocumentUnitOfWork):
                await given.insert("labels", {"_id": number_of_document, **_values(number)})
            else:
                key = str(number_of_document)
                work.touch("labels", (key,))
                await work.session.execute(insert(LABELS).values(mongo_id=key, **_values(number)))

        (await manager.write("add_label", unit)).unwrap()

    try:
        yield write
    finally:
        await manager.close()


async def drain(pair: Pair, *, phase: Phase) -> None:
    """Carry what the writes have left, so that every turn finds the same."""
    manager = pair.manager(phase=phase)
    try:
        await manager.start()
        if not await manager.relay().drain(timeout_seconds=60):
            raise RuntimeError("the journal was not empty after a minute")
    finally:
        await manager.close()


def document_ways(pair: Pair, new_first: Pair) -> list[DocumentWay]:
    """The dual writes; `new_first` is a pair whose rows are authoritative."""
    on_documents = partial(dual_document, pair, phase=Phase.DUALWRITE)
    tidy = partial(drain, pair, phase=Phase.DUALWRITE)
    return [
        DocumentWay(name="async", open=partial(on_documents, async_legacy=True), tidy=tidy),
        DocumentWay(name="at_once", open=partial(on_documents, async_legacy=False), tidy=tidy),
        DocumentWay(
            name="async_rampdown",
            open=partial(dual_document, new_first, phase=Phase.RAMPDOWN, async_legacy=True),
            tidy=partial(drain, new_first, phase=Phase.RAMPDOWN),
        ),
    ]
