"""What SQLAlchemy and Peewee make of the same tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peewee import SqliteDatabase
from playhouse.pwasyncio import AsyncPostgresqlDatabase  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy import JSON, Boolean, DateTime, Integer, MetaData, Numeric, String, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.shared.database import create_side_engine, plain_url
from backend.shared.testing.clusters import Cluster
from backend.task_service.app.adapters.peewee.models import make_models
from backend.task_service.app.adapters.peewee.statements import peewee_repositories
from backend.task_service.app.adapters.sqlalchemy.statements import sqlalchemy_repositories
from backend.task_service.app.adapters.sqlalchemy.tables import sqlite_metadata
from backend.task_service.app.adapters.sqlalchemy.transactions import create_sqlite_engine
from backend.task_service.app.domain.ids import new_id
from backend.task_service.app.domain.people import Label
from backend.task_service.app.domain.tasks import ChecklistItem, Task
from backend.task_service.app.models import METADATA
from backend.task_service.app.ports import Repositories, TaskStore
from tests.conftest import MakeDatabase
from tests.contract.task_service.support import a_full_task, a_user, save
from tests.support.task_stores import running_store

ANN = a_user("ann")
RED = Label.create(name="red", color=None)
_KINDS: list[tuple[type, str]] = [
    (JSON, "JSON"),
    (Boolean, "BOOL"),
    (DateTime, "TIMESTAMPTZ"),
    (Integer, "INT"),
    (Numeric, "NUMERIC"),
    (Text, "TEXT"),
    (String, "VARCHAR"),
]


@pytest.fixture(params=["postgresql", "sqlite"])
async def url(
    request: pytest.FixtureRequest,
    services_cluster: Cluster,
    make_database: MakeDatabase,
    new_template: str,
    tmp_path: Path,
) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tasks.db'}"
    return await make_database(services_cluster, template=new_template)


@pytest.fixture
async def stores(url: str) -> AsyncIterator[list[TaskStore]]:
    """Two stores on one database: through SQLAlchemy, and through Peewee."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running_store({"ORM": orm, "DATABASE_URL": url}))
            for orm in ("sqlalchemy", "peewee")
        ]


