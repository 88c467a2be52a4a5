"""The work of the old program, one function per operation, each to be run in a transaction.

It sets no change times and never touches stock or open carts: change times, because old programs forget them and nobody
may rely on them; stock and open carts, because the services own those, and two owners could not both keep a ledger.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from backend.legacy_shop.local_time import wall_clock_text
from backend.legacy_shop.old_targets import Targets, pop_random
from backend.legacy_shop.old_writes import KEYS, Key, Operation
from backend.legacy_shop.vocabulary import CITIES, FIRST_NAMES, LAST_NAMES

_RENAMED = re.compile(r" No \d+$")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A row as the transaction in progress will leave it, if it commits."""

    table: str
    key: Key
    values: Mapping[str, Any] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What an operation works with."""

    connection: Any
    rng: random.Random
    targets: Targets

    async def write(
        self, table: str, statement: str, *args: Any, columns: tuple[str, ...] = ()
    ) -> list[Change]:
        """Run an INSERT or UPDATE and tell its rows: `columns` of them, or all."""
        found = await self.connection.fetch(f"{statement} RETURNING to_jsonb({table}.*) AS row", *args)
        rows = [json.loads(record["row"]) for record in found]
        return [
            Change(table=table, key=row[KEYS[table]], values={name: row[name] for name in columns or row})
            for row in rows
        ]

    def cents(self) -> int:
        return self.rng.randint(50, 9_999)


async def change_price(desk: Desk) -> list[Change]:
    return await _set_price(desk, product=desk.rng.choice(desk.targets.products))


async def change_hot_price(desk: Desk) -> list[Change]:
    """The same product every time."""
    return await _set_price(desk, product=desk.targets.products[-1])


async def _set_price(desk: Desk, *, product: int) -> list[Change]:
    return await desk.write(
        "prod",
        "UPDATE prod SET price_cents = $2 WHERE prod_no = $1",
        *(product, desk.cents()),
        columns=("price_cents",),
    )


async def toggle_discontinued(desk: Desk) -> list[Change]:
    return await desk.write(
        "prod",
        "UPDATE prod SET is_disc = 1 - is_disc WHERE prod_no = $1",
        desk.rng.choice(desk.targets.toggled),
        columns=("is_disc",),
    )


async def correct_phone(desk: Desk) -> list[Change]:
    return await desk.write(
        "users",
        "UPDATE users SET phone_no = $2 WHERE usr_id = $1",
        *(desk.rng.choice(desk.targets.users), _phone(desk.rng)),
        columns=("phone_no",),
    )


async def correct_name(desk: Desk) -> list[Change]:
    return await desk.write(
        "users",
        "UPDATE users SET first_nm = $2, last_nm = $3 WHERE usr_id = $1",
        *(desk.rng.choice(desk.targets.users), desk.rng.choice(FIRST_NAMES), desk.rng.choice(LAST_NAMES)),
        columns=("first_nm", "last_nm"),
    )


async def new_user(desk: Desk) -> list[Change]:
    name = f"old-{desk.targets.next_serial()}"
    changes = await desk.write(
        "users",
        "INSERT INTO users (usr_id, login_email, first_nm, last_nm, phone_no, city, country, reg_date)"
        " VALUES ($1, $2, $3, $4, $5, $6, 'UK', $7)",
        *(name, f"{name}@example.com", desk.rng.choice(FIRST_NAMES), desk.rng.choice(LAST_NAMES)),
        *(_phone(desk.rng), desk.rng.choice(CITIES), wall_clock_text(_now())),
    )
    desk.targets.users.append(name)
    return changes


async def new_sale(desk: Desk) -> list[Change]:
    """A bought cart with its lines."""
    targets, rng = desk.targets, desk.rng
    customer = rng.choice(targets.users) if targets.users and rng.random() < 0.9 else None
    cart = await desk.write(
        "carts",
        "INSERT INTO carts (cust, state, ext_ref, opened, chg) VALUES ($1, 'C', $2, $3, $4)",
        *(customer, f"OLD{targets.next_serial()}", wall_clock_text(_now()), _now()),
    )
    number = int(cart[0].key)
    products = rng.sample(targets.products, min(len(targets.products), rng.randint(1, 5)))
    lines = await desk.write(
        "cart_lines",
        "INSERT INTO cart_lines (cart_no, prod_no, qty, unit_cents, added)"
        " SELECT $1, prod_no, $3, price_cents, $4 FROM prod WHERE prod_no = ANY ($2::integer[]) ORDER BY prod_no",
        *(number, products, rng.randint(1, 12), _now()),
    )
    targets.sales.append(number)
    return cart + lines


async def delete_wish(desk: Desk) -> list[Change]:
    wish = pop_random(desk.targets.wishes, rng=desk.rng)
    gone = await desk.connection.fetch("DELETE FROM wish WHERE wish_no = $1 RETURNING wish_no", wish)
    return [Change(table="wish", key=row["wish_no"], deleted=True) for row in gone]


async def delete_sale(desk: Desk) -> list[Change]:
    """A bought cart; its lines go with it by the foreign key. The row lock keeps lines from being added meanwhile."""
    cart = pop_random(desk.targets.sales, rng=desk.rng)
    if not await desk.connection.fetchval(
        "SELECT true FROM carts WHERE cart_no = $1 AND state = 'C' FOR UPDATE", cart
    ):
        return []
    lines = await desk.connection.fetch("SELECT line_no FROM cart_lines WHERE cart_no = $1", cart)
    await desk.connection.execute("DELETE FROM carts WHERE cart_no = $1", cart)
    gone = [Change(table="cart_lines", key=row["line_no"], deleted=True) for row in lines]
    return [*gone, Change(table="carts", key=cart, deleted=True)]


async def rename_category(desk: Desk) -> list[Change]:
    """A node gets another name; its path and those of all nodes below it change in one UPDATE."""
    number = desk.rng.choice(desk.targets.categories)
    old = await desk.connection.fetchval("SELECT cat_path FROM cat WHERE cat_no = $1 FOR UPDATE", number)
    if old is None:
        return []
    new = f"{_RENAMED.sub('', old)} No {desk.targets.next_serial()}"
    return await desk.write(
        "cat",
        "UPDATE cat SET cat_path = $2::text || substr(cat_path, length($1::text) + 1)"
        " WHERE cat_path = $1::text OR starts_with(cat_path, $1::text || '/')",
        *(old, new),
        columns=("cat_path",),
    )


async def reprice_category(desk: Desk) -> list[Change]:
    return await desk.write(
        "prod",
        "UPDATE prod SET price_cents = greatest(price_cents + $2, 1) WHERE cat_no = $1",
        *(desk.rng.choice(desk.targets.categories), desk.rng.choice((-10, -5, 5, 10, 25))),
        columns=("price_cents",),
    )


async def swap_stock_codes(desk: Desk) -> list[Change]:
    """Through a third value, for the unique constraint looks at every statement. Rows are locked in key order."""
    pair = sorted(desk.rng.sample(desk.targets.products, 2))
    rows = await desk.connection.fetch(
        "SELECT prod_no, stock_code FROM prod WHERE prod_no = ANY ($1::integer[]) ORDER BY prod_no FOR UPDATE",
        pair,
    )
    if len(rows) < len(pair):
        return []
    (first, first_code), (second, second_code) = rows
    statement = "UPDATE prod SET stock_code = $2 WHERE prod_no = $1"
    await desk.connection.execute(statement, first, f"~{desk.targets.next_serial()}")
    changes = await desk.write("prod", statement, second, first_code, columns=("stock_code",))
    return changes + await desk.write("prod", statement, first, second_code, columns=("stock_code",))


async def correct_invoice(desk: Desk) -> list[Change]:
    """Two tables in one transaction: a price on a bought cart's first line, then the cart's invoice number."""
    cart = desk.rng.choice(desk.targets.sales)
    lines = await desk.write(
        "cart_lines",
        "UPDATE cart_lines SET unit_cents = $2 WHERE line_no ="
        " (SELECT min(l.line_no) FROM cart_lines l JOIN carts c USING (cart_no) WHERE c.cart_no = $1 AND c.state = 'C')",
        *(cart, desk.cents()),
        columns=("unit_cents",),
    )
    return lines + await desk.write(
        "carts",
        "UPDATE carts SET ext_ref = $2 WHERE cart_no = $1 AND state = 'C'",
        *(cart, f"COR{desk.targets.next_serial()}"),
        columns=("ext_ref",),
    )


def _phone(rng: random.Random) -> str:
    return f"+44 20 {rng.randrange(10_000):04d} {rng.randrange(10_000):04d}"


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an operation is done, how often it is chosen against the others, and what it must find to be possible."""

    run: Callable[[Desk], Awaitable[list[Change]]]
    weight: int
    possible: Callable[[Targets], bool]


