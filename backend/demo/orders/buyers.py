"""Customers who order what is in their carts, so many at a time, each until she knows what has become of her asking."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from http import HTTPStatus

from backend.demo.errors import StepError
from backend.demo.shop import Answer, Shop
from backend.demo.waiting import all_at_once
from backend.shared.api.tokens import Role, TokenIssuer

AT_ONCE = 8
PAUSE_SECONDS = 0.3
LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 180.0
RICH = Decimal("1000000.00")
SHORT_OF_STOCK = 6_000
"""More than there is of anything that is sold in this demo."""
DECLINED_SHARE, SHORT_SHARE, CANCELLED_SHARE = 0.10, 0.05, 0.03


class Kind(StrEnum):
    """What will come of an order, as far as the demo sees to it."""

    GOOD = "good"
    BEFORE = "with what was in the cart before"
    """Of history's carts: much of that is not sold any more, or not in such numbers."""
    DECLINED = "declined"
    SHORT = "short of stock"
    CANCELLED = "cancelled by the customer"


@dataclass(frozen=True, kw_only=True)
class Buyer:
    """A customer, and what she is going to do. Everybody orders once."""

    user_id: str
    kind: Kind
    products: tuple[tuple[int, int], ...]


@dataclass(kw_only=True)
class Bought:
    """What was asked for: orders by number, with who asked."""

    orders: dict[int, Buyer] = field(default_factory=dict)
    credit: dict[str, Decimal] = field(default_factory=dict)
    """What each buyer was given to spend."""
    refused: list[str] = field(default_factory=list)
    """Buyers who were told that they cannot order at all, and why."""
    repeated: int = 0
    """So often an order was asked for again, because nobody knew what had become of it."""


def cast_buyers(users: Mapping[str, bool], products: Sequence[int], *, orders: int, seed: int) -> list[Buyer]:
    """As many buyers as orders, each another of `users`, in a mixed order. The mapping says whose cart is not empty."""
    rng = random.Random(f"{seed} buyers")
    kinds = [
        *([Kind.DECLINED] * round(orders * DECLINED_SHARE)),
        *([Kind.SHORT] * round(orders * SHORT_SHARE)),
        *([Kind.CANCELLED] * round(orders * CANCELLED_SHARE)),
    ]
    kinds += [Kind.GOOD] * (orders - len(kinds))
    rng.shuffle(kinds)
    if len(users) < orders:
        raise StepError(f"there are only {len(users)} customers for {orders} orders")
    buyers = []
    for user_id, kind in zip(rng.sample(list(users), orders), kinds, strict=True):
        wanted = [(number, rng.randint(1, 3)) for number in rng.sample(list(products), rng.randint(1, 3))]
        if kind is Kind.SHORT:
            wanted[0] = (wanted[0][0], SHORT_OF_STOCK)
        if kind is Kind.GOOD and users[user_id]:
            kind = Kind.BEFORE  # noqa: PLW2901 - it is that
        buyers.append(Buyer(user_id=user_id, kind=kind, products=tuple(wanted)))
    return buyers


async def look_around(shop: Shop, products: Sequence[int], *, seed: int) -> None:
    """Somebody who buys nothing looks at one product after the other, until she is cancelled."""
    rng = random.Random(f"{seed} looks around")
    while True:
        await shop.call("GET", "product", f"/products/{rng.choice(products)}")
        await asyncio.sleep(LOOK_SECONDS)


class Buyers:
    """Everybody orders once; `place_all` returns when the last one knows her order's number."""

    def __init__(self, shop: Shop, issuer: TokenIssuer, buyers: Sequence[Buyer], *, at_once: int) -> None:
        self.bought = Bought()
        self.begun = 0
        self._shop = shop
        self._issuer = issuer
        self._waiting = list(reversed(buyers))
        self._at_once = at_once

    async def place_all(self) -> None:
        """Raises `StepError` if somebody is not heard for long."""
        await all_at_once(*(self._work() for _ in range(self._at_once)))

    async def _work(self) -> None:
        while self._waiting:
            buyer = self._waiting.pop()
            self.begun += 1
            await self._buy(buyer)

    async def _buy(self, buyer: Buyer) -> None:
        token = self._issuer.issue(buyer.user_id, role=Role.USER)
        credit = Decimal("0.00") if buyer.kind is Kind.DECLINED else RICH
        await self._until(
            "PUT",
            "payment",
            f"/accounts/{buyer.user_id}",
            token=self._issuer.service_token("demo"),
            body={"credit": str(credit)},
        )
        self.bought.credit[buyer.user_id] = credit
        for product_id, quantity in buyer.products:
            await self._put_in(token, product_id, quantity)
        answer = await self._until(
            "POST", "order", "/orders", token=token, key=f"demo-{buyer.user_id}", refusals=(409,)
        )
        if not answer.ok:
            self.bought.refused.append(f"{buyer.user_id}: {answer.body}")
            return
        number = int(answer.body["id"])
        self.bought.orders[number] = buyer
        if buyer.kind is Kind.CANCELLED:
            await self._until("POST", "order", f"/orders/{number}/cancel", token=token)

    async def _put_in(self, token: str, product_id: int, quantity: int) -> None:
        """She looks at it, and puts it into her cart. After an answer that was lost she looks whether it is there."""
        await self._until("GET", "product", f"/products/{product_id}")
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            answer = await self._shop.call(
                "POST",
                "cart",
                "/carts/current/items",
                token=token,
                body={"product_id": product_id, "quantity": quantity},
            )
            if answer.ok or answer.status == HTTPStatus.CONFLICT:
                return  # or no more of it goes into a cart that has so much of it from before
            _check_goes_on(answer, "POST /carts/current/items", deadline)
            await asyncio.sleep(PAUSE_SECONDS)
            cart = await self._until("GET", "cart", "/carts/current", token=token, refusals=(404,))
            items = cart.body["items"] if cart.ok else []
            if any(item["product_id"] == product_id and item["quantity"] >= quantity for item in items):
                return

    async def _until(
        self,
        method: str,
        service: str,
        path: str,
        *,
        token: str | None = None,
        body: dict[str, str] | None = None,
        key: str | None = None,
        refusals: tuple[int, ...] = (),
    ) -> Answer:
        """Ask again until there is an answer: it may all be repeated."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            answer = await self._shop.call(method, service, path, token=token, body=body, headers=headers)
            if answer.ok or answer.status in refusals:
                return answer
            _check_goes_on(answer, f"{method} {path}", deadline)
            if key:
                self.bought.repeated += 1
            await asyncio.sleep(PAUSE_SECONDS)


def _check_goes_on(answer: Answer, what: str, deadline: float) -> None:
    """Raise `StepError` for a refusal, which will not change, and when it was waited for long enough."""
    if 400 <= answer.status < 500 or asyncio.get_running_loop().time() > deadline:
        raise StepError(f"{what}: {answer.status} {answer.body}")
