"""Sagas that have waited too long are found, also behind one that cannot be moved."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest

from backend.messages.orders import SagaStyle
from backend.order_service.app.services import deadlines
from backend.order_service.app.services.deadlines import Deadlines
from backend.shared import ConflictError, UnitOfWork
from backend.shared.events.saga import SagaState
from tests.integration.orders.conftest import MakeWorld
from tests.support.order_world import OrderWorld


async def past_deadlines(world: OrderWorld) -> None:
    """All sagas have waited too long, by the clock of the process too."""
    world.now_at += timedelta(days=1)
    connection = await asyncpg.connect(world.urls.legacy)
    try:
        await connection.execute("UPDATE tandem_order.sagas SET deadline = deadline - interval '1 hour'")
    finally:
        await connection.close()


@pytest.mark.parametrize("at_once", [1, 2, 100])
async def test_one_that_cannot_be_moved_keeps_nobody_waiting(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    ids = await world.stocked(cup=10)
    orders = [await world.place((ids["cup"], 1)) for _ in range(4)]
    moved: list[int] = []

    async def late(_work: UnitOfWork, order_id: int) -> None:
        if order_id == orders[0].id:
            raise ConflictError("this one cannot be moved")
        moved.append(order_id)

    monkeypatch.setattr(deadlines, "AT_ONCE", at_once)
    monkeypatch.setattr(world.desk, "late", late)
    await past_deadlines(world)
    assert await Deadlines(world.order, world.desk).look() == len(orders)
    assert moved == [order.id for order in orders[1:]]


async def test_looking_counts_as_nobodys_read(make_world: MakeWorld) -> None:
    """Else the gate of compared reads would open by itself."""
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    order = await world.place((7, 1))
    await past_deadlines(world)
    reads = world.order.runtime.metrics.reads
    before = [sample.value for metric in reads.collect() for sample in metric.samples]
    assert await Deadlines(world.order, world.desk).look() == 1
    assert [sample.value for metric in reads.collect() for sample in metric.samples] == before
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATING
