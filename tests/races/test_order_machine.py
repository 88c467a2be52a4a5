"""Generated lives of orders: messages that come twice, late and in any order, units that die, providers that refuse, customers who
change their minds, goods that leave the house, people who say how an order ends. When all is heard, money, stock and orders agree, in
all databases.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from decimal import Decimal
from typing import Any, NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import Order, OrderStatus
from backend.shared import ConflictError, NotFoundError
from backend.shared.events.saga import SagaState
from backend.shared.testing.clusters import Cluster
from tests.support.order_world import PRICE, OrderWorld, fresh_urls, open_world

LONG_EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "0"))
SHORT_EXAMPLES = 12
STEPS = 40 if LONG_EXAMPLES else 25
MOST_ROUNDS = 40
STOCK = 12
CREDIT = Decimal("50.00")


class Lives(RuleBasedStateMachine):
    """Orders of one customer, over three products."""

    world: OrderWorld
    loop: asyncio.Runner
    example = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).example += 1
        self.user = f"user-{self.example}"
        self.orders: list[tuple[Order, Counter[int]]] = []
        self.products: list[int] = []
        self.broken = False

    @initialize()
    def begin(self) -> None:
        self.run(self._begin())

    async def _begin(self) -> None:
        await self.world.post.collect()
        self.world.post.waiting.clear()  # of a life that broke off
        self.world.dies = 0
        await self.world.forget_faults()
        names = {f"{name}-{self.example}": STOCK for name in ("cup", "plate", "jug")}
        self.products = list((await self.world.stocked(**names)).values())
        await self.world.credit(str(CREDIT), self.user)

    @rule(
        lines=st.dictionaries(st.integers(0, 2), st.integers(1, 6), min_size=1, max_size=3),
    )
    def place(self, lines: dict[int, int]) -> None:
        pieces = Counter({self.products[number]: count for number, count in lines.items()})
        order = self.run(self.world.place(*pieces.items(), user=self.user))
        self.orders.append((order, pieces))
        self.run(self.world.post.collect())

    @rule(which=st.integers(0, 1000), times=st.integers(1, 3), again=st.booleans())
    def bring(self, which: int, times: int, *, again: bool) -> None:
        """One of those that wait, whichever."""
        for _ in range(times):
            waiting = len(self.world.post.waiting)
            if waiting:
                self.run(self.world.post.bring(which % waiting, again=again))

    @rule(which=st.integers(0, 1000))
    def cancel(self, which: int) -> None:
        if self.orders:
            order, _ = self.orders[which % len(self.orders)]
            self.run(self._cancel(order))

    async def _cancel(self, order: Order) -> None:
        if not await self._needs_review(order):
            await self.world.cancel(order)
        await self.world.post.collect()

    @rule()
    def die(self) -> None:
        self.world.dies += 1

    @rule(seconds=st.sampled_from([40.0, 200.0, 10_000.0]))
    def wait(self, seconds: float) -> None:
        self.run(self.world.late(seconds))

    @rule(
        step=st.sampled_from(["authorise", "capture", "refund", "void"]),
    )
    def refuse(self, step: str) -> None:
        self.run(self.world.fault(step, "decline"))

    @rule(which=st.integers(0, 1000))
    def use(self, which: int) -> None:
        """The goods leave the house, and cannot be put back."""
        if self.orders:
            order, _ = self.orders[which % len(self.orders)]
            with suppress(ConflictError, NotFoundError):
                self.run(self.world.use(order))

    @rule(which=st.integers(0, 2), refused=st.sampled_from(["refund", "used"]))
    def regret(self, which: int, refused: str) -> None:
        """An order that stands is cancelled, and cannot be undone: that takes more luck than a short life has."""
        self.run(self._regret(self.products[which], refused))

    async def _regret(self, product: int, refused: str) -> None:
        order = await self.world.place((product, 1), user=self.user)
        self.orders.append((order, Counter({product: 1})))
        await self.world.post.bring_all()
        if (await self.world.now(order)).status is OrderStatus.CONFIRMED:
            await (self.world.use(order) if refused == "used" else self.world.fault(refused, "decline"))
            await self.world.cancel(order)
            await self.world.post.collect()

    @rule(
        which=st.integers(0, 1000),
        state=st.sampled_from([None, SagaState.COMPLETED, SagaState.COMPENSATED]),
    )
    def look(self, which: int, state: SagaState | None) -> None:
        """Somebody sees to one that could not be undone: it is settled, or without a `state` tried again."""
        self.run(self._look(which, state))

    async def _look(self, which: int, state: SagaState | None) -> None:
        found = [order for order, _ in self.orders if await self._needs_review(order)]
        if found:
            order = found[which % len(found)]
            with suppress(ConflictError):
                await (self.world.settle(order, state) if state else self.world.retry(order))
            await self.world.post.collect()

    async def _needs_review(self, order: Order) -> bool:
        return (await self.world.saga(order)).saga.state is SagaState.NEEDS_REVIEW

    def teardown(self) -> None:
        if not self.broken and self.products:
            self.run(self._end())

    async def _end(self) -> None:
        """Everything is heard, and whatever needed to be looked at was mended and tried again."""
        await self.world.forget_faults()
        self.world.dies = 0
        for number in range(MOST_ROUNDS):
            await self.world.post.bring_all()
            open_ = [
                order for order, _ in self.orders if not (await self.world.saga(order)).saga.state.is_final
            ]
            if not open_:
                break
            for order in open_:
                if await self._needs_review(order):
                    await self._see_to(order, by_hand=(number + order.id) % 2 == 1)
            await self.world.late()
        await self._hold()

    async def _see_to(self, order: Order, *, by_hand: bool) -> None:
        """What has left the house can only be seen to by hand."""
        if by_hand:
            with suppress(ConflictError):
                await self.world.settle(order, SagaState.COMPENSATED)
        else:
            await self.world.retry(order)

    async def _hold(self) -> None:
        states = {order.id: (await self.world.saga(order)).saga.state for order, _ in self.orders}
        assert all(state.is_final for state in states.values()), states
        taken: Counter[int] = Counter()
        spent = Decimal(0)
        for order, pieces in self.orders:
            now = await self.world.now(order)
            confirmed = now.status is OrderStatus.CONFIRMED
            assert confirmed == (states[order.id] is SagaState.COMPLETED)
            assert await self.world.reserved(order.id) is confirmed, (order.id, now.status)
            assert await self.world.captured(order.id) == (order.total if confirmed else 0)
            goods, money = await self.world.by_hand(order.id)
            assert not (confirmed and (goods or money))
            if confirmed or goods:
                taken += pieces
            spent += pieces.total() * PRICE if confirmed else money
        assert await self.world.stock_of(self.products) == {
            number: STOCK - taken[number] for number in self.products
        }
        assert await self.world.account(self.user) == (CREDIT - spent, Decimal(0))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.loop.run(work)
        except (ConflictError, NotFoundError):
            raise
        except BaseException:
            self.broken = True
            raise


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    """The loop of all lives: connections belong to one. What is logged would hide the one that failed."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    with asyncio.Runner() as runner:
        yield runner
    structlog.configure(**before)


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent


async def made(stack: AsyncExitStack, style: SagaStyle, legacy: Cluster, services: Cluster) -> OrderWorld:
    urls = await fresh_urls(stack, f"lives_{style.value}", legacy=legacy, services=services)
    return await open_world(urls, stack, style=style)


@pytest.mark.slow
@pytest.mark.timeout(0 if LONG_EXAMPLES else 300)
@pytest.mark.parametrize("style", list(SagaStyle))
def test_money_stock_and_orders_agree_in_the_end(
    loop: asyncio.Runner, legacy_cluster: Cluster, services_cluster: Cluster, *, style: SagaStyle
) -> None:
    stack = AsyncExitStack()
    try:
        world = loop.run(made(stack, style, legacy_cluster, services_cluster))
        run_state_machine_as_test(
            type("Lives", (Lives,), {"world": world, "loop": loop}),
            settings=settings(
                max_examples=LONG_EXAMPLES or SHORT_EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=not LONG_EXAMPLES,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Stage.generate, Stage.shrink],
            ),
        )
    finally:
        loop.run(stack.aclose())
