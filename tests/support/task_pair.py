"""The task service on both sides: a MongoDB and a PostgreSQL database, with nothing that runs by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from bson import ObjectId
from prometheus_client import CollectorRegistry
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from backend.shared import DualWriteSettings, Phase, Side
from backend.shared.database import DatabaseLimits
from backend.shared.domain.phases import Capture
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.observability.metrics import Metrics
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.stream import ChangeCapture
from backend.task_service.app.core.dual_write_manager import TaskDualWriteManager
from tests.support.fixtures import Sql

ANN = ObjectId("65f000000000000000000001")
BOB = ObjectId("65f000000000000000000002")


def user(number: ObjectId = ANN, **fields: Any) -> dict[str, Any]:
    """A user that fits."""
    return {
        "_id": number,
        "google_id": f"g-{number}",
        "email_id": f"{number}@example.org",
        "name": "Ann",
    } | fields


class StreamingTaskManager(TaskDualWriteManager):
    """Other programs write to its collections too."""

    capture = Capture.STREAM


@dataclass(frozen=True, kw_only=True)
class TaskPair:
    """Both sides of a task service, and a manager of it. `documents` and `sql` are other programs'."""

    manager: TaskDualWriteManager
    make_manager: Callable[..., Awaitable[TaskDualWriteManager]]
    documents: AsyncDatabase[dict[str, Any]]
    sql: Sql
    urls: dict[Side, str]

    async def carry(self) -> None:
        """Carry until nothing is due any more."""
        for _ in range(50):
            if not (await self.manager.relay().run_once()).rows:
                return
        raise AssertionError("the journal does not come to an end")

    def stream(self, manager: TaskDualWriteManager | None = None) -> ChangeCapture:
        """What listens to other programs' writes, in the process of `manager`."""
        found = (manager or self.manager).runtime.stores[Side.LEGACY].change_stream
        assert isinstance(found, ChangeCapture)
        return found

    async def journalled(self) -> list[str]:
        """Keys with open journal rows on the MongoDB, one for each row."""
        rows = await self.documents.tandem_task_journal.find().to_list()
        return sorted(row["subject"] for row in rows)

    async def row(self, table: str, number: ObjectId) -> asyncpg.Record | None:
        """A row, if there is one."""
        rows = await self.sql(f"SELECT * FROM {table} WHERE mongo_id = $1", str(number))
        return rows[0] if rows else None

    async def standing(self, table: str, number: ObjectId) -> tuple[str, str | None]:
        """What a row says of how it stands: status and error."""
        row = await self.row(table, number)
        assert row is not None
        return row["sync_status"], row["sync_error"]


@asynccontextmanager
async def task_pair(
    *, phase: Phase, document_url: str, new_url: str, streams: bool = False, **given: Any
) -> AsyncIterator[TaskPair]:
    """A pair of databases with a manager on them, installed and started; nobody reads the change stream by itself."""
    async with AsyncExitStack() as stack:
        made: list[TaskDualWriteManager] = []

        async def make(*, hook: Hook = no_hook, **settings: Any) -> TaskDualWriteManager:
            chosen = {
                "retry_delay_seconds": 0.0,
                "retry_attempts": 1,
                "phase": phase,
                **given,
                **settings,
            }
            manager = (StreamingTaskManager if streams else TaskDualWriteManager)(
                settings=DualWriteSettings(
                    service="task", legacy_database_url=document_url, database_url=new_url, **chosen
                ),
                metrics=Metrics(CollectorRegistry()),
                hook=hook,
                limits=DatabaseLimits(
                    statement_seconds=10, lock_seconds=3, connect_seconds=3, pool_wait_seconds=3
                ),
            )
            stack.push_async_callback(manager.close)
            made.append(manager)
            await manager.start() if len(made) > 1 else await _first(manager)
            return manager

        client: AsyncMongoClient[dict[str, Any]] = create_client(document_url, application_name="other")
        stack.push_async_callback(client.close)
        manager = await make()
        yield TaskPair(
            manager=manager,
            make_manager=make,
            documents=client.get_default_database(),
            sql=Sql(new_url),
            urls={Side.LEGACY: document_url, Side.NEW: new_url},
        )


async def _first(manager: TaskDualWriteManager) -> None:
    await asyncio.wait_for(manager.install(), 30)
    await manager.start()
