"""Bodies, and what becomes of fields in them that nobody knows: that is a setting of the application."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, model_validator
from starlette.types import ASGIApp, Receive, Scope, Send

from .core.document_rules import UnknownFields

_TREATED: ContextVar[UnknownFields] = ContextVar("unknown_fields", default=UnknownFields.FORBID)


class Body(BaseModel):
    """A body: nothing is converted ('5' is no 5), and what is not known is refused, unless the application says otherwise.

    What is allowed is ignored as well: there is no place for it.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        if _TREATED.get() is UnknownFields.FORBID or not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if name in cls.model_fields}


def treat_unknown_fields(app: FastAPI, unknown: UnknownFields) -> None:
    """Let the bodies that `app` takes, and what it publishes about them, treat unknown fields so."""
    if unknown is UnknownFields.FORBID:
        return
    app.add_middleware(_Treating, unknown=unknown)
    strict = app.openapi

    def openapi() -> dict[str, Any]:
        document = strict()
        for schema in document["components"]["schemas"].values():
            if schema.get("additionalProperties") is False:
                del schema["additionalProperties"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


class _Treating:
    def __init__(self, app: ASGIApp, *, unknown: UnknownFields) -> None:
        self._app = app
        self._unknown = unknown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _TREATED.set(self._unknown)
        try:
            await self._app(scope, receive, send)
        finally:
            _TREATED.reset(token)
