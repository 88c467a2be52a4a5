"""A service that cannot work says why in one line, ends with 2 and has started nothing; one that can is complete."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry

from backend.cart_service.app.core.settings import CartSettings
from backend.cart_service.app.main import make_app
from backend.shared import ConfigurationError, InstallationError, Phase
from backend.shared.exercise import exercise
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Databases
from tests.integration.cart_service.conftest import MakeShop
from tests.integration.cart_service.support import Api, FakeCatalog

GOOD = {"PRODUCT_URL": "http://product:8002"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PRODUCT_URL", ""),
        ("PRODUCT_URL", "product:8002"),
        ("PRODUCT_URL", "ftp://product"),
        ("PRODUCT_URL", "http://"),
        ("PRODUCT_URL", "http://product:x"),
        ("PRODUCT_URL", "http://[::1"),
        ("CART_PRODUCT_TIMEOUT_SECONDS", "0"),
        ("CART_PRODUCT_TIMEOUT_SECONDS", "nan"),
        ("CART_PRODUCT_TIMEOUT_SECONDS", "1e9"),
        ("CART_PRODUCT_TIMEOUT_SECONDS", "soon"),
        ("CART_RUN_RELAY", "maybe"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CartSettings.from_env(GOOD | {variable: value})
    assert caught.value.variable == variable


def test_settings_are_read() -> None:
    given = GOOD | {"CART_PRODUCT_TIMEOUT_SECONDS": "0.5", "CART_RUN_RELAY": "false", "AUTH_JWKS_URL": "u"}
    settings = CartSettings.from_env(given)
    assert settings == CartSettings(
        product_url="http://product:8002", product_timeout_seconds=0.5, jwks_url="u", run_relay=False
    )
    assert CartSettings.from_env(GOOD).run_relay


async def test_the_process_ends_with_one_line(databases: Databases) -> None:
    whole = {
        "LEGACY_DATABASE_URL": databases.legacy_url,
        "CART_DATABASE_URL": databases.new_url,
        "CART_DUAL_WRITE_PHASE": "dualwrite",
        **GOOD,
    }
    secret = "geheim"
    cases = {
        "PRODUCT_URL": whole | {"PRODUCT_URL": ""},
        "LEGACY_DATABASE_URL": whole | {"LEGACY_DATABASE_URL": f"postgresql://x:{secret}@127.0.0.1:9/poc"},
        "tandem install cart": whole,
    }
    complaints = await asyncio.gather(*(_start(environment) for environment in cases.values()))
    for clue, complaint in zip(cases, complaints, strict=True):
        assert clue in complaint, complaint
        assert secret not in complaint
        assert len(complaint.strip().splitlines()) == 1, complaint


async def _start(environment: dict[str, str]) -> str:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--factory", "backend.cart_service.app.main:create_app"),
        *("--port", "0", "--log-level", "critical"),
        env={**os.environ, "LOG_LEVEL": "CRITICAL", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 2, complaint.decode()
    return complaint.decode()


async def test_a_missing_migration_is_named(make_shop: MakeShop) -> None:
    shop = await make_shop(Phase.DUALWRITE)
    await shop.new("DELETE FROM alembic_version")
    told: list[Exception] = []
    app = make_app(
        manager=shop.manager,
        catalog=FakeCatalog(),
        metrics=Metrics(CollectorRegistry()),
        verifier=None,
        on_failed_start=told.append,
    )
    with pytest.raises(InstallationError, match=r"CART_DATABASE_URL.*alembic -c backend/cart_service"):
        async with LifespanManager(app):
            pass
    assert len(told) == 1


async def test_a_schema_from_the_future_will_do(make_shop: MakeShop) -> None:
    shop = await make_shop(Phase.DUALWRITE)
    await shop.new("UPDATE alembic_version SET version_num = '9999_later'")
    app = make_app(
        manager=shop.manager, catalog=FakeCatalog(), metrics=Metrics(CollectorRegistry()), verifier=None
    )
    async with LifespanManager(app):
        pass


async def test_the_service_tells_how_it_is(api: Api) -> None:
    assert (await api.anyone.get("/healthz")).status_code == 200
    ready = (await api.anyone.get("/readyz")).json()
    needed = {part["name"] for part in ready["components"] if part["required"]}
    side = api.shop.manager.phase.policy.authoritative
    assert needed == {f"{side.value} database"}
    assert (await api.anyone.get("/metrics")).status_code == 200
    status = (await api.admin.get("/dual-write/status")).json()
    assert status["service"] == "cart"
    assert {"cart", "wish_item", "cart_item", "user_view"} <= set(status["entities"])
    assert status["dual_write_enabled"] is True
    tested = (await api.admin.post("/dual-write/test-operation")).json()
    assert (tested["success"], tested["cleaned_up"]) == (True, True)
    await api.add()
    for entity in ("cart", "cart_item"):
        url = f"/dual-write/validate-sync/1?entity={entity}"
        assert (await api.admin.post(url)).status_code == 200


@pytest.mark.parametrize("async_legacy", [True, False])
async def test_every_operation_reaches_both_sides_and_leaves_nothing(
    make_shop: MakeShop, phase: Phase, *, async_legacy: bool
) -> None:
    shop = await make_shop(phase, async_legacy=async_legacy)
    results = await exercise(shop.manager)
    assert [result.to_dict() for result in results if not result.success] == []
    assert {result.test_name for result in results} >= {
        f"cart.{name}"
        for name in (
            "create_cart",
            "add_item",
            "change_quantity",
            "remove_item",
            "clear_cart",
            "add_wish",
            "remove_wish",
            "move_wish_to_cart",
        )
    }
    await shop.carried()
    for table in ("carts", "cart_lines", "wish"):
        assert await shop.legacy(f"SELECT 1 FROM {table}") == []
