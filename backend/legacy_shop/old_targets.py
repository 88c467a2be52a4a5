"""The rows that the old program works on."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

SAMPLE_LIMIT = 2_000
TOGGLED_COUNT = 20


@dataclass(kw_only=True)
class Targets:
    """Keys that were there when the program began, and those it made itself.

    Rows that others make meanwhile are left to them, so that nobody overwrites what the old program says it wrote but the
    services it competes with.
    """

    users: list[str]
    products: list[int]
    categories: list[int]
    sales: list[int]
    wishes: list[int]
    serial: int
    """Grows with every use and every run; makes names unique."""

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial

    @property
    def toggled(self) -> list[int]:
        """The few products that are discontinued and reinstated; the rest of the shop can still be bought."""
        return self.products[:TOGGLED_COUNT]


async def find_targets(connection: Any, *, seed: int, spare_users: Collection[str]) -> Targets:
    """A sample of each table, the same for the same rows and seed."""

    async def keys(column: str, table: str, condition: str = "true") -> list[Any]:
        rows = await connection.fetch(
            f"SELECT {column} AS key FROM public.{table} WHERE {condition}"
            f" ORDER BY md5({column} || $1), {column} LIMIT {SAMPLE_LIMIT}",
            f" {seed}",
        )
        return [row["key"] for row in rows]

    users = await keys("usr_id", "users")
    return Targets(
        users=[key for key in users if key not in spare_users],
        products=await keys("prod_no", "prod"),
        categories=await keys("cat_no", "cat"),
        sales=await keys("cart_no", "carts", "state = 'C'"),
        wishes=await keys("wish_no", "wish"),
        serial=await connection.fetchval("SELECT last_value FROM public.carts_cart_no_seq"),
    )


def pop_random(items: list[T], *, rng: random.Random) -> T:
    """Take one out, in constant time."""
    place = rng.randrange(len(items))
    items[place], items[-1] = items[-1], items[place]
    return items.pop()
