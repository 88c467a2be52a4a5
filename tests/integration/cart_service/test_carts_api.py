"""Carts over HTTP, the same whichever side is authoritative."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from backend.cart_service.app.entities import MAX_LINES_PER_CART, MAX_QUANTITY
from backend.shared.api.tokens import Role, TokenIssuer, TokenType, generate_signing_key
from tests.integration.cart_service.support import GONE, LAMP, MUG, REFUND, Api, assert_problem, token

ITEMS = "/carts/current/items"
BAD_IDS: list[Any] = [0, -1, 2**31, 10**30, "1", 1.5, True, None, [1], {}]
BAD_QUANTITIES: list[Any] = [0, -1, MAX_QUANTITY + 1, 2**63, 10**400, "5", 1.5, True, None, []]
BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"{}",
    b'{"product_id": 456}',
    b'{"product_id": 456, "quantity": NaN}',
    b'{"product_id": 456, "quantity": Infinity}',
    b'{"product_id": 456, "quantity": 1e400}',
    b'{"product_id": 456, "quantity": "\\ud800"}',
    b'{"product_id": 456, "quantity": "\\u0000"}',
    b'{"product_id": 456, "quantity": 1, "\\ud800": 1}',
    b'{"product_id": 456, "quantity": 1, "unit_price": "0.01"}',
    b"\xff\xfe",
    b"[" * 10_000,
]
BAD_PATHS = ["0", "-1", "2147483648", "9" * 40, "1.5", "x", "%00", "%ed%a0%80", "٣"]


async def test_a_cart_goes_through_its_life(api: Api) -> None:
    assert_problem(await api.ann.get("/carts/current"), 404)
    made = await api.ann.post("/carts")
    assert made.status_code == 201, made.text
    cart = made.json()
    assert made.headers["Location"] == f"/carts/{cart['id']}"
    assert cart | {"user_id": "ann", "status": "open", "items": [], "quantity": 0, "total": "0.00"} == cart
    again = await api.ann.post("/carts")
    assert (again.status_code, again.json()) == (200, cart)
    shown = (await api.ann.get(f"/carts/{cart['id']}")).json()
    assert shown.pop("customer")["display_name"] == "Ann"
    assert shown == cart

    one = await api.add(MUG, 2)
    (line,) = one["items"]
    assert (line["product_id"], line["quantity"], line["unit_price"], line["line_total"]) == (
        MUG,
        2,
        "9.99",
        "19.98",
    )
    both = await api.add(LAMP, 3)
    assert [item["product_id"] for item in both["items"]] == [MUG, LAMP]
    assert (both["quantity"], both["total"]) == (5, "21.48")
    assert await api.cart() == both | {"customer": (await api.cart())["customer"]}

    url = f"{ITEMS}/{line['id']}"
    changed = await api.ann.patch(url, json={"quantity": 1})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["quantity"], changed.json()["total"]) == (4, "11.49")
    assert (await api.ann.delete(url)).status_code == 204
    assert_problem(await api.ann.delete(url), 404)
    assert_problem(await api.ann.patch(url, json={"quantity": 1}), 404)
    assert [item["product_id"] for item in (await api.cart())["items"]] == [LAMP]
    await api.shop.carried()

    for _ in range(2):
        assert (await api.ann.delete(ITEMS)).status_code == 204
    assert (await api.cart())["items"] == []
    await api.shop.carried()


async def test_the_first_item_makes_the_cart(api: Api) -> None:
    cart = await api.add()
    assert (cart["user_id"], cart["status"], cart["quantity"]) == ("ann", "open", 1)
    assert (await api.ann.post("/carts")).json()["id"] == cart["id"]
    await api.shop.carried()


async def test_the_same_product_adds_up_at_the_present_price(api: Api) -> None:
    (line,) = (await api.add(MUG, 2))["items"]
    api.catalog.prices[MUG] = Decimal("8.00")
    (after,) = (await api.add(MUG, 3))["items"]
    assert after == line | {"quantity": 5, "unit_price": "8.00", "line_total": "40.00"}
    assert (await api.cart())["items"] == [after]
    await api.shop.carried()


async def test_a_closed_cart_gives_way_to_a_new_one(api: Api) -> None:
    first = await api.add()
    await api.shop.both(legacy="UPDATE carts SET state = 'C'", new="UPDATE carts SET status = 'closed'")
    assert_problem(await api.ann.get("/carts/current"), 404)
    assert_problem(await api.ann.delete(ITEMS), 404)
    assert_problem(await api.ann.patch(f"{ITEMS}/{first['items'][0]['id']}", json={"quantity": 2}), 404)
    assert_problem(await api.ann.delete(f"{ITEMS}/{first['items'][0]['id']}"), 404)
    second = await api.add(LAMP)
    assert second["id"] != first["id"]
    assert (await api.ann.get(f"/carts/{first['id']}")).json()["status"] == "closed"
    await api.shop.carried()


async def test_bad_quantities_are_refused(api: Api) -> None:
    (line,) = (await api.add())["items"]
    before = await api.cart()
    for bad in BAD_QUANTITIES:
        assert_problem(await api.ann.post(ITEMS, json={"product_id": MUG, "quantity": bad}), 422)
        assert_problem(await api.ann.patch(f"{ITEMS}/{line['id']}", json={"quantity": bad}), 422)
    assert await api.cart() == before


async def test_bad_bodies_are_refused(api: Api) -> None:
    (line,) = (await api.add())["items"]
    headers = {"Content-Type": "application/json"}
    for body in BAD_BODIES:
        for call, url in ((api.ann.post, ITEMS), (api.ann.patch, f"{ITEMS}/{line['id']}")):
            answer = await call(url, content=body, headers=headers)
            assert answer.status_code in {400, 422}, (body[:60], answer.text)
            assert_problem(answer, answer.status_code)
    for bad in BAD_IDS:
        assert_problem(await api.ann.post(ITEMS, json={"product_id": bad, "quantity": 1}), 422)
    form = await api.ann.post(ITEMS, data={"product_id": "456", "quantity": "1"})
    assert_problem(form, 422)
    huge = await api.ann.post(ITEMS, content=b" " * 2_000_000, headers=headers)
    assert_problem(huge, 413)
    assert (await api.cart())["quantity"] == 1


async def test_bad_paths_and_queries_are_refused(api: Api) -> None:
    await api.add()
    for path in BAD_PATHS:
        assert_problem(await api.ann.get(f"/carts/{path}"), 422)
        assert_problem(await api.ann.delete(f"{ITEMS}/{path}"), 422)
        assert_problem(await api.ann.patch(f"{ITEMS}/{path}", json={"quantity": 1}), 422)
    for user_id in ("", "%00", "a" * 41, "%0a", "%7f"):
        assert_problem(await api.admin.get(f"/carts/current?user_id={user_id}"), 422)
    assert_problem(await api.admin.get("/carts/current?user_id=%c2%a0"), 404)
    assert_problem(await api.ann.get("/carts/2147483647"), 404)
    assert_problem(await api.ann.delete(f"{ITEMS}/2147483647"), 404)
    for path, allowed in (
        ("/carts/current", "GET"),
        (ITEMS, "DELETE, POST"),
        (f"{ITEMS}/1", "DELETE, PATCH"),
    ):
        answer = await api.ann.put(path)
        assert_problem(answer, 405)
        assert answer.headers["Allow"] == allowed
    assert_problem(await api.ann.get("/carts/"), 404)


async def test_what_is_not_for_sale_stays_out(api: Api) -> None:
    assert_problem(await api.ann.post(ITEMS, json={"product_id": 5, "quantity": 1}), 404)
    for product_id in (GONE, REFUND):
        assert_problem(await api.ann.post(ITEMS, json={"product_id": product_id, "quantity": 1}), 409)
    api.catalog.prices[LAMP] = Decimal("99999999.99")
    assert_problem(await api.ann.post(ITEMS, json={"product_id": LAMP, "quantity": 1}), 409)
    assert_problem(await api.ann.get("/carts/current"), 404)


async def test_while_nobody_knows_the_price_all_else_works(api: Api) -> None:
    (line,) = (await api.add())["items"]
    api.catalog.away = True
    refused = await api.ann.post(ITEMS, json={"product_id": MUG, "quantity": 1})
    assert assert_problem(refused, 503)["type"] == "urn:tandem:problem:catalog-unavailable"
    assert "Retry-After" in refused.headers
    assert (await api.ann.patch(f"{ITEMS}/{line['id']}", json={"quantity": 5})).status_code == 200
    assert (await api.cart())["quantity"] == 5
    assert (await api.ann.delete(ITEMS)).status_code == 204


async def test_a_line_has_a_limit_also_when_it_adds_up(api: Api) -> None:
    await api.add(MUG, MAX_QUANTITY)
    assert_problem(await api.ann.post(ITEMS, json={"product_id": MUG, "quantity": 1}), 409)
    assert (await api.cart())["quantity"] == MAX_QUANTITY
    await api.shop.carried()


async def test_a_cart_has_a_limit_of_lines(api: Api) -> None:
    await api.shop.add_cart("ann", status="open", items=MAX_LINES_PER_CART - 1)
    assert len((await api.add(MUG))["items"]) == MAX_LINES_PER_CART
    assert_problem(await api.ann.post(ITEMS, json={"product_id": LAMP, "quantity": 1}), 409)
    assert len((await api.add(MUG))["items"]) == MAX_LINES_PER_CART
    assert (await api.ann.delete(ITEMS)).status_code == 204
    await api.shop.carried()


async def test_history_is_shown_as_it_is(api: Api) -> None:
    cart_id = await api.shop.add_cart("ann", status="cancelled", items=2)
    cart = (await api.ann.get(f"/carts/{cart_id}")).json()
    assert (cart["status"], cart["quantity"], cart["total"]) == ("cancelled", -2, "1.00")
    assert cart["created_at"] == "2011-03-27T11:00:00Z"
    over_the_counter = await api.shop.add_cart(None, status="closed")
    assert (await api.admin.get(f"/carts/{over_the_counter}")).json()["user_id"] is None
    assert_problem(await api.ann.get(f"/carts/{over_the_counter}"), 404)
    await api.shop.carried()


async def test_goods_do_not_go_on_a_line_of_history(api: Api) -> None:
    cart_id = await api.shop.add_cart("ann", status="open", items=1)
    api.catalog.prices[1001] = Decimal("2.00")
    cart = await api.add(1001, 3)
    assert cart["id"] == cart_id
    assert [item["quantity"] for item in cart["items"]] == [-1, 3]
    assert [item["quantity"] for item in (await api.add(1001, 3))["items"]] == [-1, 6]


async def test_everybody_reaches_her_own_cart_only(api: Api) -> None:
    cart = await api.add()
    item = f"{ITEMS}/{cart['items'][0]['id']}"
    assert_problem(await api.bob.get(f"/carts/{cart['id']}"), 404)
    assert_problem(await api.bob.get("/carts/current"), 404)
    await api.bob.post("/carts")
    assert_problem(await api.bob.patch(item, json={"quantity": 9}), 404)
    assert_problem(await api.bob.delete(item), 404)
    for call in (api.bob.get, api.bob.post, api.bob.delete):
        url = {"GET": "/carts/current", "POST": "/carts", "DELETE": ITEMS}[call.__name__.upper()]
        assert_problem(await call(url, params={"user_id": "ann"}), 403)
    assert (await api.bob.get("/carts/current", params={"user_id": "bob"})).status_code == 200
    assert (await api.cart())["items"] == cart["items"]


async def test_operators_reach_everybodys(api: Api) -> None:
    await api.add()
    for operator in (api.admin, api.service):
        cart = await api.cart()
        assert (await operator.get(f"/carts/{cart['id']}")).json() == cart
        current = (await operator.get("/carts/current", params={"user_id": "ann"})).json()
        assert (current["id"], current["customer"]["display_name"]) == (cart["id"], "Ann")
        body = {"product_id": LAMP, "quantity": 1}
        assert (await operator.post(ITEMS, params={"user_id": "ann"}, json=body)).status_code == 201
        assert (await operator.post("/carts", params={"user_id": "cid"})).status_code in {200, 201}
    assert (await api.cart())["quantity"] == 3
    assert_problem(await api.service.get("/carts/current"), 422)
    assert (await api.admin.post("/carts")).json()["user_id"] == "boss"
    assert (await api.service.get("/carts/current", params={"user_id": "cid"})).json()["customer"] is None


async def test_only_a_valid_token_opens(api: Api) -> None:
    await api.add()
    forged = token(TokenIssuer(generate_signing_key()), "ann")
    right = token(api.issuer, "ann")["Authorization"]
    refused = [
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x.y.z"},
        {"Authorization": f"Basic {right.split()[1]}"},
        {"Authorization": right[:-4] + "AAAA"},
        forged,
        token(api.issuer, "ann", age=timedelta(hours=1)),
        token(api.issuer, "ann", token_type=TokenType.REFRESH),
    ]
    for headers in refused:
        for method, url in (("GET", "/carts/current"), ("POST", "/carts"), ("DELETE", ITEMS)):
            assert_problem(await api.anyone.request(method, url, headers=headers), 401)
    assert_problem(await api.anyone.get("/wishlist"), 401)
    assert_problem(await api.ann.get("/dual-write/status"), 403)
    assert (await api.service.get("/dual-write/status")).status_code == 200
    too_long = token(api.issuer, "a" * 41)
    assert_problem(await api.anyone.post("/carts", headers=too_long), 403)
    assert (
        await api.anyone.post("/carts", headers=token(api.issuer, "x", role=Role.ADMIN))
    ).status_code == 201
