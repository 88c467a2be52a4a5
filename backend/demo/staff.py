"""Staff: they count and adjust stock, set prices, bring in products and categories.

Stock of a product is one member's alone. Prices are also set by the old program, so those go into the ledger in the old
shape, where the register is that of both.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.shared.domain.phases import Side

from .ledger import UNKNOWN, Effect, Row
from .shop import Answer, Outcome
from .worker import Market, Worker

MAX_STOCK = 900


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What an administrator logs in with."""

    email: str
    password: str


class StaffMember(Worker):
    """An administrator of the shop. `share` are the products whose stock is hers."""

    source = "staff"

    def __init__(
        self, market: Market, *, rng: random.Random, credentials: Credentials, share: Sequence[int]
    ) -> None:
        super().__init__(market, rng=rng)
        self._credentials = credentials
        self._share = list(share)
        self._token: str | None = None
        self._stock: dict[int, int] = {}
        self._roots: list[int] = []
        self._leaves: list[int] = []
        self._actions = (
            (self._count_stock, 12),
            (self._adjust_stock, 30),
            (self._set_price, 30),
            (self._look_at_stock, 10),
            (self._bring_in_product, 6),
            (self._make_category, 4),
            (self._rename_category, 4),
            (self._delete_category, 2),
        )

    async def act(self) -> None:
        """One thing that staff does; log in first."""
        if self._token is None:
            await self._log_in()
        else:
            actions, weights = zip(*self._actions, strict=True)
            await self.rng.choices(actions, weights)[0]()

    def forget_token(self) -> None:
        self._token = None

    async def _log_in(self) -> None:
        answer = await self.market.shop.call(
            "POST",
            "auth",
            "/auth/login",
            body={"email": self._credentials.email, "password": self._credentials.password},
        )
        if answer.ok:
            self._token = answer.body["access_token"]
        elif answer.outcome is Outcome.REFUSED:
            self.market.complain(f"log-in of the administrator answered {answer.status}")
        await self.pause(0.0 if answer.ok else 0.5)

    def _product(self) -> int:
        return self.rng.choice(self._share)

    async def _count_stock(self) -> None:
        product, quantity = self._product(), self.rng.randint(0, MAX_STOCK)
        effects = [Effect(row=_product_row(product), fields={"quantity": quantity})]
        answer = await self.write(
            "count_stock",
            "PUT",
            "product",
            f"/products/{product}/stock",
            token=self._token,
            body={"quantity": quantity},
            effects=lambda _: effects,
            doubtful=effects,
        )
        self._remember_stock(product, answer)

    async def _adjust_stock(self) -> None:
        product, delta = self._product(), self.rng.randint(-20, 20)
        before = self._stock.get(product)

        def adjusted(body: Any) -> Sequence[Effect]:
            if before is not None and body["quantity"] != before + delta:
                self.market.complain(f"stock of product {product} does not add up")
            return [Effect(row=_product_row(product), fields={"quantity": body["quantity"]})]

        answer = await self.write(
            "adjust_stock",
            "POST",
            "product",
            f"/products/{product}/stock/adjust",
            token=self._token,
            body={"delta": delta},
            effects=adjusted,
            doubtful=[Effect(row=_product_row(product), fields={"quantity": UNKNOWN})],
        )
        self._remember_stock(product, answer)

    def _remember_stock(self, product: int, answer: Answer) -> None:
        if answer.ok:
            self._stock[product] = answer.body["quantity"]
        elif answer.outcome is Outcome.IN_DOUBT:
            self._stock.pop(product, None)

    async def _look_at_stock(self) -> None:
        if not self._stock:
            return
        product = self.rng.choice(list(self._stock))
        stock = await self.ask("product", f"/products/{product}/stock")
        if stock is not None:  # the old program takes some products off sale; those answer 404
            self.market.checked_reads += 1
            if stock["quantity"] != self._stock[product]:
                self.market.complain(f"stock of product {product} is not what was acknowledged")

    async def _set_price(self) -> None:
        product, cents = self.rng.choice(self.market.products), self.rng.randint(50, 9_999)
        effects = [Effect(row=_old_product_row(product), fields={"price_cents": cents})]
        await self.write(
            "set_price",
            "PATCH",
            "product",
            f"/products/{product}",
            token=self._token,
            body={"price": _price(cents)},
            effects=lambda _: effects,
            doubtful=effects,
        )

    async def _bring_in_product(self) -> None:
        cents, quantity = self.rng.randint(50, 9_999), self.rng.randint(0, MAX_STOCK)
        fields = {
            "sku": f"DEMO-{secrets.token_hex(6)}",
            "name": self.rng.choice(("Teapot ☕", "  Mug  ", "Käsehobel", "")),
            "category_id": None,
        }

        def brought_in(body: Any) -> Sequence[Effect]:
            known = {**fields, "is_active": True, "quantity": quantity}
            self._share.append(body["id"])
            self._stock[body["id"]] = quantity
            return [
                Effect(row=_product_row(body["id"]), fields=known),
                Effect(row=_old_product_row(body["id"]), fields={"price_cents": cents}),
            ]

        await self.write(
            "create_product",
            "POST",
            "product",
            "/products",
            token=self._token,
            body={**fields, "price": _price(cents), "quantity": quantity},
            effects=brought_in,
        )

    async def _make_category(self) -> None:
        # Below a root of her own only: the old program renames the others by their paths.
        parent = self.rng.choice(self._roots) if self._roots and self.rng.random() < 0.7 else None
        fields = {"name": f"Demo {secrets.token_hex(4)}", "parent_id": parent}

        def made(body: Any) -> Sequence[Effect]:
            (self._roots if parent is None else self._leaves).append(body["id"])
            return [Effect(row=_category_row(body["id"]), fields=fields)]

        await self.write(
            "create_category", "POST", "product", "/categories", token=self._token, body=fields, effects=made
        )

    async def _rename_category(self) -> None:
        if not self._roots:
            return
        category = self.rng.choice(self._roots + self._leaves)
        name = f"Demo {secrets.token_hex(4)}"
        effects = [Effect(row=_category_row(category), fields={"name": name})]
        await self.write(
            "rename_category",
            "PATCH",
            "product",
            f"/categories/{category}",
            token=self._token,
            body={"name": name},
            effects=lambda _: effects,
            doubtful=effects,
        )

    async def _delete_category(self) -> None:
        if not self._leaves:
            return
        category = self._leaves.pop(self.rng.randrange(len(self._leaves)))
        effects = [Effect(row=_category_row(category), deleted=True)]
        answer = await self.write(
            "delete_category",
            "DELETE",
            "product",
            f"/categories/{category}",
            token=self._token,
            effects=lambda _: effects,
            doubtful=effects,
        )
        if answer.outcome is Outcome.NOT_SENT:
            self._leaves.append(category)


def _price(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _product_row(product: int) -> Row:
    return Row(service="product", entity="product", shape=Side.NEW, columns=("id",), values=(product,))


def _old_product_row(product: int) -> Row:
    return Row(
        service="product", entity="product", shape=Side.LEGACY, columns=("prod_no",), values=(product,)
    )


def _category_row(category: int) -> Row:
    return Row(service="product", entity="category", shape=Side.NEW, columns=("id",), values=(category,))
