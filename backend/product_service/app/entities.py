"""What the service speaks of, apart from how it is stored and from what goes over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from backend.messages.orders import SagaStyle

MAX_STOCK_COUNT = 1_000_000_000
MAX_PRICE = Decimal("9999999.99")
"""As much as seven digits say; the legacy column, in cents, holds a little more than twice that."""
MAX_CATEGORY_LEVELS = 10
MAX_CATEGORY_PATH = 300


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product with its stock. History has names that are None or blank, prices below zero, and stock below zero."""

    id: int
    sku: str
    name: str | None
    price: Decimal
    category_id: int | None
    is_active: bool
    created_at: datetime
    updated_at: datetime | None
    quantity: int


@dataclass(frozen=True, kw_only=True)
class NewProduct:
    """What it takes to create a product."""

    sku: str
    name: str | None
    price: Decimal
    category_id: int | None = None
    quantity: int = 0
    is_active: bool = True


@dataclass(frozen=True, kw_only=True)
class Stock:
    """How many of a product there are."""

    product_id: int
    quantity: int


class Keep:
    """Stands for a value that stays as it is."""

    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = Keep()


@dataclass(frozen=True, kw_only=True)
class ProductChanges:
    """A change of a product; what is `KEEP` stays."""

    sku: str | Keep = KEEP
    name: str | Keep | None = KEEP
    price: Decimal | Keep = KEEP
    category_id: int | Keep | None = KEEP

    def named(self) -> dict[str, Any]:
        """The values to change, by field name."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, Keep)}


@dataclass(frozen=True, kw_only=True)
class CategoryChanges:
    """A new name, a new parent (None: a root), or both; what is `KEEP` stays."""

    name: str | Keep = KEEP
    parent_id: int | Keep | None = KEEP


class ProductSort(StrEnum):
    """Orders of the listing; ties are broken by id, so that pages do not overlap."""

    ID = "id"
    ID_DESCENDING = "-id"
    NAME = "name"
    NAME_DESCENDING = "-name"
    PRICE = "price"
    PRICE_DESCENDING = "-price"

    @property
    def field(self) -> str:
        """What is sorted by."""
        return self.value.removeprefix("-")

    @property
    def is_descending(self) -> bool:
        return self.value.startswith("-")


@dataclass(frozen=True, kw_only=True)
class ProductFilter:
    """Which products to list; None: whatever it is. A category stands for all below it too."""

    words: tuple[str, ...] = ()
    category_id: int | None = None
    price_min: Decimal | None = None
    price_max: Decimal | None = None
    is_active: bool | None = None
    in_stock: bool | None = None


class ReservationState(StrEnum):
    """How far the reservation for one order has come."""

    NEW = "new"
    """Nothing was taken yet."""
    RESERVED = "reserved"
    REJECTED = "rejected"
    RELEASED = "released"
    USED = "used"
    """It has left the house: there is no way back."""


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """What one order takes off the shelves: pieces by product, None as long as nobody has said what."""

    order_id: int
    style: SagaStyle
    state: ReservationState
    pieces: Mapping[int, int] | None
    may_begin: bool
    """The order has come so far that goods may be taken."""
    is_stopped: bool
    """It is being taken back: nothing more is to be taken, however late somebody asks for it."""
    is_by_hand: bool
    """Somebody has seen to the goods elsewhere; here that was noted."""
    reason: str | None
