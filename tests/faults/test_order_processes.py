"""The services of an order killed with `kill -9`, and the broker: money, stock, orders and carts agree in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from backend.demo.orders.stack import OrderStack
from backend.messages.orders import SagaStyle
from tests.support.commit_hold import held_commits
from tests.support.order_processes import SETTINGS, OrderProcesses, lines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(150),
    pytest.mark.xdist_group("order-processes"),
    pytest.mark.asyncio(loop_scope="module"),
]
FINAL = ("completed", "compensated")
PARTICIPANTS = ("payment", "product", "cart")
ORDER_SERVICES = ("order", "order-orchestrated")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(
    worker_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OrderProcesses]:
    stack = OrderStack(
        tmp_path_factory.mktemp("orders"),
        data=worker_directory / "orders",
        settings=SETTINGS,
        say=lambda _: None,
    )
    async with AsyncExitStack() as after:
        after.callback(stack.remove)
        after.push_async_callback(stack.stop)
        found = OrderProcesses(stack)
        after.push_async_callback(found.client.aclose)
        await found.start(seed=7)
        yield found


@pytest.mark.parametrize("committed", [False, True], ids=["before their commit", "after their commit"])
async def test_participants_are_killed(shop: OrderProcesses, *, committed: bool) -> None:
    """After its commit one has neither told anybody nor acknowledged what it took in: that comes again, and is known."""
    legacy, payments = shop.stack.env["LEGACY_DATABASE_URL"], shop.stack.services.url("payment")
    first, second = SagaStyle if committed else reversed(SagaStyle)
    async with (
        held_commits(legacy, "tandem_product.stock_reservations", when="NEW.state = 'reserved'") as reserving,
        held_commits(legacy, "tandem_cart.cart_orders", when="NEW.state = 'placed'") as closing,
    ):
        orders = [await shop.order(first, await shop.customer())]
        await asyncio.gather(reserving.reached(), closing.reached())
        async with held_commits(payments, "payments", when="NEW.state = 'authorised'") as authorising:
            orders.append(await shop.order(second, await shop.customer()))
            await authorising.reached()
            for name in PARTICIPANTS:
                shop.stack.processes[name].kill9()
            for hold in (reserving, closing, authorising):
                if not committed:
                    await hold.roll_back()
                await hold.let_go()
    await asyncio.gather(*(shop.stack.processes[name].start() for name in PARTICIPANTS))
    await shop.until(orders, *FINAL)
    assert await shop.disagreements() == []


async def test_the_order_service_is_killed_between_commit_and_delivery(shop: OrderProcesses) -> None:
    """Nobody has told the customers: they ask again under the same keys."""
    users = {style: await shop.customer() for style in SagaStyle}
    legacy = shop.stack.env["LEGACY_DATABASE_URL"]
    async with held_commits(legacy, "tandem_order.sagas", when="NEW.state = 'running'") as hold:
        asking = [asyncio.ensure_future(shop.order(style, user)) for style, user in users.items()]
        await hold.reached(count=len(asking))
        for name in ORDER_SERVICES:
            shop.stack.processes[name].kill9()
        await hold.let_go()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, httpx.HTTPError) for answer in answers)
    await asyncio.gather(*(shop.stack.processes[name].start() for name in ORDER_SERVICES))
    orders = [await shop.order(style, user) for style, user in users.items()]
    await shop.until(orders, "completed")
    assert await shop.disagreements() == []


async def test_the_broker_hangs_and_is_killed_with_messages_on_their_way(shop: OrderProcesses) -> None:
    """What is ordered meanwhile waits, and nothing is lost of what it has acknowledged."""
    users = [(style, await shop.customer()) for style in SagaStyle for _ in range(3)]
    first, then, last = users[::3], users[1::3], users[2::3]
    orders = [await shop.order(style, user) for style, user in first]
    await asyncio.to_thread(shop.stack.broker.suspend)
    orders += [await shop.order(style, user) for style, user in then]
    await asyncio.to_thread(shop.stack.broker.kill9)
    orders += [await shop.order(style, user) for style, user in last]
    await asyncio.to_thread(shop.stack.broker.start)
    await shop.until(orders, *FINAL)
    assert await shop.disagreements() == []


async def test_what_needs_review_is_seen_tried_again_and_settled(shop: OrderProcesses) -> None:
    """One customer gets her money once the provider has got over it; the other keeps what she has bought."""
    refused = await _refused_refunds(shop)
    listed = shop.tandem("saga", "list", "--json")
    assert listed.code == 1, listed.err
    found = {item["order_id"]: item for item in lines(listed)}
    for style, (_, number) in refused.items():
        assert (found[number]["state"], found[number]["style"]) == ("needs_review", style.value)
        assert 0 <= found[number]["waits_seconds"] <= found[number]["age_seconds"] < 150
    (user, tried), (_, kept) = refused.values()
    shown = shop.tandem("saga", "show", str(tried))
    assert shown.code == 0
    assert f"order {tried} of {user}: cancelling" in shown.out
    assert "payment: the provider was told to decline" in shown.out
    assert shop.tandem("saga", "retry", str(tried)).code == 0
    settled = shop.tandem("saga", "settle", str(kept), "--as", "completed", "--note", "she keeps it")
    assert (settled.code, settled.out) == (0, f"order {kept}: completed\n")
    await shop.until([tried], "compensated")
    assert shop.tandem("saga", "list").code == 0
    assert await shop.disagreements() == []


async def _refused_refunds(shop: OrderProcesses) -> dict[SagaStyle, tuple[str, int]]:
    """A customer of each form whose money could not be given back, and her order."""
    users = {style: await shop.customer() for style in SagaStyle}
    orders = {style: await shop.order(style, user) for style, user in users.items()}
    await shop.until(list(orders.values()), "completed")
    for style, user in users.items():
        await shop.fault(user, "refund", "decline", times=1)
        await shop.cancel(user, orders[style])
    await shop.until(list(orders.values()), "needs_review")
    return {style: (user, orders[style]) for style, user in users.items()}
