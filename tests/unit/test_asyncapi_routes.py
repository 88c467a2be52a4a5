"""Each service that has to do with messages says so over HTTP, with or without a broker, and delivers them as it is told to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from backend.auth_service.app import main as auth
from backend.auth_service.app.core.dual_write_manager import AuthDualWriteManager
from backend.auth_service.app.core.settings import AuthSettings
from backend.cart_service.app import main as cart
from backend.cart_service.app.core.dual_write_manager import CartDualWriteManager
from backend.cart_service.app.product_client import HttpProductCatalog
from backend.order_service.app import main as order
from backend.order_service.app.core.dual_write_manager import OrderDualWriteManager
from backend.order_service.app.core.settings import OrderSettings
from backend.payment_service.app import main as payment
from backend.payment_service.app.core.settings import Provider
from backend.product_service.app import main as product
from backend.product_service.app.core.dual_write_manager import ProductDualWriteManager
from backend.shared import DualWriteSettings
from backend.shared.api.tokens import generate_signing_key
from backend.shared.database import create_side_engine
from backend.shared.events.delivered_by import DeliveredBy
from backend.shared.events.outbox import Outbox
from backend.shared.events.tables import EventRoom
from backend.shared.events.transport import transport_for
from backend.shared.observability.metrics import Metrics

DATABASE = "postgresql://ann:s3cr3t@127.0.0.1:1/nowhere"
BROKER = "nats://ann:s3cr3t@127.0.0.1:1"
ELSEWHERE = "http://127.0.0.1:1"


def auth_app(**more: Any) -> FastAPI:
    manager = AuthDualWriteManager(DATABASE, DATABASE, DualWriteSettings(service="auth"), metrics=metrics())
    with NamedTemporaryFile() as key:
        key.write(generate_signing_key())
        key.flush()
        settings = AuthSettings(signing_key_file=Path(key.name))
        return auth.make_app(settings, manager=manager, metrics=metrics(), **more)


def cart_app(**more: Any) -> FastAPI:
    manager = CartDualWriteManager(DATABASE, DATABASE, DualWriteSettings(service="cart"), metrics=metrics())
    catalog = HttpProductCatalog(ELSEWHERE)
    return cart.make_app(manager=manager, catalog=catalog, metrics=metrics(), verifier=None, **more)


def product_app(**more: Any) -> FastAPI:
    manager = ProductDualWriteManager(
        DATABASE, DATABASE, DualWriteSettings(service="product"), metrics=metrics()
    )
    return product.make_app(manager=manager, metrics=metrics(), verifier=None, **more)


def order_app(**more: Any) -> FastAPI:
    return order.make_app(
        OrderSettings(broker_url=BROKER, cart_url=ELSEWHERE, product_url=ELSEWHERE, auth_url=ELSEWHERE),
        manager=OrderDualWriteManager(
            DATABASE, DATABASE, DualWriteSettings(service="order"), metrics=metrics()
        ),
        transport=transport_for(BROKER),
        metrics=metrics(),
        verifier=None,
        **more,
    )


def payment_app(**more: Any) -> FastAPI:
    return payment.make_app(
        create_side_engine(DATABASE, application_name="test"),
        provider=Provider.CREDIT,
        transport=transport_for(BROKER),
        broker_url=BROKER,
        metrics=metrics(),
        verifier=None,
        **more,
    )


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.mark.parametrize(
    ("make", "service", "hosts"),
    [
        (auth_app, "auth", []),
        (cart_app, "cart", []),
        (product_app, "product", []),
        (order_app, "order", ["127.0.0.1:1"]),
        (payment_app, "payment", ["127.0.0.1:1"]),
    ],
)
async def test_each_service_serves_it(make: Callable[[], FastAPI], service: str, hosts: list[str]) -> None:
    """Nothing is started, so there is nothing to be closed."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=make()), base_url="http://it") as client:
        document = (await client.get("/asyncapi.json")).json()
    assert document["info"]["title"] == f"Tandem {service} service"
    assert document["id"] == f"urn:tandem:{service}"
    assert [server["host"] for server in document.get("servers", {}).values()] == hosts
    assert "s3cr3t" not in json.dumps(document)


@pytest.mark.parametrize(
    ("make", "main"), [(auth_app, auth), (product_app, product), (order_app, order), (payment_app, payment)]
)
@pytest.mark.parametrize("delivery", list(DeliveredBy))
def test_each_service_queues_only_what_it_delivers(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., FastAPI], main: ModuleType, delivery: DeliveredBy
) -> None:
    seen: list[DeliveredBy] = []

    def made(room: EventRoom, *, delivered_by: DeliveredBy, **more: Any) -> Outbox:
        seen.append(delivered_by)
        return Outbox(room, delivered_by=delivered_by, **more)

    monkeypatch.setattr(main, "Outbox", made)
    more = {"transport": transport_for(BROKER)} if main in (auth, product) else {}
    make(delivery=delivery, **more)
    assert seen == [delivery]


@pytest.mark.parametrize("service", ["auth", "product", "order", "payment"])
def test_each_service_reads_who_delivers(service: str, tmp_path: Path) -> None:
    variables = dict.fromkeys(("CART_URL", "PRODUCT_URL", "AUTH_URL"), ELSEWHERE)
    variables["AUTH_SIGNING_KEY_FILE"] = str(tmp_path / "key.pem")
    (tmp_path / "key.pem").write_bytes(generate_signing_key())
    ended = subprocess.run(
        [sys.executable, "-c", f"from backend.{service}_service.app.main import create_app; create_app()"],
        env={
            "LEGACY_DATABASE_URL": DATABASE,
            "DATABASE_URL": DATABASE,
            "BROKER_URL": BROKER,
            "MESSAGES_DELIVERY": "debezium",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert ended.returncode == 2, ended.stderr
    assert "MESSAGES_DELIVERY: must be one of outbox, none" in ended.stderr
