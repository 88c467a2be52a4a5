"""Users, categories, products and wishes of the generated shop."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

from backend.legacy_shop.generated_dirt import DirtCounts, DirtyData, GeneratedDirt
from backend.legacy_shop.size import ShopSize
from backend.legacy_shop.vocabulary import (
    ADJECTIVES,
    CATEGORY_NAMES,
    CATEGORY_ROOTS,
    CITIES,
    COUNTRIES,
    FIRST_NAMES,
    LAST_NAMES,
    MOTIFS,
    STREETS,
    WARES,
)

CATEGORY_DEPTH = 4

#: A customer and a product that examples may count on: active, priced, in stock, without an open cart.
EXAMPLE_USER = "user123"
EXAMPLE_PRODUCT = 456


def user_id(index: int) -> str:
    """The id of the user at `index`, from 0. The shop numbered its customers, until one of its programs named some."""
    if index == 0:
        return EXAMPLE_USER
    return f"web-{index:05d}" if index % 50 == 7 else str(10_000 + index)


def list_price_cents(product: int, *, seed: int) -> int:
    """The price of a product, without a table of them: 0 for one in fifty, seldom above 100 pounds."""
    if product != EXAMPLE_PRODUCT and (product + seed) % 50 == 0:
        return 0
    mixed = (product * 2_654_435_761 + seed * 40_503) % 2**32
    return 29 + mixed % (1_000_000 if mixed % 97 == 0 else 9_900)


class TableMaker:
    """Draws the rows of each table from a random stream of its own, so that one table's size leaves the others be."""

    def __init__(self, *, seed: int, size: ShopSize, counts: DirtCounts) -> None:
        self._seed = seed
        self._size = size
        self._counts = counts

    def _draw(self, table: str) -> DirtyData:
        return DirtyData(random.Random(f"{self._seed} {table}"), counts=self._counts)

    def users(self) -> Iterator[tuple[Any, ...]]:
        draw = self._draw("users")
        for index in range(self._size.users):
            yield self._user(draw, index=index)

    def _user(self, draw: DirtyData, *, index: int) -> tuple[Any, ...]:
        example = index == 0
        first, last = draw.rng.choice(FIRST_NAMES), draw.rng.choice(LAST_NAMES)
        registered = draw.moment()
        changed = registered + timedelta(days=draw.rng.randrange(300)) if draw.chance(60) else None
        inactive = draw.count(GeneratedDirt.USERS_INACTIVE, when=draw.chance(3) and not example)
        phone = f"+44 20 {draw.rng.randrange(10_000):04d} {draw.rng.randrange(10_000):04d}"
        return (
            user_id(index),
            self._email(draw, index=index, first=first, last=last),
            self._password(draw),
            draw.text(first),
            draw.text(last),
            draw.text(phone, null_percent=30, empty_percent=10),
            draw.text(f"{draw.rng.randint(1, 200)} {draw.rng.choice(STREETS)}", null_percent=10),
            draw.text(draw.rng.choice(CITIES)),
            draw.text(draw.rng.choice(COUNTRIES)),
            "A" if index % 500 == 499 else "U",
            int(not inactive),
            int(draw.chance(35)),
            draw.rng.choice((0, 0, 0, 0, 500, 2_500)),
            draw.wall_clock(registered),
            draw.wall_clock(changed) if changed else None,
        )

    def _email(self, draw: DirtyData, *, index: int, first: str, last: str) -> str:
        if index == 0:
            return f"{EXAMPLE_USER}@example.com"
        plain = unicodedata.normalize("NFKD", f"{first}.{last}").encode("ascii", "ignore").decode()
        local = (
            "".join(letter for letter in plain if letter.isalnum() or letter == ".").strip(".") or "customer"
        )
        mixed = draw.count(GeneratedDirt.USERS_MIXED_CASE_EMAIL, when=draw.chance(15))
        address = f"{local}{index}@{draw.rng.choice(('Example.com', 'Example.org', 'mail.Example.net'))}"
        return address if mixed else address.lower()

    def _password(self, draw: DirtyData) -> str | None:
        """A hash of the old kind, of no known password. Some customers never chose one."""
        if draw.count(GeneratedDirt.USERS_WITHOUT_PASSWORD, when=draw.chance(30)):
            return None
        return f"sha1${draw.rng.getrandbits(32):08x}${draw.rng.getrandbits(160):040x}"

    def categories(self) -> Iterator[tuple[Any, ...]]:
        """Every parent comes before its children, and there is one for each but the roots."""
        draw = self._draw("cat")
        nodes: list[tuple[str, int]] = []
        taken: set[str] = set()
        for number in range(1, self._size.categories + 1):
            parents = [node for node in nodes[-200:] if node[1] < CATEGORY_DEPTH]
            if len(nodes) < len(CATEGORY_ROOTS):
                path, depth = CATEGORY_ROOTS[len(nodes)], 1
            else:
                parent, above = draw.rng.choice(parents or nodes[:1])
                path, depth = f"{parent}/{draw.rng.choice(CATEGORY_NAMES)}", above + 1
            path = next(name for name in _numbered(path) if name not in taken)
            taken.add(path)
            nodes.append((path, depth))
            yield number, path

    def products(self) -> Iterator[tuple[Any, ...]]:
        draw = self._draw("prod")
        for number in range(1, self._size.products + 1):
            yield self._product(draw, number=number)

    def _product(self, draw: DirtyData, *, number: int) -> tuple[Any, ...]:
        example = number == EXAMPLE_PRODUCT
        ware = " ".join((draw.rng.choice(ADJECTIVES), draw.rng.choice(MOTIFS), draw.rng.choice(WARES)))
        description = draw.text(ware, null_percent=3, empty_percent=1)
        price = list_price_cents(number, seed=self._seed)
        draw.count(GeneratedDirt.PRODUCTS_ZERO_PRICE, when=price == 0)
        homeless = self._size.categories == 0 or draw.chance(4)
        draw.count(GeneratedDirt.PRODUCTS_WITHOUT_CATEGORY, when=homeless)
        created = draw.moment()
        changed = created + timedelta(seconds=draw.rng.randrange(10_000_000)) if draw.chance(50) else None
        return (
            number,
            self._stock_code(draw, number=number),
            ware if example else description,
            price,
            None if homeless else draw.rng.randint(1, self._size.categories),
            10_000 if example else draw.rng.choice((0, *(draw.rng.randint(1, 1_000) for _ in range(9)))),
            int(draw.chance(5) and not example),
            created,
            changed,
        )

    def _stock_code(self, draw: DirtyData, *, number: int) -> str:
        """Five digits and now and then a letter; two products in forty differ in its case alone."""
        place = number % 40
        if place in {38, 39}:
            draw.count(GeneratedDirt.PRODUCTS_CASE_TWINS)
            return f"{10_000 + number - place + 38}{'A' if place == 38 else 'a'}"
        return f"{10_000 + number}{'BCDES'[number % 5] if number % 3 == 0 else ''}"

    def wishes(self) -> Iterator[tuple[Any, ...]]:
        """Spread evenly over the users; none of them wishes for a product twice."""
        draw = self._draw("wish")
        size, numbers = self._size, count(1)
        for index in range(size.users):
            share = size.wishes * (index + 1) // size.users - size.wishes * index // size.users
            for product in draw.rng.sample(range(1, size.products + 1), share):
                yield next(numbers), user_id(index), product, draw.moment()


def _numbered(path: str) -> Iterator[str]:
    yield path
    yield from (f"{path} {number}" for number in count(2))
