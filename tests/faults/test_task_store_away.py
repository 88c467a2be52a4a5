"""The task service while its store is down, frozen, and back again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry

from backend.shared.api.tokens import Role, TokenIssuer, TokenVerifier, generate_signing_key
from backend.shared.domain.outages import Outage
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.document_servers import DocumentServer
from backend.task_service.app.container import make_store
from backend.task_service.app.core.settings import TaskSettings
from backend.task_service.app.main import make_app
from tests.conftest import MakeDatabase, MakeTemplate
from tests.integration.task_service.conftest import migrate

USER = {"email": "ann@example.org"}
_KINDS = {503: "side-unavailable", 504: "side-timeout"}


@pytest.fixture(scope="session")
def task_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "task_new_template", migrate)


@asynccontextmanager
async def serving(environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """An admin's client of a service in this process."""
    issuer = TokenIssuer(generate_signing_key())
    app = make_app(
        store=make_store(TaskSettings.from_env(environment)),
        metrics=Metrics(CollectorRegistry()),
        verifier=TokenVerifier(issuer.key_source()),
    )
    async with (
        LifespanManager(app) as running,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=running.app),
            base_url="http://task",
            headers={"Authorization": f"Bearer {issuer.issue('boss', role=Role.ADMIN)}"},
        ) as client,
    ):
        yield client


async def assert_later(client: httpx.AsyncClient, status: int, outage: Outage) -> None:
    """Reading and writing are put off, with a word on when to come again."""
    for answer in (await client.get("/users"), await client.post("/users", json={"email": "bob@x"})):
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        problem = answer.json()
        assert problem["type"].removeprefix("urn:tandem:problem:") == _KINDS[status]
        assert problem["outage"] == outage
        assert "127.0.0.1" not in answer.text


async def assert_serves_again(client: httpx.AsyncClient) -> None:
    """What was there is there, and what was put off may be done now."""
    assert [user["email"] for user in (await client.get("/users")).json()["items"]] == [USER["email"]]
    assert (await client.post("/users", json={"email": "bob@x"})).status_code == 201
    assert (await client.get("/readyz")).status_code == 200


async def away_and_back(
    environment: dict[str, str], *, kill: Callable[[], None], start: Callable[[], None]
) -> None:
    async with serving(environment) as client:
        assert (await client.post("/users", json=USER)).status_code == 201
        kill()
        try:
            await assert_later(client, 503, Outage.UNREACHABLE)
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["components"] == [{"name": "store", "required": True}]
            assert (await client.get("/healthz")).status_code == 200
        finally:
            start()
        await assert_serves_again(client)


@pytest.mark.parametrize("orm", ["sqlalchemy", "peewee"])
async def test_a_killed_postgresql(
    orm: str, services_cluster: Cluster, make_database: MakeDatabase, task_template: str
) -> None:
    url = await make_database(services_cluster, template=task_template)
    await away_and_back(
        {"ORM": orm, "DATABASE_URL": url}, kill=services_cluster.kill9, start=services_cluster.start
    )


async def test_a_killed_mongodb(worker_directory: Path) -> None:
    server = DocumentServer(worker_directory / "killed-tasks")  # one that keeps what it has said yes to
    try:
        server.start()
        limit = {"TASK_MONGO_SERVER_SELECTION_TIMEOUT_MS": "700"}
        environment = {"ORM": "mongo", "MONGO_URL": server.url("tasks"), **limit}
        await away_and_back(environment, kill=server.kill9, start=server.start)
    finally:
        server.remove()


async def test_a_frozen_mongodb(document_server: DocumentServer, document_url: str) -> None:
    limit = {"TASK_MONGO_MAX_TIME_MS": "700"}
    async with serving({"ORM": "mongo", "MONGO_URL": document_url, **limit}) as client:
        assert (await client.post("/users", json=USER)).status_code == 201
        document_server.suspend()
        try:
            await assert_later(client, 504, Outage.NO_ANSWER)
        finally:
            document_server.resume()
        await assert_serves_again(client)
