"""What must hold of money, stock, orders and carts when no order is under way, asked of the databases themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg

from backend.shared import Side

_ORDERS = {
    Side.NEW: "SELECT id, user_id, cart_id, status, total FROM orders",
    Side.LEGACY: "SELECT ord_no AS id, cust AS user_id, cart_no AS cart_id, total_cents / 100.0 AS total, CASE state "
    "WHEN 'P' THEN 'placed' WHEN 'C' THEN 'confirmed' WHEN 'B' THEN 'cancelling' WHEN 'X' THEN 'cancelled' END AS status FROM ord",
}
_LINES = {
    Side.NEW: "SELECT order_id, product_id, quantity FROM order_lines",
    Side.LEGACY: "SELECT ord_no AS order_id, prod_no AS product_id, qty AS quantity FROM ord_lines",
}
_STOCK = {
    Side.NEW: "SELECT product_id, quantity FROM product_stock",
    Side.LEGACY: "SELECT prod_no AS product_id, qty_on_hand AS quantity FROM prod",
}
_CARTS = {
    Side.NEW: "SELECT id, status FROM carts",
    Side.LEGACY: "SELECT cart_no AS id, CASE state WHEN 'O' THEN 'open' WHEN 'C' THEN 'closed' "
    "WHEN 'X' THEN 'cancelled' END AS status FROM carts",
}
_STATUS = {"completed": "confirmed", "compensated": "cancelled"}
_TAKEN = ("reserved", "used")


@dataclass(frozen=True, kw_only=True)
class Books:
    """The databases: the shared legacy one, the services' own, and which side of which service has the authority."""

    legacy: str
    own: Mapping[str, str]
    sides: Mapping[str, Side]

    async def of(self, service: str, query: str | Mapping[Side, str]) -> list[asyncpg.Record]:
        """Rows of a service, in the shape of its own side; a query with `{room}` is for tables that both sides have alike."""
        side = self.sides[service]
        found = query if isinstance(query, str) else query[side]
        room = "public" if side is Side.NEW else f"tandem_{service}"
        return await self.rows(service, side, found.format(room=room))

    async def rows(self, service: str, side: Side, query: str) -> list[asyncpg.Record]:
        """Rows of one side of a service."""
        connection = await asyncpg.connect(self.own[service] if side is Side.NEW else self.legacy)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    async def stock(self) -> dict[int, int]:
        """What is on the shelves."""
        return {row["product_id"]: row["quantity"] for row in await self.of("product", _STOCK)}


async def disagreements(
    books: Books, *, stocked: Mapping[int, int], given: Mapping[str, Decimal]
) -> list[str]:
    """What does not hold, after `stocked` was on the shelves and customers were `given` credit. Nothing may be under way."""
    orders = {row["id"]: row for row in await books.of("order", _ORDERS)}
    sagas = {
        row["order_id"]: row["state"]
        for row in await books.of("order", "SELECT order_id, state FROM {room}.sagas")
    }
    confirmed = {number for number, row in orders.items() if row["status"] == "confirmed"}
    return [
        *_sagas_end(orders, sagas),
        *await _money_agrees(books, orders, confirmed, given),
        *await _stock_agrees(books, orders, confirmed, stocked),
        *await _carts_agree(books, orders),
        *await _nothing_waits(books),
    ]


def _sagas_end(orders: Mapping[int, Any], sagas: Mapping[int, str]) -> list[str]:
    return [
        f"order {number} is {row['status']}, its saga {sagas.get(number)}"
        for number, row in orders.items()
        if _STATUS.get(sagas.get(number, "")) != row["status"]
    ]


async def _money_agrees(
    books: Books, orders: Mapping[int, Any], confirmed: set[int], given: Mapping[str, Decimal]
) -> list[str]:
    """Captured less refunded = totals of confirmed orders; held = totals of those under way, so nothing."""
    wrong = []
    payments = {row["order_id"]: row for row in await books.of("payment", "SELECT * FROM payments")}
    spent: defaultdict[str, Decimal] = defaultdict(Decimal)
    for number in orders.keys() | payments.keys():
        payment = payments.get(number)
        captured = payment["amount"] if payment and payment["state"] == "captured" else Decimal(0)
        total = orders[number]["total"] if number in confirmed else Decimal(0)
        if captured != total:
            wrong.append(f"order {number}: {captured} was taken, {total} is due")
        if payment and payment["state"] == "authorised":
            wrong.append(f"order {number}: money is still set aside")
        if number in confirmed:
            spent[orders[number]["user_id"]] += total
    for row in await books.of("payment", "SELECT * FROM accounts"):
        user = row["user_id"]
        if user in given and (row["credit"], row["held"]) != (given[user] - spent[user], 0):
            wrong.append(f"{user}: {row['credit']}, {row['held']} held, of {given[user]} less {spent[user]}")
    return wrong


async def _stock_agrees(
    books: Books, orders: Mapping[int, Any], confirmed: set[int], stocked: Mapping[int, int]
) -> list[str]:
    """What is reserved is what confirmed orders are of, and is off the shelves."""
    states = {
        row["order_id"]: row["state"]
        for row in await books.of("product", "SELECT order_id, state FROM {room}.stock_reservations")
    }
    wrong = [
        f"order {number} is {row['status']}, its stock {states.get(number)}"
        for number, row in orders.items()
        if (states.get(number) in _TAKEN) is not (number in confirmed)
    ]
    taken: Counter[int] = Counter()
    for row in await books.of("order", _LINES):
        if row["order_id"] in confirmed:
            taken[row["product_id"]] += row["quantity"]
    stock = await books.stock()
    return wrong + [
        f"product {number}: {stock[number]} left of {before} after {taken[number]} were sold"
        for number, before in stocked.items()
        if stock[number] != before - taken[number]
    ]


async def _carts_agree(books: Books, orders: Mapping[int, Any]) -> list[str]:
    """The cart of an order that stands is bought; another is not, unless it is in a later order that stands."""
    carts = {row["id"]: row["status"] for row in await books.of("cart", _CARTS)}
    standing = {row["cart_id"] for row in orders.values() if row["status"] != "cancelled"}
    return [
        f"order {number} is {row['status']}, its cart {carts.get(row['cart_id'])}"
        for number, row in orders.items()
        if (carts.get(row["cart_id"]) == "closed") is not (row["cart_id"] in standing)
    ]


async def _nothing_waits(books: Books) -> list[str]:
    """No dead letters, and nothing to deliver on either side."""
    wrong = []
    for service in books.own:
        sides = (Side.NEW,) if service == "payment" else tuple(Side)
        for side in sides:
            room = "public" if side is Side.NEW else f"tandem_{service}"
            for table, condition in (
                ("dead_letter", "replayed_at IS NULL"),
                ("outbox", "true"),
                ("outbox_undelivered", "true"),
            ):
                query = f"SELECT count(*) AS n FROM {room}.{table} WHERE {condition}"
                (row,) = await books.rows(service, side, query)
                if row["n"]:
                    wrong.append(f"{service}, {side.value} side: {row['n']} in {table}")
    return wrong
