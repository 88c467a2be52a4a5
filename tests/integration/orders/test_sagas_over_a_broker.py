"""The sagas over a real message broker: outbox, delivery, broker, inbox, all at once. `--broker` says which one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import Order, OrderStatus
from backend.order_service.app.models import ROOM as ORDER_ROOM
from backend.payment_service.app.models import ROOM as PAYMENT_ROOM
from backend.product_service.app.models import ROOM as PRODUCT_ROOM
from backend.shared import Side
from backend.shared.events.messaging import Messaging
from backend.shared.events.saga import SagaState
from tests.integration.orders.conftest import MakeWorld
from tests.support.broker_room import WAIT_SECONDS, BrokerRoom
from tests.support.order_world import OrderWorld

BOTH_STYLES = pytest.mark.parametrize("style", list(SagaStyle))
PAUSE_SECONDS = 0.05


@asynccontextmanager
async def messaging(world: OrderWorld, broker: BrokerRoom) -> AsyncIterator[None]:
    """Each service delivers and listens, as its application does."""
    consumers = world.post.consumers
    parts = [
        Messaging(
            broker.transport(),
            room,
            manager.runtime.engines,
            consumer=consumers[name],
            phase=lambda: world.order.phase,
        )
        for name, room, manager in (
            ("order", ORDER_ROOM, world.order),
            ("product", PRODUCT_ROOM, world.product),
        )
    ]
    own = {Side.NEW: world.payment.engine}
    parts.append(Messaging(broker.transport(), PAYMENT_ROOM, own, consumer=consumers["payment"]))
    async with AsyncExitStack() as stack:
        for part in parts:
            stack.push_async_callback(part.close)
            await part.start()
        yield


async def until(world: OrderWorld, order: Order, *states: SagaState) -> SagaState:
    """Wait until the saga of an order is in one of `states`."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (state := (await world.saga(order)).saga.state) not in states:  # noqa: ASYNC110 - other tasks decide
            await asyncio.sleep(PAUSE_SECONDS)
    return state


@BOTH_STYLES
async def test_an_order_that_goes_well_and_is_cancelled_later(
    make_world: MakeWorld, broker: BrokerRoom, *, style: SagaStyle
) -> None:
    world = await make_world(style)
    ids = await world.stocked(cup=10, plate=5)
    await world.credit("100")
    order = await world.place((ids["cup"], 3), (ids["plate"], 1))  # told before anybody listens
    async with messaging(world, broker):
        await until(world, order, SagaState.COMPLETED)
        assert await world.figures() == {"stock": {"cup": 7, "plate": 4}, "credit": "90.00", "held": "0.00"}
        await world.cancel(order)
        await until(world, order, SagaState.COMPENSATED)
    assert await world.figures() == {"stock": {"cup": 10, "plate": 5}, "credit": "100.00", "held": "0.00"}


@BOTH_STYLES
async def test_several_at_once_each_with_its_own_end(
    make_world: MakeWorld, broker: BrokerRoom, *, style: SagaStyle
) -> None:
    """Ten that fit, one that is too dear, one that is short of stock; the figures add up."""
    world = await make_world(style)
    ids = await world.stocked(cup=20, plate=1)
    await world.credit("60")
    async with messaging(world, broker):
        good = [await world.place((ids["cup"], 2)) for _ in range(10)]
        for order in good:
            await until(world, order, SagaState.COMPLETED)
        dear = await world.place((ids["plate"], 1), (ids["cup"], 10))
        short = await world.place((ids["plate"], 2))
        for order in (dear, short):
            await until(world, order, SagaState.COMPENSATED)
            assert (await world.now(order)).status is OrderStatus.CANCELLED
    assert await world.figures() == {"stock": {"cup": 0, "plate": 1}, "credit": "10.00", "held": "0.00"}
