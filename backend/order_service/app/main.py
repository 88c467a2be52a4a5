"""The order service, wired together."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI

from backend.shared import AwayError, DualWriteSettings, TandemError
from backend.shared.api.application import build_app
from backend.shared.api.message_routes import message_router
from backend.shared.api.problems import tell_unavailable
from backend.shared.api.running import (
    Closing,
    ManagerPart,
    Part,
    Repeating,
    end_process,
    messaging_part,
    running,
    side_checks,
)
from backend.shared.api.security import make_verifier
from backend.shared.api.tokens import TokenVerifier
from backend.shared.events.consumer import Consumer
from backend.shared.events.delivered_by import DeliveredBy, delivered_by
from backend.shared.events.outbox import Outbox
from backend.shared.events.transport import Transport, transport_for
from backend.shared.observability.health import HealthCheck, ProbeCheck
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import Metrics, default_metrics
from backend.shared.service_client import ServiceClient

from .api import TAGS, routers
from .clients import HttpCarts, HttpCustomers, HttpProducts
from .conductors import conductors
from .core.dual_write_manager import OrderDualWriteManager
from .core.settings import OrderSettings
from .message_api import TELLS, message_api
from .models import ROOM
from .routes.dependencies import Services
from .services.deadlines import LOOK_SECONDS as LATE_SECONDS
from .services.deadlines import Deadlines
from .services.listening import listen
from .services.order_desk import OrderDesk
from .services.order_service import OrderService
from .services.saga_watch import LOOK_SECONDS as WATCH_SECONDS
from .services.saga_watch import SagaWatch

_end = end_process("order")
DESCRIPTION = "What customers have bought, and how each order makes its way through the other services."


def create_app() -> FastAPI:
    """What a server is told to serve, with settings from the environment.

    When a setting is wrong, or a database is down or lacks something, the process ends with one line and exit code 2.
    """
    try:
        settings = OrderSettings.from_env()
        configure_logging("order", level=settings.log_level)
        metrics = default_metrics()
        return make_app(
            settings,
            manager=OrderDualWriteManager(settings=DualWriteSettings.from_env("ORDER"), metrics=metrics),
            transport=transport_for(settings.broker_url),
            metrics=metrics,
            verifier=make_verifier(jwks_url=settings.jwks_url, public_key_file=settings.public_key_file),
            delivery=delivered_by("order"),
            on_failed_start=_end,
        )
    except TandemError as error:
        _end(error)


def make_app(
    settings: OrderSettings,
    *,
    manager: OrderDualWriteManager,
    transport: Transport,
    metrics: Metrics,
    verifier: TokenVerifier | None,
    delivery: DeliveredBy = DeliveredBy.OUTBOX,
    on_failed_start: Callable[[TandemError], None] | None = None,
) -> FastAPI:
    """The application over `manager`, which it starts and closes. A failed start is told to `on_failed_start` first."""
    outbox, times = Outbox(ROOM, tells=TELLS, delivered_by=delivery), settings.sagas
    forms = conductors(step_seconds=times.step_seconds, saga_seconds=times.saga_seconds)
    desk = OrderDesk(outbox, forms, style=times.saga_style)
    sagas = SagaWatch(manager, metrics)
    consumer = Consumer("order", ROOM, sagas.run_unit, metrics=metrics)
    listen(consumer, desk)
    callees = [
        ServiceClient(name, url, timeout_seconds=settings.call_timeout_seconds)
        for name, url in (
            ("cart", settings.cart_url),
            ("product", settings.product_url),
            ("auth", settings.auth_url),
        )
    ]
    carts, products, customers = callees
    orders = OrderService(
        manager,
        desk,
        carts=HttpCarts(carts),
        products=HttpProducts(products),
        customers=HttpCustomers(customers),
    )
    messaging = messaging_part(manager, transport, consumer, retention=settings.retention)
    parts: list[Part] = [
        *([Closing(aclose=verifier.aclose)] if verifier else []),
        *(Closing(aclose=callee.aclose) for callee in callees),
        ManagerPart(manager=manager, run_relay=settings.run_relay),
        messaging,
        Repeating(Deadlines(manager, desk).look, seconds=LATE_SECONDS, service="order"),
        Repeating(sagas.look, seconds=WATCH_SECONDS, service="order"),
    ]

    def checks() -> list[HealthCheck]:
        """Without another service, or without the broker, orders wait."""
        others = [
            ProbeCheck(name=f"{callee.name} service", call=callee.probe, required=False) for callee in callees
        ]
        return [*side_checks(manager), *manager.also_asked, *others]

    app = build_app(
        "Tandem order service",
        version=version("tandem"),
        service="order",
        description=DESCRIPTION,
        metrics=metrics,
        routers=[*routers(), message_router(message_api(), broker_url=settings.broker_url)],
        lifespan=running(parts, on_failed_start=on_failed_start),
        health_checks=checks,
        token_verifier=verifier,
        tags=TAGS,
    )
    tell_unavailable(app, AwayError, name="service-away", title="Another service does not answer")
    app.state.services = Services(manager=manager, orders=orders)
    return app
