"""The limits of pools and waits, each of which tells its own kind of outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from backend.shared.database import DatabaseLimits
from backend.shared.domain.outages import Outage
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.document_servers import DocumentServer
from backend.task_service.app.core.problems import install_store_problems
from backend.task_service.app.domain.errors import StoreError, StoreRefusedError, StoreUnavailableError
from backend.task_service.app.ports import Repositories, TaskStore
from tests.conftest import MakeDatabase
from tests.contract.task_service.support import a_user, save
from tests.support.task_stores import running_store

ANN = a_user()


@pytest.fixture
async def environment(
    kind: str,
    document_url: str,
    services_cluster: Cluster,
    make_database: MakeDatabase,
    new_template: str,
    tmp_path: Path,
) -> dict[str, str]:
    """An empty store of this kind."""
    orm, _, database = kind.partition("-")
    if orm == "mongo":
        return {"ORM": orm, "MONGO_URL": document_url}
    if database == "sqlite":
        return {"ORM": orm, "DATABASE_URL": f"sqlite:///{tmp_path / 'tasks.db'}"}
    return {"ORM": orm, "DATABASE_URL": await make_database(services_cluster, template=new_template)}


@asynccontextmanager
async def held(store: TaskStore) -> AsyncIterator[None]:
    """While a unit of work has changed Ann and is not done: it holds a connection, and her row."""
    changed, go_on = asyncio.Event(), asyncio.Event()

    async def unit(repositories: Repositories) -> None:
        await repositories.users.save(replace(ANN, name="Anna"))
        changed.set()
        await go_on.wait()

    holding = asyncio.ensure_future(store.write("hold", unit))
    try:
        await asyncio.wait_for(changed.wait(), 10)
        yield
    finally:
        go_on.set()
        await holding


async def outage_of_a_write(store: TaskStore) -> Outage:
    """What a second write meets, before the limits that hold by default are over."""
    with pytest.raises(StoreUnavailableError) as caught:
        async with asyncio.timeout(DatabaseLimits().pool_wait_seconds - 0.5):
            await save(store, users=[replace(ANN, name="Annie")])
    return caught.value.outage


@asynccontextmanager
async def running(environment: Mapping[str, str], **limits: str) -> AsyncIterator[TaskStore]:
    async with running_store({**environment, **limits}) as store:
        await save(store, users=[ANN])
        yield store


ON_SERVERS = pytest.mark.parametrize("kind", ["sqlalchemy", "peewee"])


@pytest.mark.parametrize("kind", ["sqlalchemy", "peewee", "sqlalchemy-sqlite", "peewee-sqlite"])
async def test_a_full_pool(environment: dict[str, str]) -> None:
    async with running(environment, TASK_DB_POOL_SIZE="1", TASK_DB_POOL_TIMEOUT="0.2") as store:
        async with held(store):
            assert await outage_of_a_write(store) is Outage.POOL_FULL
        await save(store, users=[replace(ANN, name="Annie")])


@pytest.mark.parametrize("kind", ["mongo"])
async def test_a_full_pool_of_documents(environment: dict[str, str], document_server: DocumentServer) -> None:
    """A transaction holds no connection between its commands: so one command is held."""
    limits = {"TASK_MONGO_MAX_POOL_SIZE": "1", "TASK_MONGO_WAIT_QUEUE_TIMEOUT_MS": "200"}
    async with running(environment, **limits) as store:
        document_server.suspend()
        try:
            both = [asyncio.ensure_future(store.check()) for _ in range(2)]
            (refused,), (answered,) = await asyncio.wait(both, timeout=15, return_when="FIRST_COMPLETED")
        finally:
            document_server.resume()
        await answered
        error = refused.exception()
    assert isinstance(error, StoreUnavailableError)
    assert error.outage is Outage.POOL_FULL


@ON_SERVERS
async def test_a_lock_that_somebody_holds(environment: dict[str, str]) -> None:
    async with running(environment, TASK_DB_LOCK_TIMEOUT="0.2") as store, held(store):
        assert await outage_of_a_write(store) is Outage.LOCK_TIMEOUT


@ON_SERVERS
async def test_a_statement_that_takes_too_long(environment: dict[str, str]) -> None:
    async with running(environment, TASK_DB_STATEMENT_TIMEOUT="0.3") as store, held(store):
        assert await outage_of_a_write(store) is Outage.STATEMENT_TIMEOUT


@pytest.mark.parametrize("kind", ["sqlalchemy-sqlite", "peewee-sqlite"])
async def test_a_file_that_somebody_writes(environment: dict[str, str]) -> None:
    async with running(environment, TASK_DB_LOCK_TIMEOUT="0.2") as store, held(store):
        assert await outage_of_a_write(store) is Outage.LOCK_TIMEOUT


@pytest.mark.parametrize("kind", ["mongo"])
async def test_a_document_that_somebody_holds(environment: dict[str, str]) -> None:
    async with running(environment) as store, held(store):
        assert await outage_of_a_write(store) is Outage.CONTENDED


@pytest.mark.parametrize("kind", ["mongo"])
async def test_a_unit_as_a_whole_has_an_end(environment: dict[str, str]) -> None:
    """Each command would be answered; it is their sum that takes too long."""
    async with running(environment, TASK_MONGO_MAX_TIME_MS="500") as store:

        async def unit(repositories: Repositories) -> None:
            while True:
                await repositories.users.get(ANN.id)

        with pytest.raises(StoreUnavailableError) as caught:
            async with asyncio.timeout(15):
                await store.write("endless", unit)
    assert caught.value.outage.is_timeout


@pytest.mark.parametrize("outage", [*Outage, None])
async def test_what_a_caller_is_told(outage: Outage | None) -> None:
    app = FastAPI()
    install_store_problems(app)

    @app.get("/")
    async def fail() -> None:
        error: StoreError = StoreRefusedError("secret", store="X")
        raise error if outage is None else StoreUnavailableError("secret", store="X", outage=outage)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        answer = await client.get("/")
    problem = answer.json()
    assert answer.status_code == (502 if outage is None else 504 if outage.is_timeout else 503)
    assert ("retry-after" in answer.headers) is (outage is not None)
    assert problem.get("outage") == outage
    assert "secret" not in answer.text
