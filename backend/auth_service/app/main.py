"""The auth service, wired together."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import structlog
from fastapi import FastAPI

from backend.shared import ConfigurationError, DualWriteSettings, TandemError
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
from backend.shared.api.tokens import TokenIssuer, TokenVerifier
from backend.shared.events.consumer import Consumer
from backend.shared.events.delivered_by import DeliveredBy, delivered_by
from backend.shared.events.outbox import Outbox
from backend.shared.events.transport import Transport, transport_for
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import Metrics, default_metrics

from .api import TAGS, routers
from .core.dual_write_manager import AuthDualWriteManager, utc_now
from .core.settings import AuthSettings
from .message_api import TELLS, message_api
from .models import ROOM
from .routes.dependencies import Services
from .services.accounts import AccountService
from .services.administration import AdministrationService
from .services.errors import OverloadedError
from .services.passwords import Passwords
from .services.sessions import SessionService

_end = end_process("auth")
log = structlog.get_logger(__name__)
DESCRIPTION = "Who the shop's users are, and how they prove it: accounts, sessions, public keys."


def create_app() -> FastAPI:
    """What a server is told to serve, with settings from the environment.

    When a setting is wrong or a database is not as it should be, the process ends with one line and exit code 2.
    """
    try:
        settings = AuthSettings.from_env()
        configure_logging("auth", level=settings.log_level)
        dual_write = DualWriteSettings.from_env("AUTH")
        metrics = default_metrics()
        manager = AuthDualWriteManager(settings=dual_write, metrics=metrics)
        # The first look at the manager's settings is also where it finds fault with a URL.
        log.info("service_configured", **manager.settings.to_dict())
        return make_app(
            settings,
            manager=manager,
            metrics=metrics,
            transport=transport_for(settings.broker_url) if settings.broker_url else None,
            delivery=delivered_by("auth"),
            on_failed_start=_end,
        )
    except TandemError as error:
        _end(error)


def make_app(
    settings: AuthSettings,
    *,
    manager: AuthDualWriteManager,
    metrics: Metrics,
    transport: Transport | None = None,
    delivery: DeliveredBy = DeliveredBy.OUTBOX,
    on_failed_start: Callable[[TandemError], None] | None = None,
) -> FastAPI:
    """The application over `manager`, which it starts and closes. Errors at start are told to `on_failed_start` first."""
    try:
        issuer = TokenIssuer.from_file(settings.signing_key_file)
    except ConfigurationError as error:
        raise ConfigurationError(str(error), variable="AUTH_SIGNING_KEY_FILE") from error
    passwords = Passwords(settings)
    sessions = SessionService(manager, passwords=passwords, issuer=issuer, settings=settings, clock=utc_now)
    parts: list[Part] = [
        Closing(aclose=passwords.aclose),
        ManagerPart(manager=manager, run_relay=settings.run_relay),
    ]
    if transport is not None:
        manager.outbox = Outbox(ROOM, tells=TELLS, delivered_by=delivery)
        # It tells, and listens to nobody.
        consumer = Consumer("auth", ROOM, manager.run_unit, metrics=metrics)
        parts.append(messaging_part(manager, transport, consumer, retention=settings.retention))
    app = build_app(
        "Tandem auth service",
        version=version("tandem"),
        service="auth",
        description=DESCRIPTION,
        metrics=metrics,
        routers=[*routers(), message_router(message_api(), broker_url=settings.broker_url)],
        lifespan=running(parts, on_failed_start=on_failed_start),
        health_checks=lambda: [*side_checks(manager), *manager.also_asked],
        token_verifier=TokenVerifier(issuer.key_source()),
        tags=TAGS,
    )
    tell_unavailable(app, OverloadedError, name="overloaded", title="Overloaded")
    app.state.services = Services(
        manager=manager,
        issuer=issuer,
        accounts=AccountService(manager, passwords=passwords, sessions=sessions),
        sessions=sessions,
        administration=AdministrationService(manager, sessions=sessions),
    )
    return app
