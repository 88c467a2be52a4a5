"""Searching products and walking through pages, the same whichever side is authoritative."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest

from backend.shared import Phase
from backend.shared.api.pagination import encode_cursor
from tests.integration.product_service.support import BOTH_AUTHORITIES, Api, assert_problem

pytestmark = BOTH_AUTHORITIES


async def skus(client: httpx.AsyncClient, **filters: Any) -> list[str]:
    response = await client.get("/products", params=filters)
    assert response.status_code == 200, response.text
    return [item["sku"] for item in response.json()["items"]]


@pytest.fixture
async def stocked(api: Api) -> Api:
    kitchen = await api.shop.add_path("Home/Kitchen")
    mugs = await api.shop.add_path("Home/Kitchen/Mugs")
    kitchenware = await api.shop.add_path("Home/Kitchenware")
    goods: list[dict[str, Any]] = [
        {"sku": "A1", "name": "Red mug", "price": Decimal("3.50"), "category_id": mugs, "quantity": 4},
        {"sku": "a1", "name": "RED MUG 100%", "price": Decimal("3.5"), "category_id": mugs},
        {"sku": "B_2", "name": "Whisk", "price": Decimal("12.00"), "category_id": kitchen, "quantity": 1},
        {"sku": "B-2", "name": "Weiße Schüssel", "price": Decimal("120.00"), "category_id": kitchenware},
        {"sku": "C3", "name": None, "price": Decimal("0.00")},
    ]
    for good in goods:
        await api.shop.add_product(**good)
    await api.admin.delete("/products/3")
    return api


async def test_filters(stocked: Api, phase: Phase) -> None:
    get = stocked.anyone
    assert await skus(get) == ["A1", "a1", "B_2", "B-2", "C3"]
    assert await skus(get, q="mug") == ["A1", "a1"]
    assert await skus(get, q="  MUG red ") == ["A1", "a1"]
    assert await skus(get, q="a1") == ["A1", "a1"]
    assert await skus(get, q="100%") == ["a1"]
    assert await skus(get, q="%") == ["a1"]
    assert await skus(get, q="_") == ["B_2"]
    assert await skus(get, q="/") == []
    assert await skus(get, q="SCHÜSSEL") == ["B-2"]
    assert await skus(get, q="mug whisk") == []
    assert await skus(get, category_id=1) == ["A1", "a1", "B_2", "B-2"]
    assert await skus(get, category_id=2) == ["A1", "a1", "B_2"]
    assert await skus(get, category_id=3) == ["A1", "a1"]
    assert await skus(get, category_id=99) == []
    assert await skus(get, price_min="3.5", price_max="12") == ["A1", "a1", "B_2"]
    assert await skus(get, price_max="0") == ["C3"]
    assert await skus(get, price_min="5", price_max="4") == []
    assert await skus(get, active="true") == ["A1", "a1", "B-2", "C3"]
    assert await skus(get, active="false") == ["B_2"]
    assert await skus(get, in_stock="true") == ["A1", "B_2"]
    assert await skus(get, in_stock="false") == ["a1", "B-2", "C3"]
    assert await skus(get, q="mug", in_stock="true", category_id=2, price_min="1", active="true") == ["A1"]


async def test_orders_are_the_same_on_every_server(stocked: Api, phase: Phase) -> None:
    get = stocked.anyone
    assert await skus(get, sort="-id") == ["C3", "B-2", "B_2", "a1", "A1"]
    assert await skus(get, sort="price") == ["C3", "A1", "a1", "B_2", "B-2"]
    assert await skus(get, sort="-price") == ["B-2", "B_2", "a1", "A1", "C3"]
    assert await skus(get, sort="name") == ["C3", "a1", "A1", "B-2", "B_2"]
    assert await skus(get, sort="-name") == ["B_2", "B-2", "A1", "a1", "C3"]


async def walk(client: httpx.AsyncClient, **filters: Any) -> list[str]:
    """The SKUs of all pages."""
    walked: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/products", params={**filters, **cursor})).json()
        walked += [item["sku"] for item in page["items"]]
        if page["next_cursor"] is None:
            return walked
        cursor = {"cursor": page["next_cursor"]}


async def test_pages_neither_overlap_nor_leave_out(api: Api, phase: Phase) -> None:
    for n in range(11):
        await api.shop.add_product(f"S{n}", name=[None, "", "Same", "ß"][n % 4], price=Decimal(n % 3))
    for sort in ("id", "-id", "price", "-price", "name", "-name"):
        whole = await skus(api.anyone, sort=sort, limit=200)
        assert len(whole) == 11
        for limit in (1, 2, 11):
            assert await walk(api.anyone, sort=sort, limit=limit) == whole


async def test_a_page_goes_on_where_it_stopped_after_rows_came_and_went(api: Api, phase: Phase) -> None:
    for n in range(6):
        await api.shop.add_product(f"S{n}", price=Decimal(n))
    first = (await api.anyone.get("/products", params={"sort": "price", "limit": 3})).json()
    await api.shop.add_product("cheap", price=Decimal(0))
    await api.admin.patch("/products/3", json={"price": "2.50"})
    rest = await skus(api.anyone, sort="price", cursor=first["next_cursor"])
    assert rest == ["S2", "S3", "S4", "S5"]


async def test_a_cursor_survives_the_other_authority(api: Api, phase: Phase) -> None:
    """The cursor holds nothing that only one side knows."""
    for n in range(3):
        await api.shop.add_product(f"S{n}", name=f"n{n}")
    cursor = encode_cursor(("n0", 1), listing="products:name")
    assert await skus(api.anyone, sort="name", cursor=cursor) == ["S1", "S2"]


async def test_bad_queries_are_refused(api: Api, phase: Phase) -> None:
    await api.shop.add_product("A")
    forged = [
        encode_cursor((Decimal("1e25"), 2**60), listing="products:price"),
        encode_cursor((Decimal("-1e-25"), -5), listing="products:price"),
    ]
    for cursor in forged:
        response = await api.anyone.get("/products", params={"sort": "price", "cursor": cursor})
        assert response.status_code in {200, 422}, response.text
    bad: list[dict[str, Any]] = [
        {"q": "\x00"},
        {"q": "x" * 101},
        {"category_id": 0},
        {"category_id": 2**31},
        {"category_id": "x"},
        {"price_min": "-1"},
        {"price_max": "NaN"},
        {"price_max": "1.234"},
        {"price_max": "1e5"},
        {"price_min": ""},
        {"active": "maybe"},
        {"in_stock": "2"},
        {"sort": "weight"},
        {"limit": 0},
        {"limit": 201},
        {"cursor": "?"},
        {"cursor": encode_cursor((1,), listing="products:id"), "sort": "price"},
        {"cursor": encode_cursor(("x\x00", 1), listing="products:name"), "sort": "name"},
        {"cursor": encode_cursor((2**70,), listing="products:id")},
    ]
    for params in bad:
        response = await api.anyone.get("/products", params=params)
        assert response.status_code == 422, (params, response.text)
        assert_problem(response, 422)
