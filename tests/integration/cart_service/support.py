"""What the tests of the cart service talk to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
from fastapi import FastAPI

from backend.cart_service.app.catalog import CatalogProduct, CatalogUnavailableError
from backend.cart_service.app.core.dual_write_manager import CartDualWriteManager
from backend.shared import Phase
from backend.shared.api.tokens import Role, TokenIssuer, TokenType
from backend.shared.testing.clusters import Databases

LEGACY_CARTS = """
SELECT cart_no, cust, state::text, ext_ref, opened, chg FROM carts ORDER BY 1"""
NEW_CARTS = """
SELECT id, user_id, CASE status WHEN 'open' THEN 'O' WHEN 'closed' THEN 'C' WHEN 'cancelled' THEN 'X' END, reference,
       to_char(created_at AT TIME ZONE 'Europe/London', 'YYYY-MM-DD HH24:MI:SS'), updated_at AT TIME ZONE 'UTC'
  FROM carts ORDER BY 1"""
LEGACY_ITEMS = "SELECT line_no, cart_no, prod_no, qty, unit_cents, added FROM cart_lines ORDER BY 1"
NEW_ITEMS = """
SELECT id, cart_id, product_id, quantity, (unit_price * 100)::int, added_at AT TIME ZONE 'UTC' FROM cart_items ORDER BY 1"""
LEGACY_WISHES = "SELECT wish_no, cust, prod_no, added FROM wish ORDER BY 1"
NEW_WISHES = "SELECT id, user_id, product_id, added_at AT TIME ZONE 'UTC' FROM wish_items ORDER BY 1"
PAIRS = ((LEGACY_CARTS, NEW_CARTS), (LEGACY_ITEMS, NEW_ITEMS), (LEGACY_WISHES, NEW_WISHES))

MUG, LAMP, GONE, REFUND = 456, 7, 13, 99
"""A product at 9.99, one at 0.50, one that is not sold any more, and one with a price below zero."""


@dataclass
class FakeCatalog:
    """A shelf to look products up on. `away`: nobody answers."""

    prices: dict[int, Decimal] = field(
        default_factory=lambda: {
            MUG: Decimal("9.99"),
            LAMP: Decimal("0.50"),
            GONE: Decimal("3.00"),
            REFUND: Decimal("-1.00"),
        }
    )
    away: bool = False

    async def find(self, product_id: int) -> CatalogProduct | None:
        if self.away:
            raise CatalogUnavailableError("nobody answers")
        price = self.prices.get(product_id)
        if price is None:
            return None
        return CatalogProduct(id=product_id, price=price, is_active=product_id != GONE)

    async def aclose(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A cart service's manager with its two databases."""

    manager: CartDualWriteManager
    databases: Databases

    async def legacy(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run SQL on the legacy side, as a foreign program would."""
        return await run_sql(self.databases.legacy_url, statement, *values)

    async def new(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run SQL on the new side, past the service."""
        return await run_sql(self.databases.new_url, statement, *values)

    async def both(self, *, legacy: str, new: str) -> list[tuple[Any, ...]]:
        """Run SQL on the side that is authoritative."""
        on_legacy = self.manager.phase is Phase.DUALWRITE
        return await (self.legacy(legacy) if on_legacy else self.new(new))

    async def carried(self) -> None:
        """Carry all that is waiting; nothing may fail, and both sides must then hold the same."""
        assert await self.manager.relay().drain(timeout_seconds=10)
        assert list(await self.manager.list_failures(limit=10)) == []
        for legacy, new in PAIRS:
            assert await self.new(new) == await self.legacy(legacy)

    async def add_cart(self, user_id: str | None, *, status: str, items: int = 0) -> int:
        """A cart on the authoritative side, as history or another program left it; answers its id."""
        state = {"open": "O", "closed": "C", "cancelled": "X"}[status]
        owner = "NULL" if user_id is None else f"'{user_id}'"
        ((cart_id,),) = await self.both(
            legacy=f"INSERT INTO carts (cust, state, opened) VALUES ({owner}, '{state}', '2011-03-27 12:00:00') "
            "RETURNING cart_no",
            new="INSERT INTO carts (user_id, status, created_at) "
            f"VALUES ({owner}, '{status}', '2011-03-27 11:00:00+00') RETURNING id",
        )
        if items:
            await self.both(
                legacy="INSERT INTO cart_lines (cart_no, prod_no, qty, unit_cents, added) "
                f"SELECT {cart_id}, n + 1000, -1, -50, '2011-03-27 11:00' FROM generate_series(1, {items}) AS n",
                new="INSERT INTO cart_items (cart_id, product_id, quantity, unit_price, added_at) "
                f"SELECT {cart_id}, n + 1000, -1, -0.50, '2011-03-27 11:00+00' FROM generate_series(1, {items}) AS n",
            )
        return int(cart_id)


@dataclass(frozen=True, kw_only=True)
class Api:
    """The service over HTTP: `ann` and `bob` are users, `anyone` has no token."""

    anyone: httpx.AsyncClient
    ann: httpx.AsyncClient
    bob: httpx.AsyncClient
    admin: httpx.AsyncClient
    service: httpx.AsyncClient
    shop: Shop
    catalog: FakeCatalog
    issuer: TokenIssuer
    app: FastAPI

    async def add(self, product_id: int = MUG, quantity: int = 1) -> dict[str, Any]:
        """Ann puts something into her cart."""
        answer = await self.ann.post(
            "/carts/current/items", json={"product_id": product_id, "quantity": quantity}
        )
        assert answer.status_code == 201, answer.text
        cart: dict[str, Any] = answer.json()
        return cart

    async def cart(self) -> dict[str, Any]:
        """Ann's open cart."""
        answer = await self.ann.get("/carts/current")
        assert answer.status_code == 200, answer.text
        cart: dict[str, Any] = answer.json()
        return cart


def token(issuer: TokenIssuer, subject: str, **claims: Any) -> dict[str, str]:
    """Headers with a token for `subject`; `age` is a timedelta."""
    age: timedelta | None = claims.pop("age", None)
    if age is not None:
        clock = issuer._clock
        issuer = _copied(issuer, lambda: clock() - age)
    values = {"role": Role.USER, "name": subject.title()} | claims
    if values["role"] is Role.SERVICE:
        values["token_type"] = TokenType.SERVICE
    return {"Authorization": f"Bearer {issuer.issue(subject, **values)}"}


def _copied(issuer: TokenIssuer, clock: Any) -> TokenIssuer:
    copy = TokenIssuer.__new__(TokenIssuer)
    copy.__dict__.update(issuer.__dict__, _clock=clock)
    return copy


async def run_sql(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


def assert_problem(response: httpx.Response, status: int) -> Mapping[str, Any]:
    """The response refuses with problem details of this status; answers them."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: Mapping[str, Any] = response.json()
    assert body["status"] == status
    return body
