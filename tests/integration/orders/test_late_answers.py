"""What is heard after somebody had to look at a saga, or after she has said how it ends."""

from __future__ import annotations

from decimal import Decimal

import pytest

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import Order
from backend.shared.events.saga import SagaState
from tests.integration.orders.conftest import MakeWorld
from tests.support.order_audit import disagreements
from tests.support.order_play import DOES, Step
from tests.support.order_world import OrderWorld

BOTH_STYLES = pytest.mark.parametrize("style", list(SagaStyle))
MOST_DEADLINES = 12


async def given_up(world: OrderWorld, *, held: Step) -> Order:
    """An order that was cancelled; nobody does what `held` asks for, until somebody has to look at it."""
    ids = await world.stocked(cup=10)
    await world.credit("100")
    order = await world.place((ids["cup"], 3))
    await world.post.bring_all()
    world.post.held = {DOES[held][world.style]}
    await world.cancel(order)
    await world.post.bring_all()
    for _ in range(MOST_DEADLINES):
        if (await world.saga(order)).saga.state is SagaState.NEEDS_REVIEW:
            break
        await world.late()
        await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.NEEDS_REVIEW
    return order


@BOTH_STYLES
@pytest.mark.parametrize("held", [Step.REFUND, Step.RELEASE, Step.VOID])
async def test_what_is_undone_after_all_needs_nobody_any_more(
    make_world: MakeWorld, *, style: SagaStyle, held: Step
) -> None:
    world = await make_world(style)
    order = await given_up(world, held=held)
    world.post.held = set()
    await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await disagreements(world.books(), stocked={}, given={}) == []


# The orchestrator knows that the money was given back before it asked for the goods: such an order cannot stand.
@pytest.mark.parametrize(
    ("style", "held"),
    [
        (SagaStyle.CHOREOGRAPHED, Step.REFUND),
        (SagaStyle.CHOREOGRAPHED, Step.RELEASE),
        (SagaStyle.ORCHESTRATED, Step.REFUND),
    ],
)
async def test_what_is_undone_after_it_was_settled_as_completed_is_looked_at_again(
    make_world: MakeWorld, *, style: SagaStyle, held: Step
) -> None:
    """The money has gone back in the end: an order that stands would be given away."""
    world = await make_world(style)
    order = await given_up(world, held=held)
    await world.order.run_unit(
        "settle",
        lambda work: world.desk.settle(
            work, order.id, state=SagaState.COMPLETED, by="ada", note="she keeps it"
        ),
    )
    world.post.held = set()
    await world.post.bring_all()
    found = await world.saga(order)
    states = [entry["state"] for entry in found.history]
    assert "needs_review" in states[states.index("completed", states.index("needs_review")) :]
    if found.saga.state is SagaState.NEEDS_REVIEW:  # unless the rest was undone of itself
        await world.order.run_unit("retry", lambda work: world.desk.retry(work, order.id, by="ada"))
        await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await disagreements(world.books(), stocked={}, given={}) == []


@BOTH_STYLES
async def test_a_second_refusal_after_it_was_settled_is_no_news(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    """It was asked for twice, and refused twice: the second answer comes late."""
    world = await make_world(style)
    ids = await world.stocked(cup=10)
    await world.credit("100")
    order = await world.place((ids["cup"], 3))
    await world.post.bring_all()
    await world.fault("refund", "decline", times=2)
    world.post.held = {("order", "PaymentUndoFailed")}
    await world.cancel(order)
    await world.post.bring_all()
    await world.late()
    await world.post.bring_all()
    late, world.post.held = world.post.waiting.pop(), set()
    await world.post.bring_all()
    await world.order.run_unit(
        "settle",
        lambda work: world.desk.settle(
            work, order.id, state=SagaState.COMPLETED, by="ada", note="she keeps it"
        ),
    )
    world.post.waiting.append(late)
    await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.COMPLETED
    assert await disagreements(world.books(), stocked={}, given={}) == []


async def test_an_answer_that_comes_twice_does_not_stand_for_another_step(make_world: MakeWorld) -> None:
    """The payment was asked for again by the deadline, and told twice; the goods are not there."""
    world = await make_world(SagaStyle.ORCHESTRATED)
    ids = await world.stocked(cup=2)
    await world.credit("100")
    world.post.held = {DOES[Step.AUTHORISE][world.style]}
    order = await world.place((ids["cup"], 3))
    await world.post.bring_all()
    await world.late()
    assert len(world.post.waiting) == 2
    world.post.held = {DOES[Step.RESERVE][world.style]}
    await world.post.bring_all()
    world.post.held = set()
    await world.post.bring_all()
    assert world.post.log.count("PaymentAuthorised") == 2
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await disagreements(world.books(), stocked={ids["cup"]: 2}, given={"ann": Decimal(100)}) == []


@BOTH_STYLES
async def test_nothing_is_captured_of_what_is_being_taken_back(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    """The capture is asked for after the refund, which found nothing to give back, and before what is set aside is let go of."""
    world = await make_world(style)
    ids = await world.stocked(cup=10)
    await world.credit("100")
    capture, release = DOES[Step.CAPTURE][style], DOES[Step.RELEASE][style]
    world.post.held = {capture}
    order = await world.place((ids["cup"], 3))
    await world.post.bring_all()
    await world.cancel(order)
    world.post.held = {capture, release}
    await world.post.bring_all()
    world.post.held = {release}
    await world.post.bring_all()
    assert "PaymentCaptured" not in world.post.log
    world.post.held = set()
    await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await disagreements(world.books(), stocked={ids["cup"]: 10}, given={"ann": Decimal(100)}) == []
