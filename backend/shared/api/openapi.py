"""Completes the OpenAPI document with what every route may answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from backend.shared.api.problem_details import Problem
from backend.shared.api.problems import problem_responses

_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_REF_PREFIX = "#/components/schemas/"
_REF_TEMPLATE = _REF_PREFIX + "{model}"


def problem_openapi(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A replacement for `app.openapi` whose document declares problem details for each operation.

    By rule: parameters and bodies may be invalid (422), bodies malformed or too large (400, 413), secured routes ask
    for a caller (401, 403) and need keys (503), paths with parameters may lead nowhere (404), anything that changes
    state may clash (409), and what lies behind may fail (500, 502, 503, 504).
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                openapi_version=app.openapi_version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                servers=app.servers,
            )
            _complete(document)
            app.openapi_schema = document
        return app.openapi_schema

    return openapi


def _complete(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, generated = models_json_schema([(Problem, "serialization")], ref_template=_REF_TEMPLATE)
    schemas.update(generated["$defs"])
    # FastAPI's own form of validation errors is never sent.
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for path, method, operation in _operations(document):
        responses = operation.setdefault("responses", {})
        if _is_framework_422(responses.get("422")):
            del responses["422"]
        for status, response in problem_responses(*_statuses(path, method, operation)).items():
            responses.setdefault(str(status), response)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document.get("paths", {}).items():
        for method, operation in item.items():
            if method in _METHODS:
                yield path, method, operation


def _statuses(path: str, method: str, operation: dict[str, Any]) -> list[int]:
    statuses = {500}
    if operation.get("parameters") or operation.get("requestBody"):
        statuses |= {422, 502, 503, 504}
    if operation.get("requestBody"):
        statuses |= {400, 413}
    if operation.get("security"):
        statuses |= {401, 403, 502, 503, 504}
    if "{" in path:
        statuses.add(404)
    if method in {"post", "put", "patch", "delete"}:
        statuses |= {409, 422, 502, 503, 504}
    return sorted(statuses)


def _is_framework_422(response: dict[str, Any] | None) -> bool:
    schema = (response or {}).get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema.get("$ref") == f"{_REF_PREFIX}HTTPValidationError")
