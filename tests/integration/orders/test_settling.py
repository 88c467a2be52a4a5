"""What was undone by hand is noted where it could not be, and the rest is undone by itself: nothing is left of the order."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import Order, OrderSaga, OrderStatus
from backend.product_service.app.entities import MAX_STOCK_COUNT
from backend.product_service.app.repositories import ProductRepository
from backend.shared import ConflictError, UnitOfWork
from backend.shared.events.saga import SagaState
from tests.integration.orders.conftest import MakeWorld
from tests.support.order_audit import disagreements
from tests.support.order_world import USER, OrderWorld

BOTH_STYLES = pytest.mark.parametrize("style", list(SagaStyle))
CREDIT = Decimal(100)
STOCK = 10


class Shop:
    """A world with one product, and an order of three that could not be undone."""

    def __init__(self, world: OrderWorld) -> None:
        self.world = world
        self.product = 0

    async def refused(self, step: str) -> Order:
        """An order of which `step` cannot be undone."""
        world = self.world
        self.product = (await world.stocked(cup=STOCK))["cup"]
        await world.credit(str(CREDIT))
        if step == "void":
            await world.fault("void", "decline")
            order = await world.place((self.product, STOCK + 1))
            await world.post.bring_all()
        else:
            order = await world.place((self.product, 3))
            await world.post.bring_all()
            if step == "refund":
                await world.fault("refund", "decline")
            else:
                await self.count(MAX_STOCK_COUNT)  # there is no room for more
            await world.cancel(order)
            await world.post.bring_all()
        assert (await world.saga(order)).saga.state is SagaState.NEEDS_REVIEW
        return order

    async def count(self, count: int) -> None:
        """So many are on the shelves."""

        async def unit(work: UnitOfWork) -> None:
            await ProductRepository(work).set_quantity(self.product, count)

        await self.world.product.run_unit("count", unit)

    async def settle(self, order: Order, state: SagaState) -> OrderSaga:
        found = await self.world.settle(order, state)
        await self.world.post.bring_all()
        return found

    async def wrong(
        self, *, stocked: int | None = None, credit: Mapping[str, Decimal] | None = None
    ) -> list[str]:
        """What does not hold; of shelves and credit what is asked for."""
        shelves = {} if stocked is None else {self.product: stocked}
        return await disagreements(self.world.books(), stocked=shelves, given=credit or {})


@BOTH_STYLES
async def test_money_that_was_given_back_by_hand_is_noted_and_the_goods_are_put_back(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    shop = Shop(await make_world(style))
    order = await shop.refused("refund")
    assert (await shop.settle(order, SagaState.COMPENSATED)).saga.state is SagaState.COMPENSATING
    found = await shop.world.saga(order)
    assert (found.saga.state, found.saga.by_hand) == (SagaState.COMPENSATED, False)
    story = [entry["what"] for entry in found.history]
    assert "settled as compensated by ada: done by hand" in story
    assert "PaymentRefunded: noted, it was undone by hand" in story
    assert not any("too" in what for what in story)
    # Not twice: the money was not given back as credit too.
    assert await shop.wrong(stocked=STOCK, credit={USER: CREDIT - order.total}) == []


@BOTH_STYLES
async def test_goods_that_were_taken_care_of_by_hand_are_noted_and_the_money_is_free(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    shop = Shop(await make_world(style))
    order = await shop.refused("release")
    await shop.settle(order, SagaState.COMPENSATED)
    assert (await shop.world.saga(order)).saga.state is SagaState.COMPENSATED
    # The shelves are as somebody counted them.
    assert await shop.wrong(stocked=MAX_STOCK_COUNT, credit={USER: CREDIT}) == []


@BOTH_STYLES
async def test_money_that_was_let_go_of_by_hand_is_not_set_aside_here_either(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    shop = Shop(await make_world(style))
    order = await shop.refused("void")
    await shop.settle(order, SagaState.COMPENSATED)
    assert (await shop.world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await shop.wrong(stocked=STOCK, credit={USER: CREDIT}) == []


@BOTH_STYLES
async def test_what_fails_after_that_needs_to_be_looked_at_too(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    shop = Shop(await make_world(style))
    order = await shop.refused("refund")
    await shop.count(MAX_STOCK_COUNT)
    await shop.settle(order, SagaState.COMPENSATED)
    found = (await shop.world.saga(order)).saga
    assert (found.state, found.by_hand) == (SagaState.NEEDS_REVIEW, False)
    await shop.settle(order, SagaState.COMPENSATED)
    assert (await shop.world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await shop.wrong(stocked=MAX_STOCK_COUNT, credit={USER: CREDIT - order.total}) == []


@BOTH_STYLES
async def test_who_is_told_that_it_was_done_by_hand_is_told_so_until_she_answers(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    shop = Shop(await make_world(style))
    order = await shop.refused("refund")
    shop.world.post.lost = {("payment", "RefundPayment")}
    await shop.settle(order, SagaState.COMPENSATED)
    assert (await shop.world.saga(order)).saga.by_hand
    shop.world.post.lost = set()
    await shop.world.late()
    await shop.world.post.bring_all()
    assert (await shop.world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await shop.wrong(stocked=STOCK, credit={USER: CREDIT - order.total}) == []


@BOTH_STYLES
async def test_an_order_of_which_nothing_is_undone_may_stand(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    shop = Shop(await make_world(style))
    order = await shop.refused("refund")
    await shop.settle(order, SagaState.COMPLETED)
    assert (await shop.world.saga(order)).saga.state is SagaState.COMPLETED
    stands = await shop.world.now(order)
    assert (stands.status, stands.reason) == (OrderStatus.CONFIRMED, None)
    assert await shop.wrong(stocked=STOCK, credit={USER: CREDIT}) == []


@BOTH_STYLES
@pytest.mark.parametrize("step", ["release", "void"])
async def test_an_order_of_which_something_is_undone_cannot_stand(
    make_world: MakeWorld, *, style: SagaStyle, step: str
) -> None:
    shop = Shop(await make_world(style))
    order = await shop.refused(step)
    before = await shop.world.saga(order)
    with pytest.raises(ConflictError, match="some of it is undone already"):
        await shop.settle(order, SagaState.COMPLETED)
    assert await shop.world.saga(order) == before
