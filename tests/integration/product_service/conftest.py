"""A product service for every test, with both databases, installed and empty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import alembic.command
import httpx
import pytest
from alembic.config import Config
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry

from backend.legacy_shop.schema import create_schema
from backend.product_service.app.core.dual_write_manager import ProductDualWriteManager
from backend.product_service.app.main import make_app
from backend.shared import DualWriteSettings, Phase
from backend.shared.api.tokens import Role, TokenIssuer, TokenType, TokenVerifier, generate_signing_key
from backend.shared.database import DatabaseLimits
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from tests.conftest import MakeTemplate
from tests.integration.product_service.support import Api, Shop

ROOT = Path(__file__).parents[3]
# On a machine that is busy with other tests, fifty at once may have to wait for one another.
PATIENT = DatabaseLimits(pool_wait_seconds=40, lock_seconds=40)
ALEMBIC_INI = ROOT / "backend/product_service/alembic.ini"


class MakeShop(Protocol):
    """Makes a product service in a phase, installed; it is closed after the test."""

    async def __call__(self, phase: Phase = Phase.DUALWRITE, **settings: Any) -> Shop: ...


async def migrate(url: str) -> None:
    """`alembic upgrade head`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRODUCT_DATABASE_URL", url)
        await asyncio.to_thread(alembic.command.upgrade, Config(ALEMBIC_INI), "head")


@pytest.fixture(scope="session")
def legacy_template(make_template: MakeTemplate, legacy_cluster: Cluster) -> str:
    return make_template(legacy_cluster, "product_legacy", create_schema)


@pytest.fixture(scope="session")
def new_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "product_new", migrate)


@pytest.fixture
async def make_shop(databases: Databases) -> AsyncIterator[MakeShop]:
    made: list[ProductDualWriteManager] = []

    async def make(phase: Phase = Phase.DUALWRITE, **settings: Any) -> Shop:
        manager = ProductDualWriteManager(
            databases.new_url,
            databases.legacy_url,
            DualWriteSettings(service="product", phase=phase, retry_delay_seconds=0.05, **settings),
            metrics=Metrics(CollectorRegistry()),
            limits=PATIENT,
        )
        made.append(manager)
        await manager.install()
        await manager.start()
        return Shop(manager=manager, databases=databases)

    yield make
    for manager in made:
        await manager.close()


@pytest.fixture
async def shop(make_shop: MakeShop, phase: Phase) -> Shop:
    """The service in the phase that the test is parametrised with; nothing is carried but when the test says so."""
    return await make_shop(phase)


@pytest.fixture
async def api(shop: Shop) -> AsyncIterator[Api]:
    """The service over HTTP, in this process."""
    issuer = TokenIssuer(generate_signing_key())
    app = make_app(
        manager=shop.manager,
        metrics=Metrics(CollectorRegistry()),
        verifier=TokenVerifier(issuer.key_source()),
        run_relay=False,
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
                    base_url="http://product",
                    headers={"Authorization": f"Bearer {token}"} if token else {},
                )
            )
            for name, token in tokens.items()
        }
        yield Api(**clients, shop=shop)
