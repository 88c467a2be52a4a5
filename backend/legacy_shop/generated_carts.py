"""Carts of the generated shop, with their lines."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from backend.legacy_shop.generated_dirt import DirtCounts, DirtyData, GeneratedDirt
from backend.legacy_shop.generated_tables import list_price_cents, user_id
from backend.legacy_shop.size import ShopSize

#: So many numbers after the last product belonged to products that are gone, but not from old carts.
GONE_PRODUCTS = 50


@dataclass(frozen=True, kw_only=True)
class MadeCart:
    record: tuple[Any, ...]
    lines: list[tuple[Any, ...]]


class CartMaker:
    """Makes carts one after the other. All lines asked for are spread over all carts asked for."""

    def __init__(self, *, seed: int, size: ShopSize, counts: DirtCounts) -> None:
        self._seed = seed
        self._size = size
        self._draw = DirtyData(random.Random(f"{seed} carts"), counts=counts)
        self._cart = 0
        self._line = 0
        self._open_count = min(size.carts // 12, max(size.users - 1, 0) // 4)
        self._open_step = size.carts // (self._open_count + 1)

    def take(self, limit: int) -> list[MadeCart]:
        """The next carts, at most `limit`; none when all are made."""
        last = min(self._cart + limit, self._size.carts)
        return [self._next() for _ in range(self._cart, last)]

    def _next(self) -> MadeCart:
        self._cart += 1
        owner = self._owner_of_open()
        opened = self._draw.moment()
        state = "O" if owner else "X" if self._draw.chance(4) else "C"
        customer = owner or self._customer()
        lines = self._lines(state, opened=opened)
        self._draw.count(GeneratedDirt.CARTS_WITHOUT_LINES, when=not lines)
        reference = None if owner else self._draw.text(f"INV{self._cart:07d}", null_percent=6)
        changed = opened + timedelta(minutes=self._draw.rng.randrange(90)) if self._draw.chance(80) else None
        record = (self._cart, customer, state, reference, self._draw.wall_clock(opened), changed)
        return MadeCart(record=record, lines=lines)

    def _owner_of_open(self) -> str | None:
        """A user for every so-many-th cart, never the last, which takes what lines are left. None is the example's."""
        turn, between = divmod(self._cart, self._open_step)
        if between or turn > self._open_count:
            return None
        return user_id(1 + (turn - 1) * ((self._size.users - 1) // self._open_count))

    def _customer(self) -> str | None:
        draw = self._draw
        if draw.count(GeneratedDirt.CARTS_WITHOUT_CUSTOMER, when=draw.chance(8) or not self._size.users):
            return None
        if draw.count(GeneratedDirt.CARTS_OF_UNKNOWN_CUSTOMER, when=draw.chance(1)):
            return f"gone-{draw.rng.randrange(1_000)}"
        return user_id(draw.rng.randrange(self._size.users))

    def _lines(self, state: str, *, opened: datetime) -> list[tuple[Any, ...]]:
        share = self._share(most=self._size.products if state == "O" else None)
        products = range(1, self._size.products + 1)
        if state == "O":
            chosen = self._draw.rng.sample(products, share)
        else:
            chosen = [self._draw.rng.choice(products) for _ in range(share)]
        return [self._row(state, product=product, opened=opened) for product in chosen]

    def _share(self, *, most: int | None) -> int:
        """How many of the lines still to be made this cart gets."""
        lines_left = self._size.lines - self._line
        carts_left = self._size.carts - self._cart + 1
        if carts_left == 1:
            return lines_left
        share = self._draw.rng.randint(0, 2 * lines_left // carts_left)
        return min(share, lines_left, lines_left if most is None else most)

    def _row(self, state: str, *, product: int, opened: datetime) -> tuple[Any, ...]:
        draw = self._draw
        quantity = draw.rng.choice((1, 1, 1, 2, 3, 4, 6, 12, 24))
        cents = list_price_cents(product, seed=self._seed)
        if state != "O":
            if draw.count(GeneratedDirt.LINES_NEGATIVE_QUANTITY, when=state == "X" or draw.chance(2)):
                quantity = -quantity
            if draw.count(GeneratedDirt.LINES_NEGATIVE_PRICE, when=draw.chance(0.2)):
                cents = -cents - 1
            if draw.count(GeneratedDirt.LINES_OF_UNKNOWN_PRODUCT, when=draw.chance(0.5)):
                product = self._size.products + draw.rng.randint(1, GONE_PRODUCTS)
        draw.count(GeneratedDirt.LINES_ZERO_PRICE, when=cents == 0)
        self._line += 1
        added = opened + timedelta(seconds=draw.rng.randrange(3_600))
        return self._line, self._cart, product, quantity, cents, added
