"""An order goes all the way, or leaves nothing behind, in both forms of the saga and under both authorities."""

from __future__ import annotations

import pytest

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import OrderStatus
from backend.shared import Phase
from backend.shared.events.saga import SagaState
from tests.integration.orders.conftest import MakeWorld
from tests.support.fixtures import BOTH_AUTHORITIES

BOTH_STYLES = pytest.mark.parametrize("style", list(SagaStyle))


@BOTH_STYLES
@BOTH_AUTHORITIES
async def test_an_order_that_goes_well(make_world: MakeWorld, *, style: SagaStyle, phase: Phase) -> None:
    world = await make_world(style, phase=phase)
    ids = await world.stocked(cup=10, plate=5)
    await world.credit("100")
    order = await world.place((ids["cup"], 3), (ids["plate"], 1))
    await world.post.bring_all()
    assert (await world.now(order)).status is OrderStatus.CONFIRMED
    saga = await world.saga(order)
    assert saga.saga.state is SagaState.COMPLETED
    assert await world.figures() == {"stock": {"cup": 7, "plate": 4}, "credit": "90.00", "held": "0.00"}


@BOTH_STYLES
async def test_declined(make_world: MakeWorld, *, style: SagaStyle) -> None:
    world = await make_world(style)
    ids = await world.stocked(cup=10)
    await world.credit("5")
    order = await world.place((ids["cup"], 3))
    await world.post.bring_all()
    found = await world.now(order)
    assert (found.status, found.reason) == (OrderStatus.CANCELLED, "the credit does not suffice")
    assert await world.figures() == {"stock": {"cup": 10}, "credit": "5.00", "held": "0.00"}


@BOTH_STYLES
async def test_out_of_stock(make_world: MakeWorld, *, style: SagaStyle) -> None:
    world = await make_world(style)
    ids = await world.stocked(cup=10, plate=1)
    await world.credit("100")
    order = await world.place((ids["cup"], 3), (ids["plate"], 2))
    await world.post.bring_all()
    found = await world.now(order)
    assert found.status is OrderStatus.CANCELLED
    assert found.reason == f"there are only 1 of product {ids['plate']}"
    assert (await world.saga(order)).saga.participant == "product"
    assert await world.figures() == {"stock": {"cup": 10, "plate": 1}, "credit": "100.00", "held": "0.00"}


@BOTH_STYLES
async def test_capture_refused(make_world: MakeWorld, *, style: SagaStyle) -> None:
    world = await make_world(style)
    ids = await world.stocked(cup=10)
    await world.credit("100")
    await world.fault("capture", "decline")
    order = await world.place((ids["cup"], 3))
    await world.post.bring_all()
    assert (await world.now(order)).status is OrderStatus.CANCELLED
    assert await world.figures() == {"stock": {"cup": 10}, "credit": "100.00", "held": "0.00"}


@BOTH_STYLES
@pytest.mark.parametrize("brought", range(8))
async def test_cancelled_at_any_moment(make_world: MakeWorld, *, style: SagaStyle, brought: int) -> None:
    """Also long after it was confirmed."""
    world = await make_world(style)
    ids = await world.stocked(cup=10)
    await world.credit("100")
    order = await world.place((ids["cup"], 3))
    await world.post.collect()
    for _ in range(brought):
        if world.post.waiting:
            await world.post.bring()
    await world.cancel(order)
    await world.post.bring_all()
    assert (await world.now(order)).status is OrderStatus.CANCELLED
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await world.figures() == {"stock": {"cup": 10}, "credit": "100.00", "held": "0.00"}


@BOTH_STYLES
async def test_a_compensation_that_fails_for_good_is_looked_at(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    world = await make_world(style)
    ids = await world.stocked(cup=10)
    await world.credit("100")
    order = await world.place((ids["cup"], 3))
    await world.post.bring_all()
    await world.fault("refund", "decline")
    await world.cancel(order)
    await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.NEEDS_REVIEW
    assert await world.figures() == {"stock": {"cup": 7}, "credit": "92.50", "held": "0.00"}
    # Somebody has mended it.
    await world.retry(order)
    await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await world.figures() == {"stock": {"cup": 10}, "credit": "100.00", "held": "0.00"}
