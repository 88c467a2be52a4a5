"""The cache of users: what tokens say is kept, the latest wins, and nobody waits for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from backend.cart_service.app.entities import Customer
from backend.cart_service.app.services import customer_service
from backend.shared import Phase
from backend.shared.testing.clusters import Cluster
from tests.integration.cart_service.support import Api, Shop, assert_problem, token

CACHE = "SELECT user_id, display_name, is_active FROM user_cache ORDER BY 1"
EARLIER = timedelta(minutes=5)


async def test_a_newer_token_is_news_and_an_older_one_is_not(api: Api) -> None:
    old = token(api.issuer, "eve", name="Eve Old", age=EARLIER)
    new = token(api.issuer, "eve", name="Eve New")
    for headers, shown in ((old, "Eve Old"), (new, "Eve New"), (old, "Eve New")):
        await api.anyone.post("/carts", headers=headers)
        api.app.state.services.customers._memory.clear()
        customer = (await api.anyone.get("/carts/current", headers=headers)).json()["customer"]
        assert (customer["user_id"], customer["display_name"], customer["is_active"]) == ("eve", shown, True)
    assert await api.shop.new(CACHE) == [("eve", "Eve New", True)]


async def test_a_user_whose_cached_state_is_inactive_is_refused(api: Api) -> None:
    await api.ann.post("/carts")
    assert (await api.cart())["customer"]["display_name"] == "Ann"
    gone = token(api.issuer, "ann", is_active=False)
    assert_problem(await api.anyone.get("/carts/current", headers=gone), 403)
    # A token that was issued no later than that one opens nothing any more, and a later one does.
    assert_problem(await api.ann.get("/carts/current"), 403)
    assert_problem(await api.ann.post("/wishlist", json={"product_id": 1}), 403)
    assert (await api.admin.get("/carts/current", params={"user_id": "ann"})).status_code == 200
    back = token(api.issuer, "ann", age=-timedelta(seconds=5))
    assert (await api.anyone.get("/carts/current", headers=back)).status_code == 200


async def test_a_state_that_another_replica_has_learnt_counts(api: Api) -> None:
    await api.ann.post("/carts")
    await api.shop.new("UPDATE user_cache SET is_active = false")
    assert (await api.ann.get("/carts/current")).status_code == 200  # out of this process's memory
    api.app.state.services.customers._memory.clear()
    assert_problem(await api.ann.get("/carts/current"), 403)


async def test_without_the_new_side_the_token_has_to_do(api: Api) -> None:
    await api.shop.new("DROP TABLE user_cache")
    assert (await api.ann.post("/carts")).status_code == 201
    assert (await api.cart())["customer"]["display_name"] == "Ann"
    gone = token(api.issuer, "ann", is_active=False)
    assert_problem(await api.anyone.get("/carts/current", headers=gone), 403)


@pytest.mark.parametrize("phase", [Phase.DUALWRITE])
async def test_with_the_new_server_down_shopping_goes_on(api: Api, services_cluster: Cluster) -> None:
    await api.add()
    await asyncio.to_thread(services_cluster.stop, "immediate")
    try:
        async with asyncio.timeout(10):
            for _ in range(5):
                await api.add()
            assert (await api.bob.post("/carts")).status_code == 201
            assert (await api.cart())["quantity"] == 6
    finally:
        await asyncio.to_thread(services_cluster.start)
    await api.shop.carried()


async def test_a_new_side_that_hangs_holds_nobody_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customer_service, "WAIT_SECONDS", 0.1)
    service = customer_service.CustomerService(shop.manager)
    told = Customer(user_id="ann", display_name="Ann", is_active=True, refreshed_at=datetime.now(UTC))
    async with shop.manager.new_engine.begin() as connection:
        await connection.exec_driver_sql("LOCK TABLE user_cache IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(2):
            for _ in range(50):
                assert await service.see(told) == told
                assert await service.find("ann") is None
    await service.aclose()


async def test_memory_is_bounded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customer_service, "MAX_REMEMBERED", 2)
    service = customer_service.CustomerService(shop.manager)
    for name in ("a", "b", "c", "a"):
        told = Customer(user_id=name, display_name=None, is_active=True, refreshed_at=datetime.now(UTC))
        await service.see(told)
    assert list(service._memory) == ["c", "a"]
    assert [row[0] for row in await shop.new(CACHE)] == ["a", "b", "c"]
