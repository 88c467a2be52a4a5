"""The auth service over real databases, with authority on either side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry

from backend.auth_service.app.core.dual_write_manager import AuthDualWriteManager
from backend.auth_service.app.core.settings import AuthSettings
from backend.auth_service.app.main import make_app
from backend.legacy_shop.schema import create_schema
from backend.shared import DualWriteSettings, Phase
from backend.shared.api.tokens import generate_signing_key
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from tests.conftest import MakeTemplate
from tests.integration.auth_service.support import Auth, migrate


class MakeAuth(Protocol):
    """Makes an auth service in a phase, installed; it is closed after the test."""

    async def __call__(
        self, phase: Phase, *, auth_settings: AuthSettings | None = None, **dual_write: Any
    ) -> Auth: ...


@pytest.fixture(scope="session")
def legacy_template(legacy_cluster: Cluster, make_template: MakeTemplate) -> str:
    return make_template(legacy_cluster, "auth_legacy_template", create_schema)


@pytest.fixture(scope="session")
def new_template(services_cluster: Cluster, make_template: MakeTemplate) -> str:
    return make_template(services_cluster, "auth_new_template", migrate)


@pytest.fixture(scope="session")
def signing_key(worker_directory: Path) -> Path:
    path = worker_directory / "auth_signing_key.pem"
    path.write_bytes(generate_signing_key())
    return path


@pytest.fixture
def settings(signing_key: Path) -> AuthSettings:
    """Hashes as cheap as they come: their strength is not what is tested here."""
    return AuthSettings(signing_key_file=signing_key, hash_memory_kib=64, hash_passes=1, run_relay=False)


@pytest.fixture(params=[Phase.DUALWRITE, Phase.RAMPDOWN])
def phase(request: pytest.FixtureRequest) -> Phase:
    """Authority on legacy, then on new: the service must not tell the two apart."""
    found: Phase = request.param
    return found


@pytest.fixture
async def make_auth(databases: Databases, settings: AuthSettings) -> AsyncIterator[MakeAuth]:
    async with AsyncExitStack() as stack:

        async def make(phase: Phase, *, auth_settings: AuthSettings | None = None, **dual_write: Any) -> Auth:
            chosen = DualWriteSettings(
                service="auth",
                legacy_database_url=databases.legacy_url,
                database_url=databases.new_url,
                phase=phase,
                retry_delay_seconds=0.0,
            )
            metrics = Metrics(CollectorRegistry())
            manager = AuthDualWriteManager(settings=replace(chosen, **dual_write), metrics=metrics)
            stack.push_async_callback(manager.close)  # an application that does not start closes nothing
            await manager.install()
            app = make_app(auth_settings or settings, manager=manager, metrics=metrics)
            await stack.enter_async_context(LifespanManager(app, startup_timeout=30, shutdown_timeout=30))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://auth")
            )
            return Auth(app=app, client=client, manager=manager, databases=databases, phase=phase)

        yield make


@pytest.fixture
async def auth(make_auth: MakeAuth, phase: Phase) -> Auth:
    return await make_auth(phase)
