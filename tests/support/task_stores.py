"""Every kind of store that the task service runs on, with fresh servers and files behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from backend.task_service.app.adapters.single import SingleStore
from backend.task_service.app.container import make_store
from backend.task_service.app.core.settings import TaskSettings
from backend.task_service.app.ports import TaskStore
from tests.support.fake_task_store import FakeTransactions

FAKE = "fake"


@asynccontextmanager
async def running_store(environment: Mapping[str, str]) -> AsyncIterator[TaskStore]:
    """The store that the variables ask for, started; the fake one for `ORM=fake`."""
    if environment["ORM"] == FAKE:
        store: TaskStore = SingleStore(FakeTransactions())
    else:
        store = make_store(TaskSettings.from_env(environment))
    try:
        await store.start()
        yield store
    finally:
        await store.close()
