"""The task service on each store: the same cases, the same assertions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry

from backend.shared import DualWriteSettings
from backend.shared.api.tokens import Role, TokenIssuer, TokenType, TokenVerifier, generate_signing_key
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.document_servers import DocumentServer
from backend.task_service.app.container import make_store
from backend.task_service.app.core.dual_write_manager import TaskDualWriteManager
from backend.task_service.app.core.settings import TaskSettings
from backend.task_service.app.main import make_app
from backend.task_service.app.ports import TaskStore
from tests.conftest import MakeDatabase, MakeTemplate
from tests.contract.task_service.support import Api
from tests.integration.task_service.conftest import migrate
from tests.support.fixtures import Sql
from tests.support.task_stores import FAKE, running_store


@pytest.fixture(scope="session")
def task_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "task_new_template", migrate)


@pytest.fixture(scope="session")
def installed_templates(
    make_template: MakeTemplate, services_cluster: Cluster, document_server: DocumentServer
) -> Callable[[str], str]:
    """The new database with the engine in place, by its first phase: that takes longer than most tests."""

    def template(phase: str) -> str:
        async def build(url: str) -> None:
            await migrate(url)
            await install(dual(document_server.url("template"), url, phase=phase))
            await asyncio.to_thread(document_server.drop_database, "template")
            # What is made from it is another database: it notes which one when it is installed, as the first did.
            await Sql(url)("UPDATE tandem_task.mark SET identity = ''")

        return make_template(services_cluster, f"task_{phase}_template", build)

    return template


@pytest.fixture
async def environment(
    kind: str,
    document_url: str,
    services_cluster: Cluster,
    make_database: MakeDatabase,
    task_template: str,
    installed_templates: Callable[[str], str],
    tmp_path: Path,
) -> dict[str, str]:
    """What a process is told, to run on an empty store of the kind that the test is parametrised with."""
    orm, _, database = kind.partition("-")
    if orm == "dual":
        template = await asyncio.to_thread(installed_templates, database)
        pair = dual(document_url, await make_database(services_cluster, template=template), phase=database)
        await install(pair)
        return pair
    if orm in ("mongo", FAKE):
        return {"ORM": orm, "MONGO_URL": document_url}
    if database == "sqlite":
        return {"ORM": orm, "DATABASE_URL": f"sqlite:///{tmp_path / 'tasks.db'}"}
    return {"ORM": orm, "DATABASE_URL": await make_database(services_cluster, template=task_template)}


def dual(document_url: str, new_url: str, *, phase: str) -> dict[str, str]:
    """What a process is told, to run on both databases, first in `phase`."""
    urls = {"LEGACY_DATABASE_URL": document_url, "DATABASE_URL": new_url}
    return {"ORM": "dual", "DUAL_WRITE_PHASE": phase, **urls}


async def install(environment: Mapping[str, str]) -> None:
    """What `tandem install task` does."""
    manager = TaskDualWriteManager(settings=DualWriteSettings.from_env("TASK", environment))
    try:
        await manager.install()
    finally:
        await manager.close()


@pytest.fixture
async def store(environment: dict[str, str]) -> AsyncIterator[TaskStore]:
    async with running_store(environment) as store:
        yield store


@pytest.fixture
async def api(environment: dict[str, str]) -> AsyncIterator[Api]:
    """The service over HTTP, in this process."""
    issuer = TokenIssuer(generate_signing_key())
    app = make_app(
        store=make_store(TaskSettings.from_env(environment)),
        metrics=Metrics(CollectorRegistry()),
        verifier=TokenVerifier(issuer.key_source()),
    )
    tokens = {
        "anyone": None,
        "admin": issuer.issue("boss", role=Role.ADMIN),
        "user": issuer.issue("ann", role=Role.USER),
        "service": issuer.issue("service:cart", role=Role.SERVICE, token_type=TokenType.SERVICE),
    }
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(LifespanManager(app))
        clients = {
            name: await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app=running.app),
                    base_url="http://task",
                    headers={"Authorization": f"Bearer {token}"} if token else {},
                )
            )
            for name, token in tokens.items()
        }
        yield Api(**clients)
