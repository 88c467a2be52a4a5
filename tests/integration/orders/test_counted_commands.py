"""Commands that write for a service are among those that a change of the phase waits for; one that only looks is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from typer.testing import CliRunner

from backend.messages.orders import SagaStyle
from backend.order_service.app.commands import saga
from backend.shared import DualWriteManager, UnitOfWork
from backend.shared.cli.events import events
from tests.integration.orders.conftest import MakeWorld
from tests.support.order_world import OrderUrls

UNREADABLE = b"no JSON"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, order_urls: OrderUrls) -> dict[str, bool]:
    """Of each unit of work, whether its process was counted when it ran."""
    seen: dict[str, bool] = {}
    run_unit = DualWriteManager.run_unit

    async def watched(manager: DualWriteManager, operation: str, unit: Any) -> Any:
        async def watching(work: UnitOfWork) -> Any:
            live = {replica.id for replica in await manager.runtime.replicas.live()}
            seen[f"{manager.service} {operation}"] = manager.runtime.following.replica_id in live
            return await unit(work)

        return await run_unit(manager, operation, watching)

    monkeypatch.setattr(DualWriteManager, "run_unit", watched)
    monkeypatch.setenv("LEGACY_DATABASE_URL", order_urls.legacy)
    monkeypatch.setenv("ORDER_DATABASE_URL", order_urls.order)
    monkeypatch.setenv("PRODUCT_DATABASE_URL", order_urls.product)
    return seen


async def tandem(app: Any, *arguments: str) -> str:
    """What a command prints, run in a thread: it runs an event loop of its own."""
    return (await asyncio.to_thread(CliRunner().invoke, app, list(arguments))).stdout


async def test_of_dead_letters(make_world: MakeWorld, counted: dict[str, bool]) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    await world.post.consumers["order"].take(UNREADABLE)
    counted.clear()
    assert "order: 0 on their way again, 1 are stand-ins" in await tandem(events, "replay", "order", "--all")
    shown = await tandem(events, "dead", "order", "--json")
    number = shown.partition('"id": "')[2][:36]
    assert "order: deleted" in await tandem(events, "discard", "order", number)
    assert counted == {
        "order replay_dead_letters": True,
        "order list_dead_letters": False,
        "order discard_dead_letter": True,
    }


async def test_of_read_models(make_world: MakeWorld, counted: dict[str, bool]) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    await world.stocked(cup=1)
    counted.clear()
    await tandem(events, "rebuild", "order", "products", "--give-up", "1")
    assert counted == {"product tell_anew": True, "order look_at_read_model": True}


async def test_of_sagas(make_world: MakeWorld, counted: dict[str, bool]) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    ids = await world.stocked(cup=1)
    order = await world.place((ids["cup"], 1))
    counted.clear()
    await tandem(saga, "retry", str(order.id))
    await tandem(saga, "settle", str(order.id), "--as", "completed", "--note", "a test")
    assert counted == {"order retry_saga": True, "order settle_saga": True}
