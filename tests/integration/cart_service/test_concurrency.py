"""What several do at once comes out as if one had done it after the other."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import asyncpg
import pytest

from backend.cart_service.app.services import units
from backend.shared import ConflictError, NotFoundError, Side, UnitOfWork
from tests.integration.cart_service.support import LAMP, MUG, Api, Shop

PRICE = Decimal("9.99")


async def test_two_creates_make_one_cart(api: Api) -> None:
    answers = await asyncio.gather(*(api.ann.post("/carts") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    await api.shop.carried()


async def test_our_own_replicas_wait_for_each_other_and_no_database_has_to_refuse(shop: Shop) -> None:
    results = await asyncio.gather(*(shop.manager.create_cart("ann") for _ in range(8)))
    assert sum(result.unwrap().is_new for result in results) == 1
    assert {count.outcome for count in shop.manager.metrics_snapshot().operations} <= {"succeeded", "pending"}


async def test_the_same_product_added_at_once_adds_up_exactly(api: Api) -> None:
    carts = await asyncio.gather(*(api.add(MUG, n) for n in range(1, 11)), *(api.add(LAMP) for _ in range(5)))
    assert len({cart["id"] for cart in carts}) == 1
    cart = await api.cart()
    assert sorted((item["product_id"], item["quantity"]) for item in cart["items"]) == [(LAMP, 5), (MUG, 55)]
    await api.shop.carried()


async def test_the_limit_of_a_line_holds_when_many_add_at_once(shop: Shop) -> None:
    async def add() -> bool:
        try:
            added = await shop.manager.add_item("ann", product_id=MUG, quantity=3000, unit_price=PRICE)
        except ConflictError:
            return False
        return added.success

    assert sum(await asyncio.gather(*(add() for _ in range(6)))) == 3
    await shop.carried()


async def test_a_wish_moved_twice_at_once_is_moved_once(api: Api) -> None:
    await api.ann.post("/wishlist", json={"product_id": MUG})
    answers = await asyncio.gather(*(api.ann.post(f"/wishlist/{MUG}/move-to-cart") for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]
    assert (await api.cart())["quantity"] == 1
    await api.shop.carried()


async def test_wishing_twice_at_once_makes_one_wish(api: Api) -> None:
    answers = await asyncio.gather(*(api.ann.post("/wishlist", json={"product_id": MUG}) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    await api.shop.carried()


async def test_the_limit_of_a_wish_list_holds_when_many_wish_at_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "MAX_WISHES_PER_USER", 2)
    wishes = (shop.manager.add_wish("ann", product_id=number) for number in range(1, 9))
    outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 6
    await shop.carried()


async def test_adding_and_clearing_at_once_loses_no_line_and_keeps_none_twice(api: Api) -> None:
    await api.add(LAMP)
    await asyncio.gather(*(api.add(MUG) for _ in range(5)), api.ann.delete("/carts/current/items"))
    cart = await api.cart()
    assert len({item["product_id"] for item in cart["items"]}) == len(cart["items"])
    await api.shop.carried()


async def test_a_foreign_program_that_opens_the_cart_first_wins(shop: Shop) -> None:
    """The cart is looked for before the other program commits, and made after: the unique index refuses it."""
    on_legacy = shop.manager.phase.policy.authoritative is Side.LEGACY
    url = shop.databases.legacy_url if on_legacy else shop.databases.new_url
    foreign = await asyncpg.connect(url)
    try:
        transaction = foreign.transaction()
        await transaction.start()
        cart_id = await foreign.fetchval(
            "INSERT INTO carts (cust, state, opened) VALUES ('ann', 'O', '2020-01-01 00:00:00') RETURNING cart_no"
            if on_legacy
            else "INSERT INTO carts (user_id, status, created_at) VALUES ('ann', 'open', now()) RETURNING id"
        )
        ours = asyncio.create_task(shop.manager.add_item("ann", product_id=MUG, quantity=1, unit_price=PRICE))
        await _until_blocked(url)
        await transaction.commit()
    finally:
        await foreign.close()
    cart = (await ours).unwrap()
    assert (cart.id, cart.is_new, len(cart.items)) == (cart_id, False, 1)
    await shop.carried()


async def test_a_cart_that_is_closed_while_we_wait_for_it_gets_no_more(shop: Shop) -> None:
    added = await shop.manager.add_item("ann", product_id=LAMP, quantity=1, unit_price=PRICE)
    first = added.unwrap()
    on_legacy = shop.manager.phase.policy.authoritative is Side.LEGACY
    url = shop.databases.legacy_url if on_legacy else shop.databases.new_url
    foreign = await asyncpg.connect(url)
    try:
        transaction = foreign.transaction()
        await transaction.start()
        await foreign.execute(
            "UPDATE carts SET state = 'C'" if on_legacy else "UPDATE carts SET status = 'closed'"
        )
        adding = shop.manager.add_item("ann", product_id=MUG, quantity=1, unit_price=PRICE)
        changing = shop.manager.change_quantity("ann", item_id=first.items[0].id, quantity=2)
        tasks = [asyncio.create_task(adding), asyncio.create_task(changing)]
        await _until_blocked(url, count=2)
        await transaction.commit()
    finally:
        await foreign.close()
    cart = (await tasks[0]).unwrap()
    assert cart.is_new
    assert cart.id != first.id
    with pytest.raises(NotFoundError):
        await tasks[1]
    await shop.carried()


async def test_all_of_a_batch_or_nothing(shop: Shop) -> None:
    good = units.add_item("ann", product_id=MUG, quantity=1, unit_price=PRICE)

    async def bad(_: UnitOfWork) -> None:
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        await shop.manager.batch([("add_item", good), ("bad", bad)])
    assert await shop.both(legacy="SELECT 1 FROM carts", new="SELECT 1 FROM carts") == []
    both = await shop.manager.batch([("add_item", good), ("add_item", good)])
    assert both.unwrap()[1].items[0].quantity == 2
    await shop.carried()


async def _until_blocked(url: str, *, count: int = 1) -> None:
    """Until `count` backends of this database wait for a lock."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(5):
            while True:
                waiting = await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND wait_event_type = 'Lock'"
                )
                if waiting >= count:
                    return
                await asyncio.sleep(0.01)
    finally:
        await connection.close()
