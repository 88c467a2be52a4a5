"""What has become of the orders, and whether money, stock, carts and orders agree: asked of the databases themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import asyncpg

from .buyers import Bought, Kind

_FINAL = ("completed", "compensated")
_LISTED = 20
_FIGURES = re.compile(r"[0-9][0-9.,]*")


@dataclass(frozen=True, kw_only=True)
class Databases:
    """Where to look: orders and carts on legacy, products on their own side, payments in their only database."""

    legacy: str
    product: str
    payment: str


@dataclass(frozen=True, kw_only=True, order=True)
class Way:
    """What was to come of an order, how its saga ended, and who ended it."""

    kind: Kind
    state: str
    because: str


@dataclass(kw_only=True)
class Findings:
    """How many orders took which way; and what does not hold."""

    ways: Counter[Way] = field(default_factory=Counter)
    unfinished: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    median_seconds: float = 0.0


async def open_sagas(url: str) -> int:
    """How many sagas are not over."""
    (row,) = await _rows(
        url, "SELECT count(*) AS n FROM tandem_order.sagas WHERE NOT state = ANY ($1)", _FINAL
    )
    return int(row["n"])


async def stock(url: str) -> dict[int, int]:
    """What is on the shelves, as legacy has it."""
    return {
        row["prod_no"]: row["qty_on_hand"]
        for row in await _rows(url, "SELECT prod_no, qty_on_hand FROM prod")
    }


async def findings(databases: Databases, bought: Bought, *, before: Mapping[int, int]) -> Findings:
    """Hold everything against everything, when no saga is open any more and everybody waits."""
    found = Findings()
    orders = {
        row["ord_no"]: row
        for row in await _rows(
            databases.legacy,
            "SELECT o.*, s.state AS saga, s.participant, s.reason, extract(epoch FROM s.updated_at - s.started_at)::float8 AS seconds "
            "FROM ord AS o LEFT JOIN tandem_order.sagas AS s ON s.order_id = o.ord_no",
        )
    }
    if missing := sorted(set(bought.orders) - set(orders)):
        found.broken.append(
            f"{len(missing)} orders that were acknowledged are not there: {missing[:_LISTED]}"
        )
    for number, buyer in bought.orders.items():
        if number in orders:
            found.ways[_way(buyer.kind, orders[number])] += 1
    found.unfinished = [number for number, row in orders.items() if row["saga"] not in _FINAL]
    times = sorted(row["seconds"] for row in orders.values() if row["saga"] == "completed")
    if times:
        found.longest_seconds, found.median_seconds = times[-1], times[len(times) // 2]
    confirmed = {number for number, row in orders.items() if row["state"] == "C"}
    _states_agree(found, orders)
    await _money_agrees(found, databases, orders, confirmed, given=bought.credit)
    await _stock_agrees(found, databases, confirmed, before)
    await _carts_agree(found, databases, orders)
    await _nothing_is_left(found, databases)
    return found


def _way(kind: Kind, row: asyncpg.Record) -> Way:
    """Reasons name goods and sums: without the figures there are few."""
    why = f"{row['participant']}: {_FIGURES.sub('…', row['reason'] or '')}" if row["participant"] else ""
    return Way(kind=kind, state=row["saga"] or "none", because=why)


def _states_agree(found: Findings, orders: Mapping[int, Any]) -> None:
    ends = {"completed": "C", "compensated": "X"}
    differ = [n for n, row in orders.items() if row["saga"] in ends and ends[row["saga"]] != row["state"]]
    if differ:
        found.broken.append(f"{len(differ)} orders are not what their saga says: {differ[:_LISTED]}")


async def _money_agrees(
    found: Findings,
    databases: Databases,
    orders: Mapping[int, Any],
    confirmed: set[int],
    *,
    given: Mapping[str, Decimal],
) -> None:
    paid = {row["order_id"]: row for row in await _rows(databases.payment, "SELECT * FROM payments")}
    wrong = []
    for number, row in orders.items():
        payment = paid.get(number)
        captured = payment["amount"] if payment and payment["state"] == "captured" else Decimal(0)
        expected = Decimal(row["total_cents"]) / 100 if number in confirmed else Decimal(0)
        if captured != expected or (payment and payment["state"] == "authorised"):
            wrong.append(number)
    if wrong:
        found.broken.append(f"{len(wrong)} orders whose money is not what it should be: {wrong[:_LISTED]}")
    spent: Counter[str] = Counter()
    for number in confirmed:
        spent[orders[number]["cust"]] += orders[number]["total_cents"]
    left = {
        row["user_id"]: (row["credit"], row["held"])
        for row in await _rows(databases.payment, "SELECT * FROM accounts")
    }
    due = {user: (credit - Decimal(spent[user]) / 100, Decimal(0)) for user, credit in given.items()}
    off = sorted(user for user in left.keys() | due.keys() if left.get(user) != due.get(user))
    if off:
        found.broken.append(f"{len(off)} accounts do not add up: {off[:_LISTED]}")


async def _stock_agrees(
    found: Findings, databases: Databases, confirmed: set[int], before: Mapping[int, int]
) -> None:
    taken: Counter[int] = Counter()
    for row in await _rows(databases.legacy, "SELECT ord_no, prod_no, qty FROM ord_lines"):
        if row["ord_no"] in confirmed:
            taken[row["prod_no"]] += row["qty"]
    after = await _rows(databases.product, "SELECT product_id, quantity FROM product_stock")
    off = [
        row["product_id"]
        for row in after
        if row["quantity"] != before.get(row["product_id"], 0) - taken[row["product_id"]]
    ]
    if off:
        found.broken.append(f"the stock of {len(off)} products does not add up: {off[:_LISTED]}")
    rows = await _rows(databases.product, "SELECT order_id FROM stock_reservations WHERE state = 'reserved'")
    if differ := {row["order_id"] for row in rows} ^ confirmed:
        found.broken.append(
            f"{len(differ)} orders are confirmed or have stock reserved, but not both: {sorted(differ)[:_LISTED]}"
        )


async def _carts_agree(found: Findings, databases: Databases, orders: Mapping[int, Any]) -> None:
    carts = {
        row["cart_no"]: row["state"]
        for row in await _rows(databases.legacy, "SELECT cart_no, state FROM carts")
    }
    wrong = [
        number
        for number, row in orders.items()
        if carts.get(row["cart_no"]) not in {"C": ("C",), "X": ("O", "X")}.get(row["state"], ("C", "O"))
    ]
    if wrong:
        found.broken.append(f"{len(wrong)} carts are not what their orders say: {wrong[:_LISTED]}")


async def _nothing_is_left(found: Findings, databases: Databases) -> None:
    for name, url, tables in (
        ("legacy", databases.legacy, ("tandem_auth", "tandem_order", "tandem_product", "tandem_cart")),
        ("product", databases.product, ("public",)),
        ("payment", databases.payment, ("public",)),
    ):
        for schema in tables:
            for table, what in (
                ("dead_letter", "dead letters"),
                ("outbox", "messages that were not delivered"),
                ("outbox_undelivered", "messages that were given up"),
            ):
                (row,) = await _rows(url, f"SELECT count(*) AS n FROM {schema}.{table}")
                if row["n"]:
                    found.broken.append(f"{row['n']} {what} in {schema} of {name}")


async def _rows(url: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url, timeout=10, command_timeout=60)
    try:
        return list(await connection.fetch(query, *arguments))
    finally:
        await connection.close()
