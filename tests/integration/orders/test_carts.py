"""A cart that is ordered again before anybody has heard what became of the first order."""

from __future__ import annotations

from dataclasses import replace

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import OrderStatus
from tests.integration.orders.conftest import MakeWorld
from tests.support.order_audit import disagreements

HEARD_LATE = {("cart", "OrderPlaced"), ("cart", "OrderCancelled")}


async def test_the_cart_of_the_second_order_is_bought(make_world: MakeWorld) -> None:
    """More was in it by then: that went to another cart when the first order was heard of, and so the first could not be open again."""
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    ids = await world.stocked(cup=10, jug=10)
    await world.credit("5")
    cart = await world.filled("ann", (ids["cup"], 3))
    world.post.held = HEARD_LATE
    first = await world.ordered(cart, key="k")
    await world.post.bring_all()
    assert (await world.now(first)).status is OrderStatus.CANCELLED
    await world.credit("100")
    more = await world.filled("ann", (ids["jug"], 1))
    assert more.id == cart.id
    second = await world.ordered(replace(cart, lines=(*cart.lines, *more.lines)), key="l")
    await world.post.bring_all()
    assert (await world.now(second)).status is OrderStatus.CONFIRMED
    world.post.held = set()
    # That of the first comes first, to its end.
    world.post.waiting.sort(key=lambda letter: f'"order_id":{second.id}'.encode() in letter.body)
    await world.post.bring_all()
    assert await world.cart_status(cart.id) == "closed"
    assert await disagreements(world.books(), stocked={}, given={}) == []
