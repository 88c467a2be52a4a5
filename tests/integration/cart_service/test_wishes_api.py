"""Wish lists over HTTP, the same whichever side is authoritative."""

from __future__ import annotations

from typing import Any

import pytest

from backend.cart_service.app.services import units
from backend.shared.api.pagination import encode_cursor
from tests.integration.cart_service.support import GONE, LAMP, MUG, REFUND, Api, assert_problem


async def wish(api: Api, product_id: int) -> dict[str, Any]:
    answer = await api.ann.post("/wishlist", json={"product_id": product_id})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def wished(api: Api) -> list[int]:
    return [item["product_id"] for item in (await api.ann.get("/wishlist")).json()["items"]]


async def test_a_wish_goes_through_its_life(api: Api) -> None:
    assert (await api.ann.get("/wishlist")).json() == {"items": [], "next_cursor": None}
    made = await wish(api, MUG)
    assert made["product_id"] == MUG
    again = await api.ann.post("/wishlist", json={"product_id": MUG})
    assert (again.status_code, again.json()) == (200, made)
    await wish(api, LAMP)
    assert await wished(api) == [LAMP, MUG]
    assert (await api.bob.get("/wishlist")).json()["items"] == []
    await api.shop.carried()

    assert_problem(await api.bob.delete(f"/wishlist/{MUG}"), 404)
    assert (await api.ann.delete(f"/wishlist/{MUG}")).status_code == 204
    assert_problem(await api.ann.delete(f"/wishlist/{MUG}"), 404)
    assert await wished(api) == [LAMP]
    await api.shop.carried()


async def test_a_wish_moves_into_the_cart(api: Api) -> None:
    await wish(api, MUG)
    moved = await api.ann.post(f"/wishlist/{MUG}/move-to-cart")
    assert moved.status_code == 200, moved.text
    (line,) = moved.json()["items"]
    assert (line["product_id"], line["quantity"], line["unit_price"]) == (MUG, 1, "9.99")
    assert await wished(api) == []
    assert (await api.cart())["items"] == [line]
    assert_problem(await api.ann.post(f"/wishlist/{MUG}/move-to-cart"), 404)
    await wish(api, MUG)
    assert (await api.ann.post(f"/wishlist/{MUG}/move-to-cart")).json()["quantity"] == 2
    await api.shop.carried()


async def test_a_move_that_is_refused_leaves_both_as_they_were(api: Api) -> None:
    await api.add(MUG, 10_000)
    await wish(api, MUG)
    assert_problem(await api.ann.post(f"/wishlist/{MUG}/move-to-cart"), 409)
    assert await wished(api) == [MUG]
    assert (await api.cart())["quantity"] == 10_000
    assert_problem(await api.bob.post(f"/wishlist/{MUG}/move-to-cart"), 404)
    assert_problem(await api.bob.get("/carts/current"), 404)
    api.catalog.away = True
    assert_problem(await api.ann.post(f"/wishlist/{MUG}/move-to-cart"), 503)
    assert await wished(api) == [MUG]
    assert (await api.ann.delete(f"/wishlist/{MUG}")).status_code == 204


async def test_pages_follow_each_other(api: Api) -> None:
    await api.shop.both(
        legacy="INSERT INTO wish (cust, prod_no, added) SELECT CASE n % 3 WHEN 0 THEN 'bob' ELSE 'ann' END, n, "
        "'2020-01-01' FROM generate_series(1, 12) AS n",
        new="INSERT INTO wish_items (user_id, product_id, added_at) SELECT CASE n % 3 WHEN 0 THEN 'bob' ELSE 'ann' END, "
        "n, '2020-01-01' FROM generate_series(1, 12) AS n",
    )
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = (await api.ann.get("/wishlist", params=query)).json()
        seen += [item["product_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == [11, 10, 8, 7, 5, 4, 2, 1]
    await api.shop.carried()


async def test_bad_input_is_refused(api: Api) -> None:
    bad_ids: list[Any] = [0, -1, 2**31, 10**30, "1", 1.5, True, None, []]
    for bad in bad_ids:
        assert_problem(await api.ann.post("/wishlist", json={"product_id": bad}), 422)
    for body in (b"", b"{", b"[]", b"{}", b'{"product_id": 1, "\\ud800": 1}', b'{"product_id": "\\u0000"}'):
        answer = await api.ann.post("/wishlist", content=body, headers={"Content-Type": "application/json"})
        assert_problem(answer, 422)
    for path in ("0", "-1", "2147483648", "x", "%00"):
        assert_problem(await api.ann.delete(f"/wishlist/{path}"), 422)
        assert_problem(await api.ann.post(f"/wishlist/{path}/move-to-cart"), 422)
    cursors = ["x", "é", encode_cursor([1], listing="other"), encode_cursor(["1"], listing="wishlist")]
    for cursor in cursors:
        assert_problem(await api.ann.get("/wishlist", params={"cursor": cursor}), 422)
    for number in (-(2**62), 0, 2**62):
        cursor = encode_cursor([number], listing="wishlist")
        assert (await api.ann.get("/wishlist", params={"cursor": cursor})).status_code == 200
    for limit in (0, -1, 201, "x"):
        assert_problem(await api.ann.get("/wishlist", params={"limit": limit}), 422)
    assert_problem(await api.ann.get("/wishlist", params={"user_id": "bob"}), 403)
    assert_problem(await api.ann.post("/wishlist", json={"product_id": 5}), 404)
    for product_id in (GONE, REFUND):
        assert_problem(await api.ann.post("/wishlist", json={"product_id": product_id}), 409)
    assert await wished(api) == []


async def test_a_list_has_a_limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "MAX_WISHES_PER_USER", 1)
    await wish(api, MUG)
    assert_problem(await api.ann.post("/wishlist", json={"product_id": LAMP}), 409)
    assert (await api.ann.post("/wishlist", json={"product_id": MUG})).status_code == 200
