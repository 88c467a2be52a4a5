"""Each step of an order, with each thing that may go wrong with it: the same end in both forms of the saga, and in all databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal

import pytest
import pytest_asyncio

from backend.messages.orders import SagaStyle
from backend.shared.observability.labels import Verdict
from backend.shared.sync_validator import SyncValidator
from backend.shared.testing.clusters import Cluster
from tests.support.order_audit import disagreements
from tests.support.order_play import ANSWERED, CREDIT, ORDERED, STOCK, End, Failure, Play, Step
from tests.support.order_world import PRICE, OrderWorld, fresh_urls, open_world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("order-steps"),  # what was carried meanwhile is that of all of them
]

TOTAL = ORDERED * PRICE
REFUSED = (Step.AUTHORISE, Step.RESERVE, Step.CAPTURE, Step.REFUND, Step.RELEASE, Step.VOID)
CASES = [
    *((step, Failure.REFUSED) for step in REFUSED),
    *((step, Failure.LOST) for step in ANSWERED),
    *(
        (step, failure)
        for step in Step
        for failure in Failure
        if failure not in (Failure.REFUSED, Failure.LOST)
    ),
]
SOLD = End(
    status="confirmed",
    saga="completed",
    reviewed=False,
    stock=STOCK - ORDERED,
    credit=str(Decimal(CREDIT) - TOTAL),
    held="0.00",
    cart="closed",
)


def expected(step: Step, failure: Failure) -> End:
    """A step that stumbles is done all the same; one that cannot be done, or comes too late, is the end of the order.

    Nobody waits for the cart. And a compensation is done in the end, if need be after somebody has looked at it.
    """
    harmless = failure in (Failure.TWICE, Failure.KILLED_BEFORE, Failure.KILLED_AFTER)
    late_cart = step is Step.CLOSE_CART and failure is Failure.UNANSWERED
    if not step.undoes and (harmless or late_cart):
        return SOLD
    needs_review = (Failure.REFUSED, Failure.UNANSWERED, Failure.LOST)
    reviewed = step.undoes and step is not Step.OPEN_CART and failure in needs_review
    return End(
        status="cancelled",
        saga="compensated",
        reviewed=reviewed,
        stock=STOCK,
        credit=f"{CREDIT}.00",
        held="0.00",
        cart="open",
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(legacy_cluster: Cluster, services_cluster: Cluster) -> AsyncIterator[OrderWorld]:
    async with AsyncExitStack() as stack:
        urls = await fresh_urls(stack, "steps", legacy=legacy_cluster, services=services_cluster)
        yield await open_world(urls, stack, style=SagaStyle.CHOREOGRAPHED)


@pytest.mark.parametrize(("step", "failure"), CASES, ids=[f"{step}: {failure}" for step, failure in CASES])
async def test_the_end_is_the_same_in_both_forms(world: OrderWorld, *, step: Step, failure: Failure) -> None:
    plays = [Play(world, style=style) for style in SagaStyle]
    ends = [await play.run(step, failure) for play in plays]
    assert ends[0] == ends[1]
    assert ends[0] == expected(step, failure)
    wrong = await disagreements(
        world.books(),
        stocked={play.product: STOCK for play in plays},
        given={play.user: Decimal(CREDIT) for play in plays},
    )
    assert wrong == []


async def test_what_was_carried_meanwhile_is_the_same_on_both_sides(world: OrderWorld) -> None:
    await Play(world, style=SagaStyle.CHOREOGRAPHED).run(Step.REFUND, Failure.TWICE)
    for manager in (world.order, world.product, world.cart):
        assert await manager.relay().drain(timeout_seconds=20)
        assert (await SyncValidator(manager.runtime).run()).verdict is Verdict.EQUAL
