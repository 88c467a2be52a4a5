"""Products over HTTP, the same whichever side is authoritative."""

from __future__ import annotations

import asyncio
from typing import Any

from backend.shared import Phase
from tests.integration.product_service.support import BOTH_AUTHORITIES, Api, assert_problem

pytestmark = BOTH_AUTHORITIES

MUG = {"sku": "22423", "name": "REGENCY CAKESTAND 3 TIER", "price": "12.75", "quantity": 5}
BAD_VALUES: list[dict[str, Any]] = [
    {"price": "-0.01"},
    {"price": -1},
    {"price": "NaN"},
    {"price": "Infinity"},
    {"price": "1e3"},
    {"price": "1.005"},
    {"price": 1.005},
    {"price": 0.1 + 0.2},
    {"price": "10000000.00"},
    {"price": 10_000_000},
    {"price": "9" * 5000},
    {"price": 10**400},
    {"price": "٣"},
    {"price": ""},
    {"price": "1\n"},
    {"price": True},
    {"price": None},
    {"price": ["1"]},
    {"sku": ""},
    {"sku": " A"},
    {"sku": "A\t"},
    {"sku": "A\n"},
    {"sku": "A\x00B"},
    {"sku": "A" * 21},
    {"sku": 5},
    {"sku": None},
    {"name": "A\x00B"},
    {"name": "A" * 201},
    {"name": 7},
    {"category_id": 0},
    {"category_id": -1},
    {"category_id": 2**31},
    {"category_id": 10**30},
    {"category_id": "1"},
    {"category_id": 1.5},
    {"quantity": 1e300},
    {"quantity": -1},
    {"quantity": 1_000_000_001},
    {"quantity": "5"},
    {"quantity": None},
    {"quantity": True},
    {"id": 5},
    {"is_active": False},
]
BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b'{"sku": "A", "price": NaN, "name": "x"}',
    b'{"sku": "A", "price": Infinity, "name": "x"}',
    b'{"sku": "A", "price": 1e400, "name": "x"}',
    b'{"sku": "\\ud800", "price": "1", "name": "x"}',
    b'{"sku": "A", "price": "1", "name": "\\udfff"}',
    b'{"\\ud800": 1}',
    b"\xff\xfe",
    b"[" * 10_000,
    b'{"sku": "A", "name": "x", "price": ' + b"9" * 5000 + b"}",
]


async def test_a_product_goes_through_its_life(api: Api, phase: Phase) -> None:
    made = await api.admin.post("/products", json=MUG)
    assert made.status_code == 201, made.text
    product = made.json()
    assert product | MUG == product
    assert product["is_active"] is True
    assert product["category_id"] is None
    assert product["updated_at"] is None
    assert made.headers["Location"] == f"/products/{product['id']}"
    url = f"/products/{product['id']}"
    assert (await api.anyone.get(url)).json() == product

    category = await api.shop.add_path("Home/Kitchen")
    changed = await api.admin.patch(url, json={"price": 13, "category_id": category, "name": " New  "})
    assert changed.status_code == 200, changed.text
    expected = product | {"price": "13.00", "category_id": category, "name": " New  "}
    assert changed.json() | {"updated_at": None} == expected
    assert changed.json()["updated_at"] is not None
    assert (await api.anyone.get(url)).json() == changed.json()

    bare = await api.admin.patch(url, json={"category_id": None, "name": None})
    assert (bare.json()["category_id"], bare.json()["name"], bare.json()["price"]) == (None, None, "13.00")
    await api.shop.carried()

    for _ in range(2):
        assert (await api.admin.delete(url)).status_code == 204
    assert_problem(await api.anyone.get(url), 404)
    assert_problem(await api.anyone.get(f"{url}/stock"), 404)
    assert_problem(await api.admin.patch(url, json={"price": 1}), 404)
    # Goods come back from customers whether or not the shop goes on selling them.
    assert (await api.admin.put(f"{url}/stock", json={"quantity": 1})).json()["quantity"] == 1
    assert (await api.admin.post(f"{url}/stock/adjust", json={"delta": 1})).json()["quantity"] == 2
    (shown,) = (await api.anyone.get("/products/by-ids", params={"ids": str(product["id"])})).json()["items"]
    assert shown["is_active"] is False

    for _ in range(2):
        revived = await api.admin.post(f"{url}/activate")
        assert revived.status_code == 200
        assert revived.json()["is_active"] is True
    await api.shop.carried()


