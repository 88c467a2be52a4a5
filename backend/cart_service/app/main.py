"""The cart service, wired together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

import structlog
from fastapi import FastAPI

from backend.shared import DualWriteSettings, TandemError
from backend.shared.api.application import build_app
from backend.shared.api.message_routes import message_router
from backend.shared.api.problems import tell_unavailable
from backend.shared.api.running import (
    Closing,
    ManagerPart,
    Part,
    end_process,
    messaging_part,
    running,
    side_checks,
)
from backend.shared.api.security import make_verifier
from backend.shared.api.tokens import TokenVerifier
from backend.shared.events.consumer import Consumer
from backend.shared.events.pruning import MessageRetention
from backend.shared.events.transport import Transport, transport_for
from backend.shared.observability.health import HealthCheck, ProbeCheck
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import Metrics, default_metrics

from .api import TAGS, routers
from .catalog import CatalogUnavailableError, ProductCatalog
from .core.dual_write_manager import CartDualWriteManager
from .core.settings import CartSettings
from .message_api import message_api
from .models import ROOM
from .product_client import HttpProductCatalog
from .routes.dependencies import Services
from .services.cart_service import CartService
from .services.checkout import Checkout
from .services.customer_service import CustomerService
from .services.listening import listen
from .services.wish_list_service import WishListService

_end = end_process("cart")
DESCRIPTION = "What the shop's users are about to buy, and what they wish for."

log = structlog.get_logger(__name__)


def create_app() -> FastAPI:
    """What a server is told to serve, with settings from the environment.

    When a setting is wrong, or a database is down or lacks something, the process ends with one line and exit code 2.
    """
    try:
        settings = CartSettings.from_env()
        configure_logging("cart", level=settings.log_level)
        metrics = default_metrics()
        manager = CartDualWriteManager(settings=DualWriteSettings.from_env("CART"), metrics=metrics)
        # To look at the manager's settings makes its parts, which is where a wrong URL is found out.
        log.info("service_configured", **manager.settings.to_dict())
        return make_app(
            manager=manager,
            catalog=HttpProductCatalog(
                settings.product_url, timeout_seconds=settings.product_timeout_seconds
            ),
            metrics=metrics,
            verifier=make_verifier(jwks_url=settings.jwks_url, public_key_file=settings.public_key_file),
            run_relay=settings.run_relay,
            transport=transport_for(settings.broker_url) if settings.broker_url else None,
            retention=settings.retention,
            broker_url=settings.broker_url,
            on_failed_start=_end,
        )
    except TandemError as error:
        _end(error)


def make_app(
    *,
    manager: CartDualWriteManager,
    catalog: ProductCatalog,
    metrics: Metrics,
    verifier: TokenVerifier | None,
    run_relay: bool = True,
    transport: Transport | None = None,
    retention: MessageRetention | None = None,
    broker_url: str | None = None,
    on_failed_start: Callable[[TandemError], None] | None = None,
) -> FastAPI:
    """The application over `manager` and `catalog`, which it closes in the end. A failed start is told to
    `on_failed_start` first.
    """
    found = Services(
        manager=manager,
        carts=CartService(manager, catalog=catalog),
        wishes=WishListService(manager, catalog=catalog),
        customers=CustomerService(manager),
    )
    parts: list[Part] = [Closing(aclose=verifier.aclose)] if verifier else []
    parts += [
        ManagerPart(manager=manager, run_relay=run_relay),
        Closing(aclose=catalog.aclose),
        Closing(aclose=found.customers.aclose),
    ]
    if transport is not None:
        consumer = Consumer("cart", ROOM, manager.run_unit, metrics=metrics)
        listen(consumer, Checkout())
        parts.append(messaging_part(manager, transport, consumer, retention=retention))
    app = build_app(
        "Tandem cart service",
        version=version("tandem"),
        service="cart",
        description=DESCRIPTION,
        metrics=metrics,
        routers=[*routers(), message_router(message_api(), broker_url=broker_url)],
        lifespan=running(parts, on_failed_start=on_failed_start),
        health_checks=lambda: _health_checks(manager, catalog),
        token_verifier=verifier,
        tags=TAGS,
    )
    tell_unavailable(
        app, CatalogUnavailableError, name="catalog-unavailable", title="Products cannot be looked up"
    )
    app.state.services = found
    return app


def _health_checks(manager: CartDualWriteManager, catalog: ProductCatalog) -> Sequence[HealthCheck]:
    """The side that answers is needed. Without the other one the service goes on, and the journal grows; without the
    product service nothing new gets into a cart, and all else works.
    """
    checks = [*side_checks(manager), *manager.also_asked]
    if isinstance(catalog, HttpProductCatalog):
        checks.append(ProbeCheck(name="product service", call=catalog.probe, required=False))
    return checks
