"""The cart service, wired together."""

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

from backend.shared import DualWriteSettings, Side, TandemError
from backend.shared.api.application import build_app
from backend.shared.api.problems import RETRY_AFTER_SECONDS, problem_response
from backend.shared.api.security import make_verifier
from backend.shared.api.tokens import TokenVerifier
from backend.shared.observability.health import HealthCheck, ProbeCheck
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import Metrics, default_metrics

from .api import TAGS, routers
from .catalog import CatalogUnavailableError, ProductCatalog
from .core.dual_write_manager import CartDualWriteManager
from .core.settings import CartSettings
from .product_client import HttpProductCatalog
from .routes.dependencies import Services
from .services.cart_service import CartService
from .services.customer_service import CustomerService
from .services.wish_list_service import WishListService

EXIT_CANNOT_START = 2
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
            on_failed_start=_end_process,
        )
    except TandemError as error:
        _end_process(error)
        raise


def make_app(
    *,
    manager: CartDualWriteManager,
    catalog: ProductCatalog,
    metrics: Metrics,
    verifier: TokenVerifier | None,
    run_relay: bool = True,
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
    app = build_app(
        "Tandem cart service",
        version=version("tandem"),
        description=DESCRIPTION,
        metrics=metrics,
        routers=routers(),
        lifespan=_lifespan(found, catalog, verifier, run_relay=run_relay, on_failed_start=on_failed_start),
        health_checks=lambda: _health_checks(manager, catalog),
        token_verifier=verifier,
        tags=TAGS,
    )
    app.add_exception_handler(CatalogUnavailableError, _catalog_unavailable)
    app.state.services = found
    return app


def _lifespan(
    found: Services,
    catalog: ProductCatalog,
    verifier: TokenVerifier | None,
    *,
    run_relay: bool,
    on_failed_start: Callable[[TandemError], None] | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    manager = found.manager

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            try:
                # Nothing is carried before everything is known to be in place.
                await manager.start()
                await manager.check_schema()
                await manager.start(relay=run_relay)
            except TandemError as error:
                if on_failed_start:
                    on_failed_start(error)
                raise
            yield
        finally:
            await found.customers.aclose()
            await catalog.aclose()
            await manager.close()
            if verifier is not None:
                await verifier.aclose()

    return lifespan


def _health_checks(manager: CartDualWriteManager, catalog: ProductCatalog) -> Sequence[HealthCheck]:
    """The side that answers is needed. Without the other one the service goes on, and the journal grows; without the
    product service nothing new gets into a cart, and all else works.
    """

    def check(side: Side) -> HealthCheck:
        async def probe() -> None:
            async with manager.runtime.engines[side].connect() as connection:
                await connection.execute(text("SELECT 1"))

        needed = side is manager.phase.policy.authoritative
        return ProbeCheck(name=f"{side.value} database", call=probe, required=needed)

    checks = [check(side) for side in Side]
    if isinstance(catalog, HttpProductCatalog):
        checks.append(ProbeCheck(name="product service", call=catalog.probe, required=False))
    return checks


async def _catalog_unavailable(request: Request, error: Exception) -> Response:
    return problem_response(
        status=503,
        name="catalog-unavailable",
        title="Products cannot be looked up",
        detail=str(error),
        path=request.url.path,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _end_process(error: TandemError) -> None:
    """End with one line: a server would print a trace of its own, and choose the exit code."""
    sys.stdout.flush()
    sys.stderr.write(f"cart: {' '.join(str(error).split())}\n")
    sys.stderr.flush()
    os._exit(EXIT_CANNOT_START)
