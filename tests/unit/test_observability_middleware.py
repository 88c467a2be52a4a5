"""Each request has an id that the caller sees and the logs bear, and one access line."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI
from structlog.testing import capture_logs

from backend.shared.observability.context import current_request_id
from backend.shared.observability.middleware import RequestContextMiddleware


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(redirect_slashes=False)
    app.add_middleware(RequestContextMiddleware)
    inner = APIRouter(prefix="/carts")

    @inner.get("/{user_id}")
    async def read(user_id: str) -> dict[str, str | None]:
        structlog.stdlib.get_logger("route").info("cart_read")
        return {"user": user_id, "request_id": current_request_id()}

    @app.get("/healthz")
    async def alive() -> None: ...

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("boom")

    outer = APIRouter(prefix="/v1")
    outer.include_router(inner)
    app.include_router(outer)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


async def test_a_sane_id_is_taken_over_and_given_back(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/carts/7", headers={"X-Request-ID": "r-1"})
    assert response.headers["x-request-id"] == "r-1"
    assert response.json()["request_id"] == "r-1"
    assert current_request_id() is None


@pytest.mark.parametrize("offered", ["a b", "x" * 65, '{"a":1}', ""])
async def test_a_strange_id_is_replaced(client: httpx.AsyncClient, offered: str) -> None:
    response = await client.get("/v1/carts/7", headers={"X-Request-ID": offered})
    assert len(response.headers["x-request-id"]) == 32


async def test_two_requests_have_two_ids(client: httpx.AsyncClient) -> None:
    ids = {(await client.get("/v1/carts/7")).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2


async def test_the_access_line_has_the_route_and_not_the_path(client: httpx.AsyncClient) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await client.get("/v1/carts/someone@example.org?token=x", headers={"X-Request-ID": "r-2"})
    read, access = lines
    assert read["request_id"] == access["request_id"] == "r-2"
    assert access["event"] == "request_finished"
    assert access["method"] == "GET"
    assert access["route"] == "/v1/carts/{user_id}"
    assert access["status"] == 200
    assert access["duration_seconds"] >= 0
    assert "someone" not in str(access)


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "level"),
    [
        ("GET", "/nowhere", "unmatched", 404, "info"),
        ("DELETE", "/v1/carts/7", "/v1/carts/{user_id}", 405, "info"),
        ("GET", "/healthz", "/healthz", 200, "debug"),
        ("GET", "/boom", "/boom", None, "info"),
    ],
)
async def test_access_lines(
    client: httpx.AsyncClient, method: str, path: str, route: str, status: int | None, level: str
) -> None:
    with capture_logs() as lines:
        await client.request(method, path)
    assert lines[-1]["route"] == route
    assert lines[-1]["status"] == status
    assert lines[-1]["log_level"] == level
