"""Errors as problem details (RFC 9457), in this one place for all services.

A problem names the side, the entity and the key; it never holds a value that the caller sent in a secret field, the
text of a database, or a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.shared.api.errors import InvalidTokenError, KeysUnavailableError, NotReadyError
from backend.shared.api.problem_details import ComponentProblem, Problem, ValidationIssue
from backend.shared.domain.errors import (
    ConfigurationError,
    ConflictError,
    FencedError,
    NotFoundError,
    PermissionDeniedError,
    SideError,
    TandemError,
    UnauthenticatedError,
    ValidationError,
)
from backend.shared.domain.outages import Outage
from backend.shared.observability.context import current_request_id
from backend.shared.observability.masking import is_secret_name, mask_text
from backend.shared.observability.middleware import route_template

PROBLEM_CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
_TYPE_PREFIX = "urn:tandem:problem:"
_MAX_ISSUES = 50
_MAX_LOCATION_LENGTH = 100

# What pydantic says of a secret field under these types depends on the declared limits alone, not on the value.
_HARMLESS_ISSUES = frozenset(
    {
        "missing",
        "extra_forbidden",
        "string_type",
        "string_too_short",
        "string_too_long",
        "string_pattern_mismatch",
    }
)

logger = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How one type of error is told to a caller. `detail` None: the error's own words."""

    status: HTTPStatus
    name: str
    title: str
    detail: Callable[[TandemError], str] | None = None


def _side_detail(error: TandemError) -> str:
    """Side, entity and key, but not the database's own words: they may quote rows."""
    if not isinstance(error, SideError):
        return "a database failed"
    place = f"the {error.side.value} side"
    if error.entity:
        place += f", {error.entity}" + (f" {error.key}" if error.key else "")
    return f"{place}: {'could not answer' if _is_unavailable(error) else 'refused the operation'}"


def _is_unavailable(error: TandemError) -> bool:
    return isinstance(error, SideError) and (error.unavailable or isinstance(error, FencedError))


def _outage_of(error: TandemError) -> Outage | None:
    return error.outage if isinstance(error, SideError) else None


_UNPROCESSABLE = (
    HTTPStatus.UNPROCESSABLE_CONTENT if hasattr(HTTPStatus, "UNPROCESSABLE_CONTENT") else HTTPStatus(422)
)
_INTERNAL = _Kind(
    status=HTTPStatus.INTERNAL_SERVER_ERROR,
    name="internal",
    title="Internal error",
    detail=lambda _error: "something failed that should not have; the request id leads to it in the logs",
)
_SIDE_TIMEOUT = _Kind(
    status=HTTPStatus.GATEWAY_TIMEOUT, name="side-timeout", title="Database too slow", detail=_side_detail
)
_SIDE_UNAVAILABLE = _Kind(
    status=HTTPStatus.SERVICE_UNAVAILABLE,
    name="side-unavailable",
    title="Database unavailable",
    detail=_side_detail,
)
# Looked up along the type's ancestors, so the nearest wins.
_KINDS: Mapping[type[BaseException], _Kind] = {
    ValidationError: _Kind(status=_UNPROCESSABLE, name="invalid-request", title="Invalid request"),
    NotFoundError: _Kind(status=HTTPStatus.NOT_FOUND, name="not-found", title="Not found"),
    ConflictError: _Kind(status=HTTPStatus.CONFLICT, name="conflict", title="Conflict"),
    PermissionDeniedError: _Kind(
        status=HTTPStatus.FORBIDDEN, name="permission-denied", title="Permission denied"
    ),
    UnauthenticatedError: _Kind(
        status=HTTPStatus.UNAUTHORIZED, name="unauthenticated", title="Authentication required"
    ),
    InvalidTokenError: _Kind(status=HTTPStatus.UNAUTHORIZED, name="invalid-token", title="Invalid token"),
    KeysUnavailableError: _Kind(
        status=HTTPStatus.SERVICE_UNAVAILABLE, name="keys-unavailable", title="Tokens cannot be checked"
    ),
    NotReadyError: _Kind(status=HTTPStatus.SERVICE_UNAVAILABLE, name="not-ready", title="Not ready"),
    SideError: _Kind(
        status=HTTPStatus.BAD_GATEWAY, name="side-refused", title="Database refused", detail=_side_detail
    ),
    ConfigurationError: _Kind(
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        name="configuration",
        title="Service not configured",
        detail=lambda _error: "the service is not set up for this; its logs name the setting",
    ),
    TandemError: _INTERNAL,
}


class ProblemResponse(JSONResponse):
    """A response with problem details."""

    media_type = PROBLEM_CONTENT_TYPE


