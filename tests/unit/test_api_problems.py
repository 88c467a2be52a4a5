"""Every error ends as problem details, and none of them tells what it should not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry
from pydantic import AfterValidator, BaseModel, Field
from structlog.testing import capture_logs

from backend.shared.api.application import build_app
from backend.shared.api.errors import InvalidTokenError, KeysUnavailableError
from backend.shared.api.problem_details import Problem
from backend.shared.api.problems import PROBLEM_RESPONSES
from backend.shared.domain.errors import (
    ConfigurationError,
    ConflictError,
    FencedError,
    InstallationError,
    LegacySideError,
    NewSideError,
    NotFoundError,
    PermissionDeniedError,
    TandemError,
    UnauthenticatedError,
    ValidationError,
)
from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Side
from backend.shared.observability.metrics import Metrics

SECRET = "hunter2-Zx81"


def _echo(value: str) -> str:
    raise ValueError(f"{value} is too weak")


class _Registration(BaseModel):
    email: str = Field(max_length=20)
    password: Annotated[str, Field(min_length=12), AfterValidator(_echo)]
    quantity: int = Field(default=1, ge=1, le=10_000)


class _Narrow(BaseModel):
    number: int


ERRORS: dict[str, Exception] = {}


def _raise(name: str) -> None:
    raise ERRORS[name]


def _app() -> FastAPI:
    app = build_app("test", version="1", metrics=Metrics(CollectorRegistry()), routers=[])

    @app.get("/raise/{name}")
    async def failing(name: str) -> None:
        _raise(name)

    @app.post("/users")
    async def register(registration: Annotated[_Registration, Body()]) -> None: ...

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    @app.get("/bad-answer", response_model=_Narrow)
    async def bad_answer() -> dict[str, str]:
        return {"number": SECRET}

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            raise RuntimeError("cut")

        return StreamingResponse(parts())

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=_app(), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


def _problem(response: httpx.Response) -> Problem:
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(response.json())
    assert problem.status == response.status_code
    assert problem.request_id == response.headers["x-request-id"]
    return problem


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ValidationError("quantity must be positive"), 422, "invalid-request"),
        (NotFoundError("no product 7"), 404, "not-found"),
        (ConflictError("the stock would fall below zero"), 409, "conflict"),
        (PermissionDeniedError("another user's cart"), 403, "permission-denied"),
        (UnauthenticatedError("no token"), 401, "unauthenticated"),
        (InvalidTokenError("expired"), 401, "invalid-token"),
        (KeysUnavailableError("no key"), 503, "keys-unavailable"),
        (NewSideError("gone", entity="cart", key="7", unavailable=True), 503, "side-unavailable"),
        (LegacySideError("gone", unavailable=True), 503, "side-unavailable"),
        *(
            (NewSideError("slow", unavailable=True, outage=outage), 504, "side-timeout")
            for outage in (Outage.STATEMENT_TIMEOUT, Outage.LOCK_TIMEOUT, Outage.NO_ANSWER)
        ),
        *(
            (NewSideError("away", unavailable=True, outage=outage), 503, "side-unavailable")
            for outage in Outage
            if not outage.is_timeout
        ),
        (FencedError("closed", side=Side.LEGACY), 503, "side-unavailable"),
        (LegacySideError("refused", entity="cart", key="7"), 502, "side-refused"),
        (ConfigurationError("missing", variable="DATABASE_URL"), 503, "configuration"),
        (InstallationError("no journal"), 503, "configuration"),
        (TandemError("?"), 500, "internal"),
        (RuntimeError("?"), 500, "internal"),
        (KeyError("?"), 500, "internal"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_each_error_has_its_problem(
    client: httpx.AsyncClient, error: Exception, status: int, kind: str
) -> None:
    ERRORS["it"] = error
    response = await client.get("/raise/it")
    problem = _problem(response)
    assert problem.status == status
    assert problem.type == f"urn:tandem:problem:{kind}"
    assert problem.instance == "/raise/it"
    assert problem.outage == getattr(error, "outage", None)
    assert status in PROBLEM_RESPONSES
    assert (response.headers.get("retry-after") is not None) == (status in (503, 504))
    assert (response.headers.get("www-authenticate", "").startswith("Bearer")) == (status == 401)


async def test_a_side_error_names_side_entity_and_key_only(client: httpx.AsyncClient) -> None:
    ERRORS["side"] = LegacySideError(f"Failing row contains (7, {SECRET})", entity="user", key="17850")
    with capture_logs() as lines:
        problem = _problem(await client.get("/raise/side"))
    assert problem.detail == "the legacy side, user 17850: refused the operation"
    assert any(line["event"] == "request_failed" for line in lines)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"password={SECRET}"),
        TandemError(SECRET),
        ConfigurationError(f"cannot reach postgresql://u:{SECRET}@h/d", variable="DATABASE_URL"),
        NewSideError(f"postgresql://u:{SECRET}@h/d is down", unavailable=True),
        ValidationError(f"postgresql://u:{SECRET}@h/d is no good"),
        HTTPException(418, detail={"password": SECRET}),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_secret_in_a_problem(client: httpx.AsyncClient, error: Exception) -> None:
    ERRORS["secret"] = error
    assert SECRET not in (await client.get("/raise/secret")).text


async def test_an_unforeseen_error_is_logged_once_with_its_trace(client: httpx.AsyncClient) -> None:
    ERRORS["boom"] = RuntimeError("boom")
    with capture_logs() as lines:
        response = await client.get("/raise/boom")
    assert "boom" not in _problem(response).detail
    (failed,) = [line for line in lines if line["event"] == "request_failed"]
    assert failed["exc_info"] is ERRORS["boom"]
    assert lines[-1]["event"] == "request_finished"
    assert lines[-1]["status"] == 500


async def test_an_answer_that_breaks_its_schema_is_not_quoted_in_the_log(client: httpx.AsyncClient) -> None:
    with capture_logs() as lines:
        assert _problem(await client.get("/bad-answer")).status == 500
    assert any(line["event"] == "response_refused" for line in lines)
    assert SECRET not in str(lines)


async def test_half_an_answer_is_cut(client: httpx.AsyncClient) -> None:
    with pytest.raises(RuntimeError, match="cut"):
        await client.get("/half")


async def test_a_bad_body_is_told_without_its_values(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/users", json={"email": f"{SECRET}@example.org", "password": f"{SECRET}-long-enough", "quantity": 0}
    )
    problem = _problem(response)
    assert problem.status == 422
    assert SECRET not in response.text
    assert problem.errors is not None
    found = {tuple(issue.location): issue for issue in problem.errors}
    assert found["body", "password"].message == "Invalid value"
    assert "greater than or equal to 1" in found["body", "quantity"].message


async def test_a_short_password_is_told_what_it_lacks(client: httpx.AsyncClient) -> None:
    response = await client.post("/users", json={"email": "a@b.example", "password": "short"})
    assert "at least 12" in response.text
    assert "short" not in response.json()["errors"][0]["message"].replace("too_short", "")


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/nowhere", b"", 404),
        ("GET", "/nowhere/%00%ff", b"", 404),
        ("DELETE", "/users", b"", 405),
        ("GET", "/items/x", b"", 422),
        ("GET", "/items/" + "9" * 5000, b"", 422),
        ("POST", "/users", b"{", 422),
        ("POST", "/users", b"\x80\x80\x80", 400),
        ("POST", "/users", b"[" * 100_000, 400),
        ("POST", "/users", b'{"quantity": ' + b"9" * 5000 + b"}", 400),
        ("POST", "/users", b'{"email": "\\ud800", "password": 1}', 422),
        ("POST", "/users", b"null", 422),
        ("POST", "/users", b"", 422),
    ],
)
async def test_what_a_caller_gets_wrong_is_a_4xx(
    client: httpx.AsyncClient, method: str, path: str, content: bytes, status: int
) -> None:
    response = await client.request(
        method, path, content=content, headers={"Content-Type": "application/json"}
    )
    assert _problem(response).status == status
    if status == 405:
        assert response.headers["allow"] == "POST"


async def test_many_issues_are_cut_short(client: httpx.AsyncClient) -> None:
    response = await client.post("/users", json={"email": 1, "password": 1, "quantity": "x"})
    assert len(_problem(response).errors or []) == 3
