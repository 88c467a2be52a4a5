"""An order is placed once, whoever asks how often, and a product is seen as it was told of last."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from backend.messages.orders import SagaStyle
from backend.messages.products import ProductChanged
from backend.order_service.app.repositories import ProductViews
from backend.shared import ConflictError, UnitOfWork
from backend.shared.events.envelope import Envelope
from tests.integration.orders.conftest import MakeWorld
from tests.support.commit_hold import held_commits
from tests.support.order_world import OrderWorld

SAGAS = "tandem_order.sagas"
BLOCKED = "SELECT 1 FROM pg_locks WHERE NOT granted HAVING count(*) >= 2"


async def blocked(world: OrderWorld) -> None:
    """Both wait: the one at its COMMIT, the other for the first."""
    async with asyncio.timeout(10):
        while not await world._sql(world.urls.legacy, BLOCKED):  # noqa: ASYNC110 - a database rings no bell
            await asyncio.sleep(0.01)


async def test_two_at_once_under_one_key_place_one_order(make_world: MakeWorld) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    cart = await world.filled("ann", (1, 1))
    async with held_commits(world.urls.legacy, SAGAS, when="true") as hold:
        first = asyncio.ensure_future(world.ordered(cart, key="k"))
        await hold.reached()
        second = asyncio.ensure_future(world.ordered(cart, key="k"))
        await blocked(world)
        await hold.let_go()
        orders = await asyncio.gather(first, second)
    assert orders[0].id == orders[1].id
    assert [order.is_new for order in orders] == [True, False]


async def test_two_at_once_under_two_keys_do_not_order_a_cart_twice(make_world: MakeWorld) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    cart = await world.filled("ann", (1, 1))
    async with held_commits(world.urls.legacy, SAGAS, when="true") as hold:
        first = asyncio.ensure_future(world.ordered(cart, key="k"))
        await hold.reached()
        second = asyncio.ensure_future(world.ordered(cart, key="l"))
        await blocked(world)
        await hold.let_go()
        order = await first
        with pytest.raises(ConflictError, match=f"this cart is in order {order.id} already"):
            await second


async def test_a_key_of_one_customer_is_not_that_of_another(make_world: MakeWorld) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    orders = [await world.ordered(await world.filled(user, (1, 1)), key="k") for user in ("ann", "bob")]
    assert orders[0].id != orders[1].id


async def test_a_key_that_was_used_stands_for_its_order_whatever_is_in_the_cart(
    make_world: MakeWorld,
) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    first = await world.ordered(await world.filled("ann", (1, 1)), key="k")
    again = await world.ordered(await world.filled("ann", (2, 5)), key="k")
    assert (again.id, again.lines) == (first.id, first.lines)


async def test_a_product_heard_of_late_does_not_hide_what_was_heard_before(make_world: MakeWorld) -> None:
    """Neither an older change, nor one of before a cutover whose server's clock was ahead."""
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    for name, position in (("new", (2, 50)), ("old", (2, 49)), ("of the other side", (1, 99))):
        event = ProductChanged(product_id=1, sku="s", name=name, price=Decimal("1.00"), is_active=True)
        told = Envelope.of(event, correlation_id="c").model_copy(update={"position": position})
        await world.post.consumers["order"].take(told.model_dump_json().encode())

    async def unit(work: UnitOfWork) -> str | None:
        return (await ProductViews(work).by_ids([1]))[1].name

    assert await world.order.read(unit) == "new"
