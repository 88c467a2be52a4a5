"""What a caller is told when a limit of the database's is reached: 503 or 504, by kind, and when to come again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry

from backend.product_service.app.core.dual_write_manager import ProductDualWriteManager
from backend.product_service.app.main import make_app
from backend.shared import DualWriteSettings, Phase, Side
from backend.shared.database import DatabaseLimits, create_side_engine
from backend.shared.domain.outages import Outage
from backend.shared.observability.metrics import Metrics
from backend.shared.stores.errors import outage_of
from backend.shared.testing.clusters import Cluster, Databases
from tests.integration.product_service.support import assert_problem

Calling = Callable[..., Any]
QUICK = {
    "DB_POOL_SIZE": "2",
    "DB_POOL_TIMEOUT": "0.2",
    "PRODUCT_DB_CONNECT_TIMEOUT": "1",
    "DB_STATEMENT_TIMEOUT": "30",
    "DB_LOCK_TIMEOUT": "30",
}


@pytest.fixture
async def serve(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Calling]:
    """Starts the service with limits from the environment; legacy is authoritative."""
    async with AsyncExitStack() as stack:

        async def start(**limits: str) -> tuple[ProductDualWriteManager, httpx.AsyncClient]:
            for variable, value in (QUICK | limits).items():
                monkeypatch.setenv(variable, value)
            manager = ProductDualWriteManager(
                databases.new_url,
                databases.legacy_url,
                DualWriteSettings(service="product", phase=Phase.DUALWRITE),
                metrics=Metrics(CollectorRegistry()),
            )
            await manager.install()
            app = make_app(
                manager=manager, metrics=Metrics(CollectorRegistry()), verifier=None, run_relay=False
            )
            running = await stack.enter_async_context(LifespanManager(app, shutdown_timeout=60))
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app=running.app), base_url="http://product"
            )
            return manager, await stack.enter_async_context(client)

        yield start


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Somebody else holds the whole table."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        await connection.close()


def assert_told(answer: httpx.Response, outage: Outage) -> None:
    """The caller is told of `outage`, with the status of its kind, and when to come again."""
    problem = assert_problem(answer, 504 if outage.is_timeout else 503)
    assert problem["outage"] == outage.value
    assert problem["type"] == f"urn:tandem:problem:side-{'timeout' if outage.is_timeout else 'unavailable'}"
    assert problem["detail"] == "the legacy side: could not answer"
    assert int(answer.headers["retry-after"]) >= 1


async def test_pool_is_exhausted(serve: Calling) -> None:
    manager, client = await serve()
    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(manager.runtime.engines[Side.LEGACY].connect())
        assert_told(await client.get("/products"), Outage.POOL_FULL)
    assert (await client.get("/products")).status_code == 200


async def test_overflow_is_used_before_anybody_waits(serve: Calling) -> None:
    manager, client = await serve(DB_MAX_OVERFLOW="1")
    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(manager.runtime.engines[Side.LEGACY].connect())
        assert (await client.get("/products")).status_code == 200


async def test_statement_takes_too_long(serve: Calling, databases: Databases) -> None:
    _, client = await serve(DB_STATEMENT_TIMEOUT="0.3")
    async with locked(databases.legacy_url, "prod"):
        assert_told(await client.get("/products"), Outage.STATEMENT_TIMEOUT)
    assert (await client.get("/products")).status_code == 200


async def test_lock_is_held(serve: Calling, databases: Databases) -> None:
    _, client = await serve(DB_LOCK_TIMEOUT="0.3")
    async with locked(databases.legacy_url, "prod"):
        assert_told(await client.get("/products"), Outage.LOCK_TIMEOUT)
    assert (await client.get("/products")).status_code == 200


async def test_server_is_frozen(serve: Calling, legacy_cluster: Cluster, databases: Databases) -> None:
    """On a connection that there is, no answer comes; a new one cannot be made; then nobody asks any more."""
    manager, client = await serve(DB_STATEMENT_TIMEOUT="1", DB_POOL_SIZE="10")
    assert (await client.get("/products/1")).status_code == 404, "a connection is in the pool"
    other = create_side_engine(
        databases.legacy_url, application_name="test", limits=DatabaseLimits(connect_seconds=0.5)
    )
    told: list[Outage] = []
    await asyncio.to_thread(legacy_cluster.suspend)
    try:
        while Outage.CIRCUIT_OPEN not in told and len(told) < 6:
            answer = await client.get("/products/1")
            told.append(Outage(answer.json()["outage"]))
            assert_told(answer, told[-1])
        with pytest.raises(TimeoutError) as caught:
            await other.connect()
    finally:
        await asyncio.to_thread(legacy_cluster.resume)
    assert (told[0], told[-1]) == (Outage.NO_ANSWER, Outage.CIRCUIT_OPEN)
    assert set(told) <= {Outage.NO_ANSWER, Outage.UNREACHABLE, Outage.CIRCUIT_OPEN}
    assert outage_of(caught.value) is Outage.UNREACHABLE, "nothing was sent"
    assert await manager.runtime.breakers[manager.phase.policy.authoritative].wait_closed(20)
    await other.dispose()


async def test_server_is_stopped(serve: Calling, legacy_cluster: Cluster) -> None:
    """The unit itself has tried three times, and found the circuit open before the fourth."""
    manager, client = await serve()
    await asyncio.to_thread(legacy_cluster.stop, "immediate")
    try:
        assert_told(await client.get("/products"), Outage.CIRCUIT_OPEN)
    finally:
        await asyncio.to_thread(legacy_cluster.start)
    assert await manager.runtime.breakers[manager.phase.policy.authoritative].wait_closed(20)


async def test_deadlocks_each_time(serve: Calling, databases: Databases) -> None:
    """A unit that meets a deadlock however often it is run again tells of contention, and was run a bounded number of times."""
    manager, _ = await serve()
    ran = 0

    async def unit(work: Any) -> None:
        nonlocal ran
        ran += 1
        await work.session.connection()
        connection = await work.session.connection()
        await connection.exec_driver_sql("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$")

    result = await manager.write("deadlock", unit)
    assert ran == 5
    assert result.error is not None
    assert result.error.outage is Outage.CONTENDED