async def run_sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run SQL past the service."""
    path = url.removeprefix("sqlite:///")
    engine = create_side_engine(url, application_name="test") if path == url else create_sqlite_engine(path)
    try:
        async with engine.begin() as connection:
            done = await connection.execute(text(statement))
            return [tuple(row) for row in done] if done.returns_rows else []
    finally:
        await engine.dispose()


async def read(store: TaskStore, task_id: str) -> Task | None:
    async def unit(repositories: Repositories) -> Task | None:
        return await repositories.tasks.get(task_id)

    return await store.read("get", unit)


def declared(table: Table) -> dict[str, tuple[str, bool, bool]]:
    """Of each column: the kind of its type, whether it may be NULL, and whether it is part of the key."""
    return {
        column.name: (
            next(kind for base, kind in _KINDS if isinstance(column.type, base)),
            bool(column.nullable),
            column.primary_key,
        )
        for column in table.columns
    }


def test_the_models_of_peewee_are_the_declared_tables() -> None:
    found = {}
    for name, model in make_models(SqliteDatabase(None)).items():
        meta: Any = vars(model)["_meta"]
        keys = {field.name for field in meta.get_primary_keys()}
        assert meta.table_name == name
        found[name] = {
            field.column_name: (field.field_type, field.null, field.name in keys)
            for field in meta.sorted_fields
        }
    assert found == {name: declared(table) for name, table in METADATA.tables.items()}


def test_sqlite_has_the_declared_tables() -> None:
    def shape(metadata: MetaData) -> dict[str, dict[str, tuple[bool, bool]]]:
        return {
            name: {column.name: (bool(column.nullable), column.primary_key) for column in table.columns}
            for name, table in metadata.tables.items()
        }

    assert shape(sqlite_metadata()) == shape(METADATA)


async def test_each_reads_and_changes_what_the_other_wrote(stores: list[TaskStore]) -> None:
    await save(stores[0], users=[ANN], labels=[RED])
    for writer, reader in (stores, stores[::-1]):
        task = a_full_task(ANN, RED)
        await save(writer, tasks=[task])
        assert await read(reader, task.id) == task
        changed = replace(task, title="Mop", checklist=task.checklist[::-1], due_at=None)
        await save(reader, tasks=[changed])
        assert await read(writer, task.id) == changed


async def test_what_the_domain_does_not_know_stays(stores: list[TaskStore], url: str) -> None:
    """`extra` of the row and of a step with the same words, and how the row stands to its document."""
    await save(stores[0], users=[ANN])
    task = replace(a_full_task(ANN), checklist=(ChecklistItem(text="left"), ChecklistItem(text="right")))
    await save(stores[0], tasks=[task])
    await run_sql(
        url, """UPDATE tasks SET extra = '{"unknown": {"x": [1, null]}}', sync_status = 'PENDING'"""
    )
    await run_sql(
        url, """UPDATE task_checklist SET extra = '{"unknown": {"y": 1}}', done = NULL WHERE text = 'left'"""
    )
    for number, store in enumerate(stores):
        steps = (ChecklistItem(text=str(number)), *task.checklist[:1])
        await save(store, tasks=[replace(task, title=str(number), checklist=steps)])
        assert await run_sql(url, "SELECT CAST(extra AS text), sync_status FROM tasks") == [
            ('{"unknown": {"x": [1, null]}}', "PENDING")
        ]
        found = await run_sql(
            url, "SELECT text, done, CAST(extra AS text) FROM task_checklist ORDER BY position"
        )
        assert found == [(str(number), False, "{}"), ("left", None, '{"unknown": {"y": 1}}')]


async def test_an_unchanged_array_is_not_written_again(stores: list[TaskStore], url: str) -> None:
    await save(stores[0], users=[ANN], labels=[RED])
    task = a_full_task(ANN, RED)
    await save(stores[0], tasks=[task])
    await run_sql(url, "UPDATE task_labels SET position = 7")
    for number, store in enumerate(stores):
        await save(store, tasks=[replace(task, title=str(number))])
        assert await run_sql(url, "SELECT position FROM task_labels") == [(7,)]


async def test_repositories_work_in_the_transaction_of_their_caller(
    services_cluster: Cluster, make_database: MakeDatabase, new_template: str
) -> None:
    """An engine's unit of work hands in its own session, or its own database."""
    url = await make_database(services_cluster, template=new_template)
    engine = create_side_engine(url, application_name="test")
    async with engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(bind=connection) as session:
            repositories = sqlalchemy_repositories(session)
            await repositories.users.save(ANN)
            assert await repositories.users.get(ANN.id) == ANN
        await transaction.rollback()
    await engine.dispose()
    database = AsyncPostgresqlDatabase(plain_url(url))
    async with database.atomic() as transaction:
        repositories = peewee_repositories(database)
        await repositories.users.save(ANN)
        assert await repositories.users.get(ANN.id) == ANN
        await transaction.arollback()
    await database.aclose()
    await database.close_pool()
    assert await run_sql(url, "SELECT count(*) FROM users") == [(0,)]


async def test_a_unit_gives_its_connection_back(stores: list[TaskStore]) -> None:
    """Peewee would keep it for the task that asked, however long that lives."""
    go_on = asyncio.Event()
    asked = [asyncio.Event() for _ in range(12)]  # more than a pool has

    async def live_on(store: TaskStore, done: asyncio.Event) -> None:
        await save(store, users=[a_user(new_id())])
        done.set()
        await go_on.wait()

    for store in stores:
        async with asyncio.TaskGroup() as group:
            for done in asked:
                done.clear()
                group.create_task(live_on(store, done))
                async with asyncio.timeout(3):
                    await done.wait()
            go_on.set()
        go_on.clear()