def problem_response(
    *,
    status: int,
    detail: str,
    path: str,
    name: str | None = None,
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
    errors: list[ValidationIssue] | None = None,
    outage: Outage | None = None,
    components: list[ComponentProblem] | None = None,
) -> ProblemResponse:
    """Problem details; without a `name` the type is `about:blank`, and the title the status's own phrase."""
    problem = Problem(
        type=f"{_TYPE_PREFIX}{name}" if name else "about:blank",
        title=title or _phrase(status),
        status=status,
        detail=mask_text(detail, assignments=False),
        instance=quote(path, safe="/:@!$&'()*+,;=~-._"),
        request_id=current_request_id(),
        errors=errors,
        outage=outage,
        components=components,
    )
    # An int: an HTTPStatus would be logged by its name.
    return ProblemResponse(
        problem.model_dump(exclude_none=True),
        status_code=int(status),
        headers=dict(headers) if headers else None,
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with problem details, errors of routing and unforeseen ones included."""
    app.add_exception_handler(TandemError, _handle_tandem_error)
    app.add_exception_handler(RequestValidationError, _handle_request_validation)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_middleware(_UnforeseenErrorMiddleware)


def tell_unavailable(app: FastAPI, kind: type[TandemError], *, name: str, title: str) -> None:
    """Answer errors of `kind` with 503, in their own words, and say when to come again."""

    async def handle(request: Request, error: Exception) -> Response:
        status = HTTPStatus.SERVICE_UNAVAILABLE
        return problem_response(
            status=status,
            name=name,
            title=title,
            detail=str(error),
            path=request.url.path,
            headers=_retry_later(status),
        )

    app.add_exception_handler(kind, handle)


async def _handle_tandem_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, TandemError):
        raise error
    kind = _kind_of(error)
    if kind.status >= 500 and not isinstance(error, NotReadyError):
        logger.error(
            "request_failed", error=str(error), error_type=type(error).__name__, exc_info=_trace(error, kind)
        )
    components = None
    if isinstance(error, NotReadyError):
        components = [
            ComponentProblem(name=part.name, required=part.required)
            for part in error.health.components
            if not part.ok
        ]
    return problem_response(
        status=kind.status,
        name=kind.name,
        title=kind.title,
        detail=kind.detail(error) if kind.detail else str(error) or kind.title,
        path=request.url.path,
        headers=_headers_of(error, kind.status),
        outage=_outage_of(error),
        components=components,
    )


def _kind_of(error: TandemError) -> _Kind:
    if _is_unavailable(error):
        outage = _outage_of(error)
        return _SIDE_TIMEOUT if outage is not None and outage.is_timeout else _SIDE_UNAVAILABLE
    return next((_KINDS[ancestor] for ancestor in type(error).__mro__ if ancestor in _KINDS), _INTERNAL)


def _trace(error: TandemError, kind: _Kind) -> TandemError | None:
    return error if kind is _INTERNAL else None


def _headers_of(error: TandemError, status: HTTPStatus) -> dict[str, str] | None:
    if isinstance(error, InvalidTokenError):
        return {"WWW-Authenticate": 'Bearer realm="tandem", error="invalid_token"'}
    if isinstance(error, UnauthenticatedError):
        return {"WWW-Authenticate": 'Bearer realm="tandem"'}
    return _retry_later(status)


def _retry_later(status: HTTPStatus) -> dict[str, str] | None:
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return None


async def _handle_request_validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    return problem_response(
        status=_UNPROCESSABLE,
        name="invalid-request",
        title="Invalid request",
        detail=f"{len(found)} thing{'' if len(found) == 1 else 's'} in the request cannot be accepted",
        path=request.url.path,
        errors=[_issue(item) for item in found[:_MAX_ISSUES]],
    )


def _issue(found: Mapping[str, Any]) -> ValidationIssue:
    """One pydantic error without the input, which may be a password."""
    kind, message = str(found.get("type", "")), str(found.get("msg", ""))
    location = [
        part if isinstance(part, int) else str(part)[:_MAX_LOCATION_LENGTH] for part in found.get("loc", ())
    ]
    secret = any(isinstance(part, str) and is_secret_name(part) for part in location)
    if secret and kind not in _HARMLESS_ISSUES:
        message = "Invalid value"
    return ValidationIssue(location=location, message=mask_text(message, assignments=False), type=kind)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code < 400:
        return Response(status_code=error.status_code, headers=error.headers)
    # FastAPI's own exception takes any object here, whatever Starlette's types say.
    said: object = error.detail
    detail = said if isinstance(said, str) and said else _phrase(error.status_code)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers |= _allow_header(request)
    return problem_response(status=error.status_code, detail=detail, path=request.url.path, headers=headers)


def _allow_header(request: Request) -> dict[str, str]:
    """Every method of the path (RFC 9110, 15.5.6): the framework names those of one route only, and each has a method."""
    operations: Mapping[str, Any] = request.app.openapi()["paths"].get(route_template(request.scope), {})
    methods = sorted(name.upper() for name, operation in operations.items() if "responses" in operation)
    return {"Allow": ", ".join(methods)} if methods else {}


class _UnforeseenErrorMiddleware:
    """Logs what nobody caught, and answers 500 without internals.

    Starlette's own handler would raise the error again after answering, and the server would then print it a second
    time, past our masking of validation inputs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watching_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watching_send)
        except Exception as error:
            _log_unforeseen(error)
            if started:
                # Half an answer is out: only cutting the connection tells the caller.
                raise
            response = problem_response(
                status=_INTERNAL.status,
                name=_INTERNAL.name,
                title=_INTERNAL.title,
                detail=_INTERNAL.detail(TandemError()) if _INTERNAL.detail else _INTERNAL.title,
                path=scope["path"],
            )
            await response(scope, receive, send)


def _log_unforeseen(error: Exception) -> None:
    if isinstance(error, ResponseValidationError):
        # Its text quotes the whole answer, rows and all.
        issues = [f"{'.'.join(map(str, item.get('loc', ())))}: {item.get('type')}" for item in error.errors()]
        logger.error("response_refused", issues=issues[:_MAX_ISSUES])
    else:
        logger.error("request_failed", error_type=type(error).__name__, exc_info=error)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What to give FastAPI as `responses=`, so that the OpenAPI document tells of these statuses."""
    return {
        status: {
            "description": _phrase(status),
            "content": {PROBLEM_CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = problem_responses(
    400, 401, 403, 404, 409, 413, 422, 500, 502, 503, 504
)
"""All problems that a route may answer with. `build_app` adds those that apply by itself."""
