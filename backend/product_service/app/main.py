"""The product service, wired together."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI

from backend.shared import DualWriteSettings, TandemError
from backend.shared.api.application import build_app
from backend.shared.api.message_routes import message_router
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
from backend.shared.events.delivered_by import DeliveredBy, delivered_by
from backend.shared.events.outbox import Outbox
from backend.shared.events.pruning import MessageRetention
from backend.shared.events.transport import Transport, transport_for
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import Metrics, default_metrics

from .api import TAGS, routers
from .core.dual_write_manager import ProductDualWriteManager
from .core.settings import ProductSettings
from .message_api import TELLS, message_api
from .models import ROOM
from .services.listening import listen
from .services.stock_desk import StockDesk

_end = end_process("product")
DESCRIPTION = "What the shop sells: products, how many there are, and the tree of categories they stand in."


def create_app() -> FastAPI:
    """What a server is told to serve, with settings from the environment.

    When a setting is wrong, or a database is down or lacks something, the process ends with one line and exit code 2.
    """
    try:
        settings = ProductSettings.from_env()
        configure_logging("product", level=settings.log_level)
        metrics = default_metrics()
        manager = ProductDualWriteManager(settings=DualWriteSettings.from_env("PRODUCT"), metrics=metrics)
        verifier = make_verifier(jwks_url=settings.jwks_url, public_key_file=settings.public_key_file)
        return make_app(
            manager=manager,
            metrics=metrics,
            verifier=verifier,
            run_relay=settings.run_relay,
            transport=transport_for(settings.broker_url) if settings.broker_url else None,
            retention=settings.retention,
            broker_url=settings.broker_url,
            delivery=delivered_by("product"),
            on_failed_start=_end,
        )
    except TandemError as error:
        _end(error)


def make_app(
    *,
    manager: ProductDualWriteManager,
    metrics: Metrics,
    verifier: TokenVerifier | None,
    run_relay: bool = True,
    transport: Transport | None = None,
    retention: MessageRetention | None = None,
    broker_url: str | None = None,
    delivery: DeliveredBy = DeliveredBy.OUTBOX,
    on_failed_start: Callable[[TandemError], None] | None = None,
) -> FastAPI:
    """The application over `manager`, which it starts and closes. A failed start is told to `on_failed_start` first."""
    parts: list[Part] = [Closing(aclose=verifier.aclose)] if verifier else []
    parts.append(ManagerPart(manager=manager, run_relay=run_relay))
    if transport is not None:
        consumer = Consumer("product", ROOM, manager.run_unit, metrics=metrics)
        manager.outbox = Outbox(ROOM, tells=TELLS, delivered_by=delivery)
        listen(consumer, StockDesk(manager.outbox))
        parts.append(messaging_part(manager, transport, consumer, retention=retention))
    app = build_app(
        "Tandem product service",
        version=version("tandem"),
        service="product",
        description=DESCRIPTION,
        metrics=metrics,
        routers=[*routers(), message_router(message_api(), broker_url=broker_url)],
        lifespan=running(parts, on_failed_start=on_failed_start),
        health_checks=lambda: [*side_checks(manager), *manager.also_asked],
        token_verifier=verifier,
        tags=TAGS,
    )
    app.state.manager = manager
    return app