def _products(targets: Targets) -> bool:
    return bool(targets.products)


def _users(targets: Targets) -> bool:
    return bool(targets.users)


def _categories(targets: Targets) -> bool:
    return bool(targets.categories)


def _sales(targets: Targets) -> bool:
    return bool(targets.sales)


RECIPES: Mapping[Operation, Recipe] = {
    Operation.CHANGE_PRICE: Recipe(run=change_price, weight=22, possible=_products),
    Operation.TOGGLE_DISCONTINUED: Recipe(run=toggle_discontinued, weight=8, possible=_products),
    Operation.CORRECT_PHONE: Recipe(run=correct_phone, weight=12, possible=_users),
    Operation.CORRECT_NAME: Recipe(run=correct_name, weight=8, possible=_users),
    Operation.NEW_USER: Recipe(run=new_user, weight=6, possible=lambda _: True),
    Operation.NEW_SALE: Recipe(run=new_sale, weight=12, possible=_products),
    Operation.DELETE_WISH: Recipe(run=delete_wish, weight=6, possible=lambda targets: bool(targets.wishes)),
    Operation.DELETE_SALE: Recipe(run=delete_sale, weight=5, possible=_sales),
    Operation.RENAME_CATEGORY: Recipe(run=rename_category, weight=3, possible=_categories),
    Operation.REPRICE_CATEGORY: Recipe(run=reprice_category, weight=2, possible=_categories),
    Operation.SWAP_STOCK_CODES: Recipe(
        run=swap_stock_codes, weight=5, possible=lambda targets: len(targets.products) > 1
    ),
    Operation.CHANGE_HOT_PRICE: Recipe(run=change_hot_price, weight=3, possible=_products),
    Operation.CORRECT_INVOICE: Recipe(run=correct_invoice, weight=6, possible=_sales),
}


def choose(rng: random.Random, *, targets: Targets) -> Operation:
    """One of the operations that are possible now."""
    possible = [operation for operation, recipe in RECIPES.items() if recipe.possible(targets)]
    return rng.choices(possible, weights=[RECIPES[operation].weight for operation in possible])[0]