async def test_the_id_comes_from_the_authoritative_side_and_stays(api: Api, phase: Phase) -> None:
    ids = [(await api.admin.post("/products", json=MUG | {"sku": f"S{n}"})).json()["id"] for n in range(3)]
    assert ids == [1, 2, 3]
    await api.shop.carried()


async def test_writing_is_for_admins_and_services(api: Api, phase: Phase) -> None:
    product_id = await api.shop.add_product("A")
    url = f"/products/{product_id}"
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/products", MUG),
        ("PATCH", url, {"price": 1}),
        ("PUT", f"{url}/stock", {"quantity": 1}),
        ("POST", f"{url}/stock/adjust", {"delta": 1}),
        ("DELETE", url, None),
        ("POST", f"{url}/activate", None),
        ("POST", "/categories", {"name": "A"}),
        ("PATCH", "/categories/1", {"name": "A"}),
        ("DELETE", "/categories/1", None),
        ("GET", "/dual-write/status", None),
    ]
    for method, path, body in calls:
        assert_problem(await api.anyone.request(method, path, json=body), 401)
        assert_problem(await api.user.request(method, path, json=body), 403)
    assert (await api.service.post("/products", json=MUG)).status_code == 201
    assert (await api.service.post(f"{url}/stock/adjust", json={"delta": 3})).json()["quantity"] == 3
    status = (await api.admin.get("/dual-write/status")).json()
    assert status["phase"] == phase.value
    assert {"category", "product", "reservation", "event", "inbox", "dead_letter"} == set(status["entities"])


async def test_bad_bodies_are_refused(api: Api, phase: Phase) -> None:
    for changes in BAD_VALUES:
        response = await api.admin.post("/products", json=MUG | changes)
        assert response.status_code == 422, (changes, response.text)
        assert_problem(response, 422)
    assert (await api.anyone.get("/products")).json()["items"] == []


