"""The auth service, wired together."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI, Request
from sqlalchemy import text
from starlette.responses import Response

from backend.shared import ConfigurationError, DualWriteSettings, Side, TandemError
from backend.shared.api.application import build_app
from backend.shared.api.problems import RETRY_AFTER_SECONDS, problem_response
from backend.shared.api.tokens import TokenIssuer, TokenVerifier
from backend.shared.observability.health import HealthCheck, ProbeCheck
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import Metrics, default_metrics

from .api import TAGS, routers
from .core.dual_write_manager import AuthDualWriteManager, utc_now
from .core.settings import AuthSettings
from .routes.dependencies import Services
from .services.accounts import AccountService
from .services.administration import AdministrationService
from .services.errors import OverloadedError
from .services.passwords import Passwords
from .services.sessions import SessionService

EXIT_CANNOT_START = 2

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
        return make_app(settings, manager=manager, metrics=metrics, on_failed_start=_end_process)
    except TandemError as error:
        _end_process(error)
        raise


def make_app(
    settings: AuthSettings,
    *,
    manager: AuthDualWriteManager,
    metrics: Metrics,
    on_failed_start: Callable[[TandemError], None] | None = None,
) -> FastAPI:
    """The application over `manager`, which it starts and closes. Errors at start are told to `on_failed_start` first."""
    try:
        issuer = TokenIssuer.from_file(settings.signing_key_file)
    except ConfigurationError as error:
        raise ConfigurationError(str(error), variable="AUTH_SIGNING_KEY_FILE") from error
    passwords = Passwords(settings)
    sessions = SessionService(manager, passwords=passwords, issuer=issuer, settings=settings, clock=utc_now)
    app = build_app(
        "Tandem auth service",
        version=version("tandem"),
        description=DESCRIPTION,
        metrics=metrics,
        routers=routers(),
        lifespan=_lifespan(settings, manager, passwords, on_failed_start),
        health_checks=lambda: _health_checks(manager),
        token_verifier=TokenVerifier(issuer.key_source()),
        tags=TAGS,
    )
    app.add_exception_handler(OverloadedError, _overloaded)
    app.state.services = Services(
        manager=manager,
        issuer=issuer,
        accounts=AccountService(manager, passwords=passwords, sessions=sessions),
        sessions=sessions,
        administration=AdministrationService(manager, sessions=sessions),
    )
    return app


def _lifespan(
    settings: AuthSettings,
    manager: AuthDualWriteManager,
    passwords: Passwords,
    on_failed_start: Callable[[TandemError], None] | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            try:
                await manager.start(relay=settings.run_relay)
                await manager.check_schema()
            except TandemError as error:
                await manager.close()
                if on_failed_start:
                    on_failed_start(error)
                raise
            yield
        finally:
            await manager.close()
            passwords.close()

    return lifespan


def _health_checks(manager: AuthDualWriteManager) -> Sequence[HealthCheck]:
    """The side that answers is needed; without the other the service goes on, and the backlog grows."""

    def check(side: Side) -> HealthCheck:
        async def probe() -> None:
            async with manager.runtime.engines[side].connect() as connection:
                await connection.execute(text("SELECT 1"))

        needed = side is manager.phase.policy.authoritative
        return ProbeCheck(name=f"{side.value} database", call=probe, required=needed)

    return [check(side) for side in Side]


async def _overloaded(request: Request, error: Exception) -> Response:
    return problem_response(
        status=503,
        name="overloaded",
        title="Overloaded",
        detail=str(error),
        path=request.url.path,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _end_process(error: TandemError) -> None:
    """End with one line. A server would print a trace for an application that does not start, and choose its own code."""
    sys.stdout.flush()
    sys.stderr.write(f"auth: {' '.join(str(error).split())}\n")
    sys.stderr.flush()
    os._exit(EXIT_CANNOT_START)
