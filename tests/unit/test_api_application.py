"""The application every service is built from: health, body limit, and an OpenAPI document that tells the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, Field
from pydantic import ValidationError as PydanticError

from backend.shared.api.application import build_app
from backend.shared.api.fields import BigDatabaseId, DatabaseId, PlainText
from backend.shared.api.security import DepPrincipal
from backend.shared.observability.health import ProbeCheck
from backend.shared.observability.metrics import Metrics


class _Note(BaseModel):
    text: Annotated[PlainText, Field(max_length=2_000_000)]


routes = APIRouter()


@routes.post("/notes")
async def write_note(note: _Note) -> int:
    return len(note.text)


@routes.get("/notes/{note_id}")
async def read_note(note_id: DatabaseId, principal: DepPrincipal) -> int:
    return note_id


async def _fine() -> str | None:
    return None


async def _down() -> str | None:
    raise ConnectionError("cannot reach postgresql://u:hunter2@h/d")


CHECKS: list[ProbeCheck] = []


@pytest.fixture
def app() -> FastAPI:
    CHECKS[:] = [ProbeCheck(name="new", call=_fine)]
    metrics = Metrics(CollectorRegistry())
    metrics.declare("cart", operations=("create_cart",))
    metrics.operation_finished(
        service="cart", operation="create_cart", side="new", outcome="succeeded", seconds=1
    )
    return build_app("test", version="1.2.3", metrics=metrics, routers=[routes], health_checks=lambda: CHECKS)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as made:
        yield made


async def test_alive(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "alive"}


async def test_ready(client: httpx.AsyncClient) -> None:
    CHECKS.append(ProbeCheck(name="legacy", call=_down, required=False))
    response = await client.get("/readyz")
    assert response.status_code == 200
    assert response.json()["components"] == [
        {"name": "new", "ok": True, "required": True},
        {"name": "legacy", "ok": False, "required": False},
    ]


async def test_not_ready_names_the_part_and_no_secret(client: httpx.AsyncClient) -> None:
    CHECKS.append(ProbeCheck(name="legacy", call=_down))
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"]
    assert response.json()["detail"] == "not ready: legacy down"
    assert response.json()["components"] == [{"name": "legacy", "required": True}]
    assert "hunter2" not in response.text


async def test_prometheus_can_read_the_metrics(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert families["dualwrite_operations"].samples[0].value == 1


LIMIT = 1_048_576


@pytest.mark.parametrize("path", ["/notes", "/healthz", "/nowhere"])
async def test_a_body_announced_as_too_large_is_not_read(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, content=b"x" * (LIMIT + 1))
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]


async def test_a_body_that_grows_too_large_is_stopped(client: httpx.AsyncClient) -> None:
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b"x" * 65_536

    response = await client.post("/notes", content=parts(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert sent < 20


@pytest.mark.parametrize("length", ["9" * 5000, "1048577"])
async def test_an_absurd_length_is_a_413(app: FastAPI, length: str) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is not to be read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/notes",
        "raw_path": b"/notes",
        "query_string": b"",
        "headers": [(b"content-length", length.encode())],
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 413


async def test_a_body_of_the_allowed_size_is_taken(client: httpx.AsyncClient) -> None:
    text = "x" * (LIMIT - 20)
    response = await client.post("/notes", json={"text": text})
    assert response.json() == len(text)


async def test_a_nul_character_is_the_callers_mistake(client: httpx.AsyncClient) -> None:
    response = await client.post("/notes", json={"text": "a\x00b"})
    assert response.status_code == 422


def test_the_openapi_document_is_complete(app: FastAPI) -> None:
    document = app.openapi()
    assert document is app.openapi()
    assert document["info"] == {"title": "test", "version": "1.2.3"}
    assert document["servers"][0]["url"] == "/"
    assert {tag["name"] for tag in document["tags"]} == {"dual-write", "health"}
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, item in document["paths"].items():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_each_operation_declares_what_it_may_answer(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert set(paths["/notes"]["post"]["responses"]) == {
        "200",
        "400",
        "409",
        "413",
        "422",
        "500",
        "502",
        "503",
        "504",
    }
    assert set(paths["/notes/{note_id}"]["get"]["responses"]) == {
        *("200", "401", "403", "404", "422", "500", "502", "503", "504")
    }
    assert set(paths["/healthz"]["get"]["responses"]) == {"200", "500"}
    assert set(paths["/readyz"]["get"]["responses"]) == {"200", "500", "503"}


def test_every_reference_leads_somewhere(app: FastAPI) -> None:
    document = app.openapi()

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        if isinstance(node, list):
            return [found for value in node for found in references(value)]
        return []

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


class _Ids(BaseModel):
    small: DatabaseId
    big: BigDatabaseId


def test_ids_fit_their_columns() -> None:
    assert _Ids(small=2**31 - 1, big=2**63 - 1).big == 2**63 - 1
    for small, big in ((0, 1), (2**31, 1), (1, 0), (1, 2**63)):
        with pytest.raises(PydanticError):
            _Ids(small=small, big=big)
