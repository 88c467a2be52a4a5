"""The edge of every request: its id, and the one line that says how it went."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.shared.observability.context import accept_request_id, request_context

REQUEST_ID_HEADER = "X-Request-ID"
UNMATCHED_ROUTE = "unmatched"
QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})

logger = structlog.stdlib.get_logger(__name__)


class RequestContextMiddleware:
    """Takes or makes the request id, returns it in the response, and writes one access line per request.

    Pure ASGI: the application runs in the same task, so what is bound here is seen by every line it logs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = accept_request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        status = 0
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with request_context(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                _log_access(scope, status=status, seconds=time.perf_counter() - began)


def route_template(scope: Mapping[str, Any]) -> str:
    """The path as declared (`/carts/{user_id}`), never as called: paths hold ids, and logs are grouped by route."""
    included = scope.get("fastapi")
    if isinstance(included, Mapping):
        # A route of an included router knows its own part of the path only; FastAPI keeps the whole here.
        path = getattr(included.get("effective_route_context"), "path_format", None)
        if isinstance(path, str):
            return path
    path = getattr(scope.get("route"), "path_format", None)
    return path if isinstance(path, str) else UNMATCHED_ROUTE


def _log_access(scope: Scope, *, status: int, seconds: float) -> None:
    route = route_template(scope)
    fields = {
        "method": scope["method"],
        "route": route,
        # None: the caller went away, or the connection was cut, before there was an answer.
        "status": status or None,
        "duration_seconds": round(seconds, 6),
    }
    if status >= 500:
        logger.error("request_finished", **fields)
    elif route in QUIET_ROUTES:
        logger.debug("request_finished", **fields)
    else:
        logger.info("request_finished", **fields)