async def test_bodies_that_are_no_such_json_are_refused(api: Api, phase: Phase) -> None:
    for body in BAD_BODIES:
        response = await api.admin.post(
            "/products", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code in {400, 422}, (body[:40], response.text)
        assert_problem(response, response.status_code)


async def test_clashes_are_told(api: Api, phase: Phase) -> None:
    assert (await api.admin.post("/products", json=MUG)).status_code == 201
    assert_problem(await api.admin.post("/products", json=MUG), 409)
    # Letter case counts in a stock code.
    other = (await api.admin.post("/products", json=MUG | {"sku": "85123a"})).json()["id"]
    assert (await api.admin.post("/products", json=MUG | {"sku": "85123A"})).status_code == 201
    assert_problem(await api.admin.patch(f"/products/{other}", json={"sku": MUG["sku"]}), 409)
    assert (await api.admin.patch(f"/products/{other}", json={"sku": "85123a"})).status_code == 200
    assert_problem(await api.admin.post("/products", json=MUG | {"sku": "B", "category_id": 77}), 409)
    assert_problem(await api.admin.patch(f"/products/{other}", json={"category_id": 77}), 409)


async def test_two_at_once_do_not_get_the_same_sku(api: Api, phase: Phase) -> None:
    answers = await asyncio.gather(*(api.admin.post("/products", json=MUG) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]


async def test_impossible_ids_are_refused(api: Api, phase: Phase) -> None:
    for bad in ("0", "-1", "2147483648", "9" * 40, "x", "1.5", "%00", "null"):
        for method, path, body in (
            ("GET", f"/products/{bad}", None),
            ("PATCH", f"/products/{bad}", {"price": 1}),
            ("DELETE", f"/products/{bad}", None),
            ("POST", f"/products/{bad}/activate", None),
            ("GET", f"/products/{bad}/stock", None),
            ("PUT", f"/products/{bad}/stock", {"quantity": 1}),
            ("POST", f"/products/{bad}/stock/adjust", {"delta": 1}),
            ("PATCH", f"/categories/{bad}", {"name": "A"}),
            ("DELETE", f"/categories/{bad}", None),
        ):
            response = await api.admin.request(method, path, json=body)
            assert response.status_code in {404, 422}, (method, path, response.text)
            assert_problem(response, response.status_code)


async def test_unknown_products_are_not_found(api: Api, phase: Phase) -> None:
    for method, path, body in (
        ("GET", "/products/2147483647", None),
        ("PATCH", "/products/7", {"price": 1}),
        ("DELETE", "/products/7", None),
        ("POST", "/products/7/activate", None),
        ("GET", "/products/7/stock", None),
        ("PUT", "/products/7/stock", {"quantity": 1}),
        ("POST", "/products/7/stock/adjust", {"delta": 1}),
    ):
        assert_problem(await api.admin.request(method, path, json=body), 404)


async def test_changes_of_nothing_or_of_what_is_not_there_are_refused(api: Api, phase: Phase) -> None:
    product_id = await api.shop.add_product("A")
    for body in ({}, {"price": None}, {"sku": None}, {"is_active": True}, {"quantity": 3}):
        assert_problem(await api.admin.patch(f"/products/{product_id}", json=body), 422)


async def test_several_by_id(api: Api, phase: Phase) -> None:
    first, second = await api.shop.add_product("A"), await api.shop.add_product("B")
    found = (
        await api.anyone.get("/products/by-ids", params={"ids": f"{second},99,{first},{10**10 - 1}"})
    ).json()
    assert [item["id"] for item in found["items"]] == [first, second]
    assert found["missing"] == [99, 10**10 - 1]
    for wrong in ("", "0", "1,", "a", "1;2", "-1", "1,,2", ",".join(["1"] * 201)):
        assert_problem(await api.anyone.get("/products/by-ids", params={"ids": wrong}), 422)
    assert_problem(await api.anyone.get("/products/by-ids"), 422)


async def test_what_history_left_is_shown_as_it_is(api: Api, phase: Phase) -> None:
    await api.shop.authoritative(
        legacy="INSERT INTO prod (stock_code, descr, price_cents, qty_on_hand, created) VALUES "
        "('B', NULL, -1106206, -5, '2011-08-12 14:50:00'), (' x', '', 0, 0, '1969-12-31 23:59:59.123456'), "
        "('85123A', ' tab\there\u00a0', 295, 7, '2010-12-01 08:26:00')",
        new="WITH p AS (INSERT INTO products (sku, name, price, is_active, created_at) VALUES "
        "('B', NULL, -11062.06, true, '2011-08-12 14:50:00Z'), (' x', '', 0, true, '1969-12-31 23:59:59.123456Z'), "
        "('85123A', ' tab\there\u00a0', 2.95, true, '2010-12-01 08:26:00Z') RETURNING id, sku) "
        "INSERT INTO product_stock SELECT id, CASE sku WHEN 'B' THEN -5 WHEN '85123A' THEN 7 ELSE 0 END FROM p",
    )
    page = (await api.anyone.get("/products")).json()["items"]
    shown = [
        (item["sku"], item["name"], item["price"], item["quantity"], item["created_at"]) for item in page
    ]
    assert shown == [
        ("B", None, "-11062.06", -5, "2011-08-12T14:50:00Z"),
        (" x", "", "0.00", 0, "1969-12-31T23:59:59.123456Z"),
        ("85123A", " tab\there\u00a0", "2.95", 7, "2010-12-01T08:26:00Z"),
    ]
    url = f"/products/{page[0]['id']}/stock"
    assert_problem(await api.admin.post(f"{url}/adjust", json={"delta": -1}), 409)
    assert (await api.admin.post(f"{url}/adjust", json={"delta": 2})).json()["quantity"] == -3
    await api.shop.carried()


async def test_whole_numbers_may_be_written_with_a_point(api: Api, phase: Phase) -> None:
    body = b'{"sku": "A", "name": "x", "price": 2.0, "quantity": 5.0}'
    made = await api.admin.post("/products", content=body, headers={"Content-Type": "application/json"})
    assert (made.json()["price"], made.json()["quantity"]) == ("2.00", 5)


async def test_every_operation_can_be_exercised(api: Api, phase: Phase) -> None:
    steps = [step async for step in api.shop.manager.exercise()]
    assert [step.name for step in steps if not step.result.success] == []
    assert len(steps) > 8
    assert await api.shop.paths() == {}
    assert (await api.admin.post("/dual-write/test-operation")).json()["success"] is True
    assert (await api.anyone.get("/products")).json()["items"] == []
    await api.shop.carried()


async def test_problems_know_methods_and_paths(api: Api, phase: Phase) -> None:
    for path in ("/products", "/products/by-ids"):
        response = await api.admin.put(path, json={})
        assert_problem(response, 405)
        assert response.headers["Allow"]
    assert_problem(await api.admin.get("/product"), 404)
