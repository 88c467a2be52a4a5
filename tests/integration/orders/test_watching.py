"""Sagas and the broker as an operator sees them: gauges, `tandem saga list`, and what the services say of their health."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner, Result

from backend.messages.orders import SagaStyle
from backend.order_service.app.commands import saga
from backend.order_service.app.core.settings import OrderSettings
from backend.order_service.app.main import make_app as make_order_app
from backend.order_service.app.services.saga_watch import SagaWatch
from backend.payment_service.app.core.settings import Provider
from backend.payment_service.app.main import make_app as make_payment_app
from backend.product_service.app.main import make_app as make_product_app
from backend.shared import Phase, ValidationError
from backend.shared.api.problems import PROBLEM_CONTENT_TYPE
from backend.shared.database import create_side_engine
from backend.shared.events.transport import transport_for
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.brokers import NatsServer
from tests.integration.orders.conftest import MakeWorld
from tests.support.fixtures import BOTH_AUTHORITIES
from tests.support.order_world import OrderUrls, OrderWorld

BOTH_STYLES = pytest.mark.parametrize("style", list(SagaStyle))
SECRET = "geheim"


class Watched:
    """A world whose order service counts its sagas."""

    def __init__(self, world: OrderWorld, style: SagaStyle) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.watch = SagaWatch(world.order, self.metrics)
        world.post.consumers["order"].run = self.watch.run_unit
        self._style = style.value

    def shown(self, name: str, state: str) -> float | None:
        labels = {"service": "order", "style": self._style, "state": state}
        self.metrics.declare("order")
        return self.metrics.registry.get_sample_value(f"dualwrite_{name}", labels)


@BOTH_STYLES
@BOTH_AUTHORITIES
async def test_sagas_are_counted_until_they_are_over(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, *, style: SagaStyle, phase: Phase
) -> None:
    world = await make_world(style, phase=phase)
    watched = Watched(world, style)
    ids = await world.stocked(cup=10)
    await world.credit("20")
    for _ in range(3):  # the third is declined
        await world.place((ids["cup"], 3))
    await watched.watch.look()
    assert watched.shown("sagas_open", "running") == 3
    assert (watched.shown("saga_age_seconds", "running") or 0) > 0
    assert watched.shown("sagas_open", "needs_review") == 0
    monkeypatch.setattr(world.order, "run_unit", world.dying(world.order.run_unit))
    await world.post.collect()
    while world.post.waiting:
        world.dies = 1  # each is rolled back once, at its end: nothing has ended then
        await world.post.bring()
        await world.post.bring()
    await watched.watch.look()
    assert watched.shown("sagas_open", "running") == 0
    assert watched.shown("saga_age_seconds", "running") == 0
    assert watched.shown("saga_duration_seconds_count", "completed") == 2
    assert watched.shown("saga_duration_seconds_count", "compensated") == 1


async def test_one_that_needs_review_is_shown_and_found(make_world: MakeWorld, order_urls: OrderUrls) -> None:
    style = SagaStyle.ORCHESTRATED
    world = await make_world(style)
    watched = Watched(world, style)
    ids = await world.stocked(cup=10)
    await world.credit("100")
    order = await world.place((ids["cup"], 3))
    await world.post.bring_all()
    assert (await _tandem(order_urls, "list")).exit_code == 0
    await world.fault("refund", "decline")
    await world.cancel(order)
    await world.post.bring_all()
    await watched.watch.look()
    assert watched.shown("sagas_open", "needs_review") == 1
    assert watched.shown("sagas_open", "compensating") == 0
    listed = await _tandem(order_urls, "list", "--json")
    assert listed.exit_code == 1
    assert [item["state"] for item in _documents(listed)] == ["needs_review"]


async def test_stuck_ones_are_found(make_world: MakeWorld, order_urls: OrderUrls) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    ids = await world.stocked(cup=10)
    young, old, older = [await world.place((ids["cup"], 1)) for _ in range(3)]
    for order, seconds in ((old, 1000), (older, 5000)):
        await world._sql(
            world.urls.legacy,
            "UPDATE tandem_order.sagas SET started_at = now() - make_interval(secs => $1) WHERE order_id = $2",
            float(seconds),
            order.id,
        )

    async def found(*arguments: str) -> tuple[int, list[int]]:
        ended = await _tandem(order_urls, "list", "--json", *arguments)
        return ended.exit_code, [item["order_id"] for item in _documents(ended)]

    assert await found() == (0, [older.id, old.id, young.id])
    assert await found("--stuck") == (1, [older.id, old.id])
    assert await found("--older-than", "4000") == (0, [older.id])
    assert await found("--stuck", "--older-than", "6000") == (0, [])
    assert await found("--limit", "1", "--older-than", "900") == (0, [older.id])
    assert await found("--state", "completed") == (0, [])
    refused = await _tandem(order_urls, "list", "--stuck", "--state", "running")
    assert isinstance(refused.exception, ValidationError)  # one line, and exit code 2
    shown = await _tandem(order_urls, "list", "--older-than", "4000")
    assert "1:23:" in shown.stdout


@pytest.fixture
def broker(worker_directory: Path) -> Iterator[NatsServer]:
    server = NatsServer(worker_directory / "nats-ready")
    yield server
    server.remove()


async def test_a_broker_that_is_away_is_told_and_does_not_keep_a_service_from_serving(
    make_world: MakeWorld, broker: NatsServer
) -> None:
    """Messages wait; all else works. Nobody is told the password."""
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    url = broker.url.replace("://", f"://shop:{SECRET}@")
    apps = _apps(world, url)
    async with AsyncExitStack() as stack:
        clients = {}
        for name, app in apps.items():
            running = await stack.enter_async_context(
                LifespanManager(app, startup_timeout=20, shutdown_timeout=20)
            )
            transport = httpx.ASGITransport(app=running.app)
            clients[name] = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url=f"http://{name}")
            )
        for name, client in clients.items():
            answer = await client.get("/readyz")
            assert answer.status_code == 200, name
            assert _broker_of(answer) == {"name": "broker", "ok": False, "required": False}
        for manager in (world.order, world.product):
            view = await manager.health()
            assert view.ok
            (part,) = view.others
            assert (part.name, part.ok, part.required) == ("broker", False, False)
            assert part.detail
            assert SECRET not in str(view)
        broker.start()
        async with asyncio.timeout(30):
            for client in clients.values():
                while not _broker_of(await client.get("/readyz"))["ok"]:
                    pass
        assert (await world.order.health()).others[0].ok


def _broker_of(answer: httpx.Response) -> dict[str, object]:
    assert PROBLEM_CONTENT_TYPE not in answer.headers["content-type"]
    assert SECRET not in answer.text
    return next(part for part in answer.json()["components"] if part["name"] == "broker")


def _apps(world: OrderWorld, url: str) -> dict[str, FastAPI]:
    nobody = "http://127.0.0.1:9"
    settings = OrderSettings(
        broker_url=url, cart_url=nobody, product_url=nobody, auth_url=nobody, run_relay=False
    )

    def metrics() -> Metrics:
        return Metrics(CollectorRegistry())

    return {
        "order": make_order_app(
            settings, manager=world.order, transport=transport_for(url), metrics=metrics(), verifier=None
        ),
        "product": make_product_app(
            manager=world.product,
            metrics=metrics(),
            verifier=None,
            run_relay=False,
            transport=transport_for(url),
        ),
        "payment": make_payment_app(
            create_side_engine(world.urls.payment, application_name="test"),
            provider=Provider.TEST,
            transport=transport_for(url),
            metrics=metrics(),
            verifier=None,
        ),
    }


def _documents(ended: Result) -> list[dict[str, Any]]:
    """What was listed; log lines are not configured away here."""
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]


async def _tandem(urls: OrderUrls, *arguments: str) -> Result:
    """A command, in a thread: it runs an event loop of its own."""
    env = {"ORDER_LEGACY_DATABASE_URL": urls.legacy, "ORDER_DATABASE_URL": urls.order}
    return await asyncio.to_thread(CliRunner().invoke, saga, list(arguments), env=env)
