"""What is heard after somebody had to look at a saga, or after she has said how it ends."""

from __future__ import annotations

from decimal import Decimal

import pytest

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import Order
from backend.shared import ConflictError
from backend.shared.events.saga import SagaState
from tests.integration.orders.conftest import MakeWorld
from tests.support.order_audit import disagreements
from tests.support.order_play import DOES, MOST_DEADLINES, Step
from tests.support.order_post import Letter
from tests.support.order_world import OrderWorld

BOTH_STYLES = pytest.mark.parametrize("style", list(SagaStyle))


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


@BOTH_STYLES
@pytest.mark.parametrize("held", [Step.REFUND, Step.RELEASE, Step.VOID])
@pytest.mark.parametrize("state", [SagaState.COMPLETED, SagaState.COMPENSATED])
async def test_nobody_can_say_how_it_ends_while_nobody_knows_what_is_undone(
    make_world: MakeWorld, *, style: SagaStyle, held: Step, state: SagaState
) -> None:
    world = await make_world(style)
    order = await given_up(world, held=held)
    before = await world.saga(order)
    with pytest.raises(ConflictError, match=f"cannot be settled as {state.value}"):
        await world.settle(order, state)
    assert await world.saga(order) == before


@BOTH_STYLES
async def test_who_says_late_that_it_cannot_be_undone_is_believed(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    world = await make_world(style)
    await world.fault("refund", "decline")
    order = await given_up(world, held=Step.REFUND)
    world.post.held = set()
    world.post.waiting = world.post.waiting[:1]
    await world.post.bring_all()
    await world.settle(order, SagaState.COMPLETED)
    await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.COMPLETED
    assert await disagreements(world.books(), stocked={}, given={}) == []


@BOTH_STYLES
async def test_what_is_undone_after_it_was_settled_as_completed_is_looked_at_again(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    """It was asked for twice, refused once, and done in the end: an order that stands would be given away."""
    world = await make_world(style)
    order, refusal, refund = await refused_and_asked_again(world)
    world.post.waiting.append(refusal)
    await world.post.bring_all()
    await world.settle(order, SagaState.COMPLETED)
    world.post.waiting.append(refund)
    world.post.held = {DOES[Step.RELEASE][style]}
    await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.NEEDS_REVIEW
    with pytest.raises(ConflictError, match="some of it is undone already"):
        await world.settle(order, SagaState.COMPLETED)
    world.post.held = set()
    await world.post.bring_all()
    if (await world.saga(order)).saga.state is SagaState.NEEDS_REVIEW:  # unless the rest was undone of itself
        await world.retry(order)
        await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await disagreements(world.books(), stocked={}, given={}) == []


@BOTH_STYLES
@pytest.mark.parametrize("state", [SagaState.COMPLETED, SagaState.COMPENSATED])
async def test_a_refusal_that_is_told_after_it_was_undone_is_no_news(
    make_world: MakeWorld, *, style: SagaStyle, state: SagaState
) -> None:
    """Nobody has said that the next step cannot be undone: whoever settled that would lose the goods."""
    world = await make_world(style)
    order, refusal, refund = await refused_and_asked_again(world)
    world.post.held = {DOES[Step.RELEASE][style]}
    world.post.waiting.append(refund)
    await world.post.bring_all()
    world.post.waiting.append(refusal)
    await world.post.bring_all()
    with pytest.raises(ConflictError):
        await world.settle(order, state)
    world.post.held = set()
    await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATED
    assert await disagreements(world.books(), stocked={}, given={}) == []


@BOTH_STYLES
async def test_what_was_undone_by_hand_and_by_its_participant_too_is_said_aloud(
    make_world: MakeWorld, *, style: SagaStyle
) -> None:
    """The second request was on its way when somebody gave the money back by hand."""
    world = await make_world(style)
    order, refusal, refund = await refused_and_asked_again(world)
    world.post.waiting.append(refusal)
    await world.post.bring_all()
    await world.settle(order, SagaState.COMPENSATED)
    world.post.waiting.append(refund)
    world.post.held = {("payment", "RefundPayment")} if style is SagaStyle.CHOREOGRAPHED else set()
    await world.post.bring_all()
    world.post.held = set()
    await world.post.bring_all()
    found = await world.saga(order)
    assert found.saga.state is SagaState.COMPENSATED
    told = [entry["what"] for entry in found.history if "too" in entry["what"]]
    assert told == ["PaymentRefunded: undone by payment too, after it was undone by hand"]
    assert await disagreements(world.books(), stocked={}, given={}) == []


async def test_whoever_has_noted_it_is_not_asked_to_note_the_next_step(make_world: MakeWorld) -> None:
    """Its answer comes after that of the next participant, who has gone on by itself."""
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    order, refusal, _ = await refused_and_asked_again(world)
    world.post.waiting.append(refusal)
    await world.post.bring_all()
    world.post.held = {("order", "PaymentRefunded"), ("payment", "StockReleased")}
    await world.settle(order, SagaState.COMPENSATED)
    await world.post.bring_all()
    assert (await world.saga(order)).saga.by_hand is False
    await world.late()
    assert "VoidPayment" not in world.post.log
    world.post.held = set()
    await world.post.bring_all()
    assert (await world.saga(order)).saga.state is SagaState.COMPENSATED


async def refused_and_asked_again(world: OrderWorld) -> tuple[Order, Letter, Letter]:
    """An order that was cancelled; a refund that was refused; neither that nor the second request has come yet."""
    ids = await world.stocked(cup=10)
    await world.credit("100")
    order = await world.place((ids["cup"], 3))
    await world.post.bring_all()
    await world.fault("refund", "decline")
    world.post.held = {("order", "PaymentUndoFailed")}
    await world.cancel(order)
    await world.post.bring_all()
    (refusal,) = world.post.waiting
    await world.late()
    refund = next(letter for letter in world.post.waiting if letter != refusal)
    world.post.waiting, world.post.held = [], set()
    return order, refusal, refund


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
    await world.settle(order, SagaState.COMPLETED)
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
