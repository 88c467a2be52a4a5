"""The `/dual-write` routes: closed to all but operators, and no more than a door to the manager."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from backend.shared.api.admin_protocol import DualWriteAdmin
from backend.shared.api.application import build_app
from backend.shared.api.router import ConfigPatch, dual_write_router
from backend.shared.api.tokens import Role, TokenIssuer, TokenVerifier, generate_signing_key
from backend.shared.domain.phases import Side
from backend.shared.observability.metrics import Metrics
from tests.support.fake_admin import FakeAdmin

ISSUER = TokenIssuer(generate_signing_key())


@pytest.fixture
def manager() -> FakeAdmin:
    metrics = Metrics(CollectorRegistry())
    metrics.declare("cart", operations=("create_cart",))
    metrics.operation_finished(
        service="cart", operation="create_cart", side=Side.NEW, outcome="succeeded", seconds=0.01
    )
    return FakeAdmin(metrics)


@pytest.fixture
def app(manager: FakeAdmin) -> FastAPI:
    def get_manager() -> DualWriteAdmin:
        return manager

    return build_app(
        "cart",
        version="1",
        metrics=Metrics(CollectorRegistry()),
        routers=[dual_write_router(get_manager)],
        token_verifier=TokenVerifier(ISSUER.key_source()),
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {ISSUER.issue('1', role=Role.ADMIN)}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://test/dual-write", headers=headers
    ) as made:
        yield made


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/status", None),
    ("GET", "/health", None),
    ("GET", "/metrics", None),
    ("POST", "/validate-sync/7", None),
    ("POST", "/test-operation", None),
    ("GET", "/failures", None),
    ("GET", "/mismatches", None),
    ("POST", "/failures/1/retry", None),
    ("GET", "/conflicts", None),
    ("POST", "/conflicts/cart-legacy-1/settle", {"keep": "new"}),
    ("PATCH", "/config", {"batch_size": 50}),
    ("POST", "/phase", {"to": "shadow"}),
    ("GET", "/phase", None),
    ("GET", "/phase/history", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_every_route_is_for_operators_only(
    app: FastAPI, client: httpx.AsyncClient, method: str, path: str, body: Any
) -> None:
    assert (await client.request(method, path, json=body)).status_code == 200
    service = {"Authorization": f"Bearer {ISSUER.service_token('auth')}"}
    assert (await client.request(method, path, json=body, headers=service)).status_code == 200
    user = {"Authorization": f"Bearer {ISSUER.issue('1', role=Role.USER)}"}
    assert (await client.request(method, path, json=body, headers=user)).status_code == 403
    del client.headers["Authorization"]
    assert (await client.request(method, path, json=body)).status_code == 401
    app.state.token_verifier = None
    assert (await client.request(method, path, json=body)).status_code == 503


def test_no_route_is_left_out_above(app: FastAPI) -> None:
    declared = {
        (method.upper(), path)
        for path, item in app.openapi()["paths"].items()
        for method in item
        if path.startswith("/dual-write")
    }
    assert len(declared) == len(ROUTES)
    for path, item in app.openapi()["paths"].items():
        if path.startswith("/dual-write"):
            assert all(operation["security"] == [{"bearer": []}] for operation in item.values())


async def test_status_and_health(client: httpx.AsyncClient) -> None:
    status = (await client.get("/status")).json()
    assert status["phase"] == "dualwrite"
    assert status["settings"] == {"batch_size": 100, "retry_delay": 5.0, "enabled": True, "phase": None}
    health = (await client.get("/health")).json()
    assert health["sides"][0]["pool"] == {"size_count": 10, "in_use_count": 1, "waiting_count": 0}


async def test_a_side_that_is_down_is_a_503(client: httpx.AsyncClient, manager: FakeAdmin) -> None:
    manager.down = True
    response = await client.get("/status")
    assert response.status_code == 503
    assert response.json()["type"] == "urn:tandem:problem:side-unavailable"


async def test_metrics_are_those_of_prometheus_as_json(client: httpx.AsyncClient, manager: FakeAdmin) -> None:
    said = (await client.get("/metrics")).json()
    assert said == json.loads(json.dumps(manager.metrics_snapshot().to_dict()))
    assert said["latency"]["new"]["count"] == 1


async def test_validate(client: httpx.AsyncClient, manager: FakeAdmin) -> None:
    said = (
        await client.post("/validate-sync/a%2Cb", params={"entity": "cart", "show_values": "true"})
    ).json()
    assert said["verdict"] == "different"
    assert said["differences"] == [{"field": "status", "legacy": None, "new": None}]
    assert manager.asked == [("validate", ("a,b", "cart", True))]


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("/validate-sync/7", {"entity": "ghost"}, 404),
        ("/validate-sync/7", {"entity": "Robert'); DROP"}, 422),
        ("/validate-sync/%00", {}, 422),
        ("/validate-sync/" + "x" * 201, {}, 422),
        ("/validate-sync/7", {"show_values": "maybe"}, 422),
        ("/failures/6/retry", {}, 404),
        ("/failures/0/retry", {}, 422),
        ("/failures/x/retry", {}, 422),
        ("/failures/9223372036854775808/retry", {}, 422),
    ],
)
async def test_bad_requests(
    client: httpx.AsyncClient, path: str, params: dict[str, str], status: int
) -> None:
    response = await client.post(path, params=params)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("conflict_id", "body", "status"),
    [
        ("cart-legacy-6", {"keep": "new"}, 404),
        ("cart-legacy-5", {"keep": "new"}, 409),
        ("cart-legacy-1", {"keep": "both"}, 422),
        ("cart-legacy-1", {}, 422),
        ("cart-legacy-1", {"keep": "new", "dry_run": "no"}, 422),
        ("cart-legacy-0", {"keep": "new"}, 422),
        ("cart-1", {"keep": "new"}, 422),
        ("cart-legacy-9999999999999999999", {"keep": "new"}, 422),
    ],
)
async def test_bad_decisions(
    client: httpx.AsyncClient, conflict_id: str, body: dict[str, str], status: int
) -> None:
    response = await client.post(f"/conflicts/{conflict_id}/settle", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


async def test_who_settles_is_the_token_s_holder(client: httpx.AsyncClient, manager: FakeAdmin) -> None:
    said = (await client.post("/conflicts/cart-legacy-1/settle", json={"keep": "legacy"})).json()
    assert said["settled"]
    assert manager.asked == [("settle", ("cart-legacy-1", Side.LEGACY, "1", False))]


@pytest.mark.parametrize("path", ["/failures", "/mismatches", "/conflicts"])
async def test_listings_come_in_pages(client: httpx.AsyncClient, path: str) -> None:
    seen: list[int] = []
    params: dict[str, str] = {"limit": "2"}
    while True:
        page = (await client.get(path, params=params)).json()
        seen += [int(str(item["id"]).rpartition("-")[2]) for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == [1, 2, 3, 4, 5]


async def test_only_the_settings_named_are_changed(client: httpx.AsyncClient, manager: FakeAdmin) -> None:
    assert (await client.patch("/config", json={"retry_delay": 1.5, "log_all": True})).status_code == 200
    assert manager.asked == [("config", {"retry_delay": 1.5, "log_all": True})]


@pytest.mark.parametrize(
    "body",
    [
        {},
        None,
        {"batch_size": None},
        {"batch_size": 0},
        {"batch_size": 10**30},
        {"retry_delay": -1},
        {"sync_interval": 0},
        {"full_sync_interval": 0},
        {"phase": "complete"},
        {"DATABASE_URL": "postgresql://u:hunter2@h/d"},
        {"enabled": "perhaps"},
        {"enabled": 0},
        {"batch_size": "50"},
        {"batch_size": True},
        {"retry_delay": "1"},
    ],
)
async def test_bad_settings_are_refused_and_nothing_is_changed(
    client: httpx.AsyncClient, manager: FakeAdmin, body: Any
) -> None:
    response = await client.patch("/config", json=body)
    assert response.status_code == 422
    assert "hunter2" not in response.text
    assert manager.asked == []


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e400"])
async def test_a_setting_is_a_finite_number(
    client: httpx.AsyncClient, manager: FakeAdmin, literal: str
) -> None:
    response = await client.patch(
        "/config", content=f'{{"retry_delay": {literal}}}', headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    assert manager.asked == []


async def test_phase(client: httpx.AsyncClient) -> None:
    said = (await client.post("/phase", json={"to": "shadow", "dry_run": True})).json()
    assert said["changed"] is False
    assert said["steps"] == ["close legacy"]
    assert (await client.post("/phase", json={"to": "complete"})).status_code == 409
    assert (await client.post("/phase", json={"to": "sideways"})).status_code == 422
    assert (await client.post("/phase", json={"to": "shadow", "force": True})).status_code == 422


def test_the_patch_tells_no_defaults() -> None:
    schema = ConfigPatch.model_json_schema()
    assert schema["minProperties"] == 1
    assert not any("default" in setting for setting in schema["properties"].values())
    assert "required" not in schema
