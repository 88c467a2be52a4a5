"""The payment service, wired together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared import Side, TandemError
from backend.shared.api.application import build_app
from backend.shared.api.message_routes import message_router
from backend.shared.api.running import Closing, Part, database_check, end_process, running
from backend.shared.api.security import make_verifier
from backend.shared.api.tokens import TokenVerifier
from backend.shared.database import DatabaseLimits, create_side_engine
from backend.shared.events.consumer import Consumer
from backend.shared.events.delivered_by import DeliveredBy, delivered_by
from backend.shared.events.messaging import Messaging
from backend.shared.events.outbox import Outbox
from backend.shared.events.pruning import MessageRetention
from backend.shared.events.transport import Transport, transport_for
from backend.shared.local_units import LocalUnits
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import Metrics, default_metrics
from backend.shared.schema_version import check_schema_version

from .api import TAGS, routers
from .core.settings import PaymentSettings, Provider
from .message_api import TELLS, message_api
from .models import ROOM
from .provider import CreditProvider, PaymentProvider, ProviderForTests
from .routes.dependencies import Services
from .services.listening import listen
from .services.payment_desk import PaymentDesk
from .services.payment_service import PaymentService

MIGRATIONS = Path(__file__).parents[1] / "migrations"
_end = end_process("payment")
DESCRIPTION = "What customers may spend, and what becomes of it with their orders."


def create_app() -> FastAPI:
    """What a server is told to serve, with settings from the environment.

    When a setting is wrong, or a database is down or lacks something, the process ends with one line and exit code 2.
    """
    try:
        settings = PaymentSettings.from_env()
        configure_logging("payment", level=settings.log_level)
        engine = create_side_engine(
            settings.database_url,
            application_name="tandem-payment",
            variable="PAYMENT_DATABASE_URL",
            limits=DatabaseLimits.from_env("payment"),
        )
        return make_app(
            engine,
            provider=settings.provider,
            transport=transport_for(settings.broker_url),
            metrics=default_metrics(),
            retention=settings.retention,
            verifier=make_verifier(jwks_url=settings.jwks_url, public_key_file=settings.public_key_file),
            broker_url=settings.broker_url,
            delivery=delivered_by("payment"),
            on_failed_start=_end,
        )
    except TandemError as error:
        _end(error)


@dataclass(frozen=True, kw_only=True)
class _Database:
    """The service's own database."""

    engine: AsyncEngine

    async def start(self) -> None:
        """Raises where it is down, or lacks a migration."""
        await check_schema_version(self.engine, service="payment", migrations=MIGRATIONS)

    async def close(self) -> None:
        """Let go of all connections."""
        await self.engine.dispose()


def make_app(
    engine: AsyncEngine,
    *,
    provider: Provider,
    transport: Transport,
    metrics: Metrics,
    verifier: TokenVerifier | None,
    retention: MessageRetention | None = None,
    broker_url: str | None = None,
    delivery: DeliveredBy = DeliveredBy.OUTBOX,
    on_failed_start: Callable[[TandemError], None] | None = None,
) -> FastAPI:
    """The application over `engine`, which it lets go of in the end. A failed start is told to `on_failed_start` first."""
    units = LocalUnits(engine)
    chosen: PaymentProvider = CreditProvider()
    if provider is Provider.TEST:
        chosen = ProviderForTests(chosen, units)
    consumer = Consumer("payment", ROOM, units, metrics=metrics)
    listen(consumer, PaymentDesk(chosen, Outbox(ROOM, tells=TELLS, delivered_by=delivery)))
    messaging = Messaging(transport, ROOM, {Side.NEW: engine}, consumer=consumer, retention=retention)
    parts: list[Part] = [
        *([Closing(aclose=verifier.aclose)] if verifier else []),
        _Database(engine=engine),
        messaging,
    ]
    app = build_app(
        "Tandem payment service",
        version=version("tandem"),
        service="payment",
        description=DESCRIPTION,
        metrics=metrics,
        routers=[
            *routers(with_faults=provider is Provider.TEST),
            message_router(message_api(), broker_url=broker_url),
        ],
        lifespan=running(parts, on_failed_start=on_failed_start),
        health_checks=lambda: [database_check("database", engine), messaging.check()],
        token_verifier=verifier,
        tags=TAGS,
    )
    app.state.services = Services(payments=PaymentService(units))
    return app
