"""What is irregular in the generated shop, and how the load report calls it."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from backend.legacy_shop.local_time import LONDON, wall_clock_text


class GeneratedDirt(StrEnum):
    TEXT_NULL = "text_null"
    TEXT_EMPTY = "text_empty"
    TEXT_PADDED = "text_padded"
    TEXT_NON_ASCII = "text_non_ascii"
    USERS_MIXED_CASE_EMAIL = "users_mixed_case_email"
    USERS_WITHOUT_PASSWORD = "users_without_password"  # noqa: S105 - a name
    USERS_INACTIVE = "users_inactive"
    PRODUCTS_CASE_TWINS = "products_case_twins"
    PRODUCTS_ZERO_PRICE = "products_zero_price"
    PRODUCTS_WITHOUT_CATEGORY = "products_without_category"
    CARTS_WITHOUT_CUSTOMER = "carts_without_customer"
    CARTS_OF_UNKNOWN_CUSTOMER = "carts_of_unknown_customer"
    CARTS_WITHOUT_LINES = "carts_without_lines"
    LINES_NEGATIVE_QUANTITY = "lines_negative_quantity"
    LINES_ZERO_PRICE = "lines_zero_price"
    LINES_NEGATIVE_PRICE = "lines_negative_price"
    LINES_OF_UNKNOWN_PRODUCT = "lines_of_unknown_product"
    TIMES_SUMMER = "times_summer"
    TIMES_WINTER = "times_winter"


DirtCounts: TypeAlias = Counter[GeneratedDirt]


class DirtyData:
    """Draws values with the irregularities of a table that many programs wrote to, and counts them."""

    FIRST_DAY = datetime(2023, 1, 1)  # noqa: DTZ001 - UTC, as in the tables
    SECONDS = 2 * 365 * 86_400

    def __init__(self, rng: random.Random, *, counts: DirtCounts) -> None:
        self.rng = rng
        self._counts = counts

    def count(self, kind: GeneratedDirt, *, when: bool = True) -> bool:
        """`when`, having counted one of `kind` if it is true."""
        self._counts[kind] += when
        return when

    def chance(self, percent: float) -> bool:
        return self.rng.random() * 100 < percent

    def text(self, value: str, *, null_percent: float = 4, empty_percent: float = 3) -> str | None:
        """`value`, or now and then NULL, the empty string, or the same with white space round it."""
        if self.count(GeneratedDirt.TEXT_NULL, when=self.chance(null_percent)):
            return None
        if self.count(GeneratedDirt.TEXT_EMPTY, when=self.chance(empty_percent)):
            return ""
        if self.count(GeneratedDirt.TEXT_PADDED, when=self.chance(5)):
            value = self.rng.choice((f" {value}", f"{value} ", f"{value}  ", f"\t{value}", f"{value}\u00a0"))
        self.count(GeneratedDirt.TEXT_NON_ASCII, when=not value.isascii())
        return value

    def moment(self) -> datetime:
        """A UTC time, half of them with microseconds."""
        moment = self.FIRST_DAY + timedelta(seconds=self.rng.randrange(self.SECONDS))
        return moment + timedelta(microseconds=self.rng.randrange(1_000_000)) if self.chance(50) else moment

    def wall_clock(self, moment: datetime) -> str:
        text = wall_clock_text(moment)
        summer = bool(datetime.fromisoformat(text).replace(tzinfo=LONDON).dst())
        self.count(GeneratedDirt.TIMES_SUMMER if summer else GeneratedDirt.TIMES_WINTER)
        return text
