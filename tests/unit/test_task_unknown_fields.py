"""What becomes of fields of a request that nobody knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry

from backend.shared.api.tokens import Role, TokenIssuer, TokenVerifier, generate_signing_key
from backend.shared.observability.metrics import Metrics
from backend.task_service.app.adapters.given import GivenRepositories
from backend.task_service.app.core.document_rules import UnknownFields
from backend.task_service.app.core.settings import TaskSettings
from backend.task_service.app.main import make_app
from tests.support.fake_task_store import fake_repositories


@asynccontextmanager
async def serving(setting: str | None) -> AsyncIterator[httpx.AsyncClient]:
    """An admin's client of the service, on repositories in memory."""
    issuer = TokenIssuer(generate_signing_key())
    environment = {} if setting is None else {"TASK_UNKNOWN_FIELDS": setting}
    app = make_app(
        store=GivenRepositories(fake_repositories()),
        metrics=Metrics(CollectorRegistry()),
        verifier=TokenVerifier(issuer.key_source()),
        unknown_fields=TaskSettings.from_env(environment).document_rules.unknown_in_requests,
    )
    token = issuer.issue("boss", role=Role.ADMIN)
    async with (
        LifespanManager(app) as running,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=running.app),
            base_url="http://task",
            headers={"Authorization": f"Bearer {token}"},
        ) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("setting", "taken"), [(None, False), *((each.value, each.value != "forbid") for each in UnknownFields)]
)
async def test_unknown_fields_of_requests(setting: str | None, *, taken: bool) -> None:
    async with serving(setting) as client:
        user = (await client.post("/users", json={"email": "ann@example.org"})).json()["id"]
        body = {
            "title": "Sweep",
            "created_by": user,
            "unknown": 1,
            "checklist": [{"text": "a", "unknown": 1}],
        }
        made = await client.post("/tasks", json=body)
        assert made.status_code == (201 if taken else 422), made.text
        published = (await client.get("/openapi.json")).json()["components"]["schemas"]["TaskCreate"]
        assert published.get("additionalProperties", True) is taken
        if taken:
            path = f"/tasks/{made.json()['id']}"
            assert made.json()["checklist"] == [{"text": "a", "done": False}]
            changed = await client.patch(path, json={"unknown": 1, "title": "Mop"})
            assert changed.json()["title"] == "Mop"
            assert (await client.patch(path, json={"unknown": 1})).status_code == 422, "nothing to change"
