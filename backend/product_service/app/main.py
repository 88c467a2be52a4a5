"""The product service, wired together."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from sqlalchemy import text

from backend.shared import DualWriteSettings, Side, TandemError
from backend.shared.api.application import build_app
from backend.shared.api.security import make_verifier
from backend.shared.api.tokens import TokenVerifier
from backend.shared.observability.health import HealthCheck, ProbeCheck
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import Metrics, default_metrics

from .api import TAGS, routers
from .core.dual_write_manager import ProductDualWriteManager
from .core.settings import ProductSettings

EXIT_CANNOT_START = 2
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
            on_failed_start=_end_process,
        )
    except TandemError as error:
        _end_process(error)
        raise


def make_app(
    *,
    manager: ProductDualWriteManager,
    metrics: Metrics,
    verifier: TokenVerifier | None,
    run_relay: bool = True,
    on_failed_start: Callable[[TandemError], None] | None = None,
) -> FastAPI:
    """The application over `manager`, which it starts and closes. A failed start is told to `on_failed_start` first."""
    app = build_app(
        "Tandem product service",
        version=version("tandem"),
        description=DESCRIPTION,
        metrics=metrics,
        routers=routers(),
        lifespan=_lifespan(manager, verifier, run_relay=run_relay, on_failed_start=on_failed_start),
        health_checks=lambda: _health_checks(manager),
        token_verifier=verifier,
        tags=TAGS,
    )
    app.state.manager = manager
    return app


def _lifespan(
    manager: ProductDualWriteManager,
    verifier: TokenVerifier | None,
    *,
    run_relay: bool,
    on_failed_start: Callable[[TandemError], None] | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
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
            await manager.close()
            if verifier is not None:
                await verifier.aclose()

    return lifespan


def _health_checks(manager: ProductDualWriteManager) -> Sequence[HealthCheck]:
    """The side that answers is needed. Without the other one the service goes on, and the journal grows."""

    def check(side: Side) -> HealthCheck:
        async def probe() -> None:
            async with manager.runtime.engines[side].connect() as connection:
                await connection.execute(text("SELECT 1"))

        needed = side is manager.phase.policy.authoritative
        return ProbeCheck(name=f"{side.value} database", call=probe, required=needed)

    return [check(side) for side in Side]


def _end_process(error: TandemError) -> None:
    """End with one line: a server would print a trace of its own, and choose the exit code."""
    sys.stdout.flush()
    sys.stderr.write(f"product: {' '.join(str(error).split())}\n")
    sys.stderr.flush()
    os._exit(EXIT_CANNOT_START)
