"""Stock: what many at once do to it adds up, and it never falls below zero."""

from __future__ import annotations

import asyncio

import pytest

from backend.product_service.app.services import units
from backend.shared import ConflictError, Phase
from tests.integration.product_service.support import BOTH_AUTHORITIES, Api, assert_problem

pytestmark = BOTH_AUTHORITIES


async def test_setting_and_adjusting(api: Api, phase: Phase) -> None:
    url = f"/products/{await api.shop.add_product('A', quantity=2)}/stock"
    assert (await api.anyone.get(url)).json() == {"product_id": 1, "quantity": 2}
    assert (await api.admin.put(url, json={"quantity": 1_000_000_000})).json()["quantity"] == 1_000_000_000
    assert_problem(await api.admin.post(f"{url}/adjust", json={"delta": 1}), 409)
    assert (await api.admin.put(url, json={"quantity": 10})).json()["quantity"] == 10
    assert (await api.admin.post(f"{url}/adjust", json={"delta": -10})).json()["quantity"] == 0
    assert_problem(await api.admin.post(f"{url}/adjust", json={"delta": -1}), 409)
    assert (await api.admin.post(f"{url}/adjust", json={"delta": 0})).json()["quantity"] == 0
    assert (await api.admin.post(f"{url}/adjust", json={"delta": 3})).json()["quantity"] == 3
    assert (await api.anyone.get("/products/1")).json()["updated_at"] is None
    await api.shop.carried()


async def test_bad_amounts_are_refused(api: Api, phase: Phase) -> None:
    url = f"/products/{await api.shop.add_product('A', quantity=2)}/stock"
    for quantity in (-1, 1_000_000_001, 10**30, 1.5, "1", None, True):
        assert_problem(await api.admin.put(url, json={"quantity": quantity}), 422)
    for delta in (-1_000_000_001, 1_000_000_001, 10**30, 0.5, "1", None, True):
        assert_problem(await api.admin.post(f"{url}/adjust", json={"delta": delta}), 422)
    assert_problem(await api.admin.put(url, json={}), 422)
    assert (await api.anyone.get(url)).json()["quantity"] == 2


async def test_fifty_at_once_sell_no_more_than_there_are(api: Api, phase: Phase) -> None:
    url = f"/products/{await api.shop.add_product('A', quantity=60)}/stock"

    async def take(amount: int) -> int:
        response = await api.admin.post(f"{url}/adjust", json={"delta": -amount})
        assert response.status_code in {200, 409}, response.text
        if response.status_code == 200:
            assert response.json()["quantity"] >= 0
            return amount
        return 0

    sold = sum(await asyncio.gather(*(take(1 + n % 4) for n in range(50))))
    left = (await api.anyone.get(url)).json()["quantity"]
    assert left == 60 - sold
    assert 0 <= left < 4, "something was refused although there was enough of it"
    await api.shop.carried()


async def test_fifty_at_once_add_up(api: Api, phase: Phase) -> None:
    product_id = await api.shop.add_product("A", quantity=1000)
    deltas = [n if n % 2 else -n for n in range(50)]
    results = await asyncio.gather(
        *(api.shop.manager.adjust_stock(product_id, delta) for delta in deltas), return_exceptions=True
    )
    assert not [result for result in results if isinstance(result, BaseException)]
    assert (await api.anyone.get(f"/products/{product_id}/stock")).json()["quantity"] == 1000 + sum(deltas)
    await api.shop.carried()


@pytest.mark.parametrize("async_legacy", [True, False], ids=["asynchronous", "synchronous"])
async def test_a_batch_is_all_or_nothing(api: Api, phase: Phase, *, async_legacy: bool) -> None:
    await api.admin.patch("/dual-write/config", json={"async_legacy": async_legacy})
    first = await api.shop.add_product("A", quantity=5)
    second = await api.shop.add_product("B", quantity=1)
    batch = [
        ("adjust_stock", units.adjust_stock(first, -2)),
        ("adjust_stock", units.adjust_stock(second, -2)),
    ]
    with pytest.raises(ConflictError):
        await api.shop.manager.batch(batch)
    assert (await api.anyone.get(f"/products/{first}/stock")).json()["quantity"] == 5
    done = await api.shop.manager.batch(
        [("a", units.adjust_stock(first, -2)), ("b", units.adjust_stock(second, -1))]
    )
    assert [stock.quantity for stock in done.unwrap()] == [3, 0]
    await api.shop.carried()
