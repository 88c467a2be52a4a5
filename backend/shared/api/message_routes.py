"""The AsyncAPI document of a service beside its OpenAPI document, and a page that shows it. Open to all, as those of OpenAPI are."""

# No `from __future__ import annotations` here: FastAPI could not resolve annotations that name a local variable.

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from faststream.specification.asyncapi import get_asyncapi_html
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema

from backend.shared.events.asyncapi import asyncapi_document
from backend.shared.events.message_api import MessageApi


def message_router(api: MessageApi, *, broker_url: str | None = None) -> APIRouter:
    """`/asyncapi.json` and `/asyncapi`, under the application's own title; neither is part of the OpenAPI document.

    The page loads its scripts from elsewhere, as `/docs` does. Without `broker_url` the document names no server.
    """
    router = APIRouter(include_in_schema=False)
    made: list[ApplicationSchema] = []

    def document(request: Request) -> ApplicationSchema:
        if not made:  # once: it takes some hundredths of a second, in which nobody else is served
            app: FastAPI = request.app
            about = {"title": app.title, "version": app.version, "description": app.description}
            made.append(asyncapi_document(api, **about, broker_url=broker_url))
        return made[0]

    @router.get("/asyncapi.json")
    async def as_json(request: Request) -> Response:
        return Response(document(request).to_json(), media_type="application/json")

    @router.get("/asyncapi")
    async def as_page(request: Request) -> HTMLResponse:
        return HTMLResponse(get_asyncapi_html(document(request), try_it_out_path=None))

    return router
