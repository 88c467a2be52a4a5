"""A service is cut over while it takes a message of an order in: the effect is there once, and known on the other side."""

from __future__ import annotations

import asyncio

import pytest

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import OrderStatus
from backend.shared import Phase
from tests.integration.orders.conftest import MakeWorld
from tests.support.commit_hold import held_commits
from tests.support.order_audit import disagreements
from tests.support.phases import change

GATES = ["lag", "validation", "shadow-reads", "backfill"]


@pytest.mark.parametrize("style", list(SagaStyle))
@pytest.mark.parametrize(
    ("service", "table", "when"),
    [
        ("product", "tandem_product.stock_reservations", "NEW.state = 'reserved'"),
        ("order", "tandem_order.sagas", "NEW.state = 'completed'"),
        ("cart", "tandem_cart.cart_orders", "NEW.state = 'placed'"),
    ],
)
async def test_cutover_while_a_message_is_at_its_commit(
    make_world: MakeWorld, *, style: SagaStyle, service: str, table: str, when: str
) -> None:
    world = await make_world(style, phase=Phase.SHADOW)
    ids = await world.stocked(cup=10)
    order = await world.place((ids["cup"], 3))
    await world.credit("100")
    async with held_commits(world.urls.legacy, table, when=when) as hold:
        bringing = asyncio.ensure_future(world.post.bring_all())
        await hold.reached()
        cutting = asyncio.ensure_future(change(getattr(world, service), Phase.LIVE, force=GATES))
        await hold.let_go()
        await asyncio.gather(bringing, cutting)
    assert getattr(world, service).phase is Phase.LIVE
    # Everything comes once more: nobody had heard that it was taken in.
    await world.post.bring_old(world.post.brought)
    assert world.post.waiting == []
    assert (await world.now(order)).status is OrderStatus.CONFIRMED
    assert await disagreements(world.books(), stocked={ids["cup"]: 10}, given={}) == []
