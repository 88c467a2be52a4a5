"""A cart service for every test, with both databases, installed and empty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from alembic import command
from alembic.config import Config
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry

import backend.cart_service
from backend.cart_service.app.core.dual_write_manager import CartDualWriteManager
from backend.cart_service.app.main import make_app
from backend.legacy_shop.schema import create_schema
from backend.shared import DualWriteSettings, Phase
from backend.shared.api.tokens import Role, TokenIssuer, TokenVerifier, generate_signing_key
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from tests.conftest import MakeTemplate
from tests.integration.cart_service.support import Api, FakeCatalog, Shop, token


class MakeShop(Protocol):
    """Makes an installed manager in a phase; it is closed after the test."""

    async def __call__(self, phase: Phase = Phase.DUALWRITE, **settings: Any) -> Shop: ...


def alembic_config(url: str) -> Config:
    """What `alembic -c backend/cart_service/alembic.ini` works with, for another database."""
    config = Config(str(Path(backend.cart_service.__path__[0]) / "alembic.ini"))
    config.attributes["database_url"] = url
    return config


async def migrate(url: str, *, to: str = "head") -> None:
    # In a thread, for the migrations run a loop of their own.
    await asyncio.to_thread(command.upgrade, alembic_config(url), to)


@pytest.fixture(scope="session")
def legacy_template(make_template: MakeTemplate, legacy_cluster: Cluster) -> str:
    return make_template(legacy_cluster, "cart_legacy_template", create_schema)


@pytest.fixture(scope="session")
def new_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "cart_new_template", migrate)


@pytest.fixture
async def make_shop(databases: Databases) -> AsyncIterator[MakeShop]:
    made: list[CartDualWriteManager] = []

    async def make(phase: Phase = Phase.DUALWRITE, **settings: Any) -> Shop:
        manager = CartDualWriteManager(
            databases.new_url,
            databases.legacy_url,
            DualWriteSettings(service="cart", phase=phase, retry_delay_seconds=0.05, **settings),
            metrics=Metrics(CollectorRegistry()),
        )
        made.append(manager)
        await manager.install()
        await manager.start()
        return Shop(manager=manager, databases=databases)

    yield make
    for manager in made:
        await manager.close()


@pytest.fixture(params=[Phase.DUALWRITE, Phase.RAMPDOWN], ids=["legacy-authoritative", "new-authoritative"])
def phase(request: pytest.FixtureRequest) -> Phase:
    """Authority on either side: nobody who uses the service may tell them apart."""
    found: Phase = request.param
    return found


@pytest.fixture
async def shop(make_shop: MakeShop, phase: Phase) -> Shop:
    """The manager; nothing is carried but when the test says so."""
    return await make_shop(phase)


@pytest.fixture
async def api(shop: Shop) -> AsyncIterator[Api]:
    """The service over HTTP, in this process."""
    issuer, catalog = TokenIssuer(generate_signing_key()), FakeCatalog()
    app = make_app(
        manager=shop.manager,
        catalog=catalog,
        metrics=Metrics(CollectorRegistry()),
        verifier=TokenVerifier(issuer.key_source()),
        run_relay=False,
    )
    headers = {
        "anyone": {},
        "ann": token(issuer, "ann"),
        "bob": token(issuer, "bob"),
        "admin": token(issuer, "boss", role=Role.ADMIN),
        "service": token(issuer, "service:order", role=Role.SERVICE),
    }
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(LifespanManager(app, startup_timeout=30))
        transport = httpx.ASGITransport(app=running.app, raise_app_exceptions=False)
        clients = {
            name: await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://cart", headers=given)
            )
            for name, given in headers.items()
        }
        yield Api(**clients, shop=shop, catalog=catalog, issuer=issuer, app=app)
