"""One way to build a service's FastAPI application, so that all services answer alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import Scope

from backend.shared.api.body_limit import MAX_BODY_BYTES, BodyLimitMiddleware
from backend.shared.api.health_routes import health_router
from backend.shared.api.openapi import problem_openapi
from backend.shared.api.problems import install_problem_handlers
from backend.shared.api.security import set_token_verifier
from backend.shared.api.tokens import TokenVerifier
from backend.shared.observability.health import HealthCheck
from backend.shared.observability.metrics import Metrics
from backend.shared.observability.middleware import QUIET_ROUTES, RequestContextMiddleware
from backend.shared.observability.tracing import Tracing, start_tracing, stop_tracing, tracing_provider

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_TAGS: tuple[dict[str, Any], ...] = (
    {
        "name": "dual-write",
        "description": "The migration of this service: state, failures, phase. Operators only.",
    },
    {"name": "health", "description": "Alive, able to serve, metrics."},
)


def build_app(
    title: str,
    *,
    version: str,
    service: str | None = None,
    metrics: Metrics,
    routers: Sequence[APIRouter],
    lifespan: Lifespan | None = None,
    description: str = "",
    health_checks: Callable[[], Sequence[HealthCheck]] = tuple,
    token_verifier: TokenVerifier | None = None,
    tags: Sequence[Mapping[str, Any]] = (),
    servers: Sequence[Mapping[str, Any]] = ({"url": "/", "description": "This service."},),
    max_body_bytes: int = MAX_BODY_BYTES,
) -> FastAPI:
    """An application with request ids, access lines, problem details, health routes and a body limit.

    `health_checks` is asked at each `/readyz`, so it may look at what `lifespan` has made. Without a `token_verifier`
    (it may also be set later, by `set_token_verifier`) routes that need a token answer 503.

    The process traces as `service` from now on to the end of the application, where the environment asks for it; raises
    `ConfigurationError` if it cannot.
    """
    app = FastAPI(
        title=title,
        version=version,
        description=description,
        lifespan=_traced_lifespan(lifespan, start_tracing(service) if service else None),
        telemetry=_telemetry(),
        # A caller who gets a path wrong is told so, instead of being sent elsewhere with her body.
        redirect_slashes=False,
        openapi_tags=[dict(tag) for tag in (*tags, *_TAGS)],
        servers=[dict(server) for server in servers],
    )
    set_token_verifier(app, token_verifier)
    # The last one added is the outermost: the access line must see every answer, 413 and 500 included.
    install_problem_handlers(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=max_body_bytes)
    app.add_middleware(RequestContextMiddleware)
    app.include_router(health_router(health_checks, metrics=metrics))
    for router in routers:
        app.include_router(router)
    app.openapi = problem_openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _telemetry() -> TelemetryConfig:
    """Spans of requests, where the process traces. FastAPI's logs and metrics stay off: the first hold texts of errors."""
    provider = tracing_provider()
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": _is_quiet,
    }


def _is_quiet(scope: Scope) -> bool:
    return scope.get("path") in QUIET_ROUTES


def _traced_lifespan(lifespan: Lifespan | None, tracing: Tracing | None) -> Lifespan | None:
    """`lifespan`, and then the end of what was begun: parts have something to tell while they are closed."""
    if tracing is None:
        return lifespan

    @asynccontextmanager
    async def traced(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with lifespan(app) if lifespan else nullcontext():
                yield
        finally:
            await stop_tracing(tracing)

    return traced
