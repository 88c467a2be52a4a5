"""Trouble with a single store as problem details: in the words for a side of two, since callers need not know which it is."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from starlette.responses import Response

from backend.shared.api.problems import RETRY_AFTER_SECONDS, problem_response

from ..domain.errors import StoreError, StoreUnavailableError

log = structlog.stdlib.get_logger(__name__)


def install_store_problems(app: FastAPI) -> None:
    """Answer trouble with a store by kind: 503 and 504, to be tried again after a while, or 502."""
    app.add_exception_handler(StoreError, _handle_store_error)


async def _handle_store_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, StoreError):
        raise error
    log.error("request_failed", error=str(error), error_type=type(error).__name__)
    status, name, title = _kind_of(error)
    outage = error.outage if isinstance(error, StoreUnavailableError) else None
    return problem_response(
        status=status,
        name=name,
        title=title,
        detail=f"the {error.store} store {'could not answer' if outage else 'refused the operation'}",
        path=request.url.path,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)} if outage else None,
        outage=outage,
    )


def _kind_of(error: StoreError) -> tuple[HTTPStatus, str, str]:
    if not isinstance(error, StoreUnavailableError):
        return HTTPStatus.BAD_GATEWAY, "side-refused", "Database refused"
    if error.outage.is_timeout:
        return HTTPStatus.GATEWAY_TIMEOUT, "side-timeout", "Database too slow"
    return HTTPStatus.SERVICE_UNAVAILABLE, "side-unavailable", "Database unavailable"
