"""What the service speaks of, apart from how it is stored and from what goes over the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from backend.shared import ValidationError

MAX_USER_ID_LENGTH = 40
USER_ID_PATTERN = r"^[^\x00-\x1f\x7f]+$"
MAX_QUANTITY = 10_000
MAX_LINES_PER_CART = 200
MAX_WISHES_PER_USER = 1_000
MAX_UNIT_PRICE = Decimal("9999999.99")
_MAX_INT32 = 2**31 - 1
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class CartStatus(StrEnum):
    """How far a cart is. A user has one open cart at most."""

    OPEN = "open"
    CLOSED = "closed"
    """Bought."""
    CANCELLED = "cancelled"
    """Cancelled, or returned."""


@dataclass(frozen=True, kw_only=True)
class CartItem:
    """A line of a cart. In history, quantity and price may be of any sign, and a product may stand on several lines."""

    id: int
    cart_id: int
    product_id: int
    quantity: int
    unit_price: Decimal
    added_at: datetime

    @property
    def line_total(self) -> Decimal:
        """What the line comes to."""
        return self.unit_price * self.quantity


@dataclass(frozen=True, kw_only=True)
class Cart:
    """A cart with its lines, by rising id.

    `user_id` is None for what was sold over the counter. `status` and `created_at` are None where an old program has
    written what nobody can read. `is_new`: made by the very operation that answers it.
    """

    id: int
    user_id: str | None
    status: CartStatus | None
    reference: str | None
    created_at: datetime | None
    updated_at: datetime | None
    items: tuple[CartItem, ...] = ()
    is_new: bool = field(default=False, compare=False)

    @property
    def quantity(self) -> int:
        """How many pieces there are in all."""
        return sum(item.quantity for item in self.items)

    @property
    def total(self) -> Decimal:
        """What all lines come to."""
        return sum((item.line_total for item in self.items), Decimal("0.00"))


@dataclass(frozen=True, kw_only=True)
class WishItem:
    """A product that a user wishes for. `is_new`: made by the very operation that answers it."""

    id: int
    user_id: str
    product_id: int
    added_at: datetime
    is_new: bool = field(default=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Customer:
    """What the service knows of a user; `refreshed_at` is when the token was issued, or the message told, that said so."""

    user_id: str
    display_name: str | None
    is_active: bool
    refreshed_at: datetime


def check_user_id(user_id: str) -> str:
    """`user_id` if both sides can hold it; raises ValidationError for any other."""
    if not _can_be_user_id(user_id):
        raise ValidationError(
            f"a user's id has 1 to {MAX_USER_ID_LENGTH} characters, none of them for control"
        )
    return user_id


def check_id(number: int, what: str) -> int:
    """`number` if a row could have it as its id; raises ValidationError for any other."""
    if not _is_whole(number) or not 1 <= number <= _MAX_INT32:
        raise ValidationError(f"the id of a {what} is a whole number from 1 to {_MAX_INT32}")
    return number


def check_quantity(quantity: int) -> int:
    """`quantity` if a line may have it; raises ValidationError for any other."""
    if not _is_whole(quantity) or not 1 <= quantity <= MAX_QUANTITY:
        raise ValidationError(f"a quantity is a whole number from 1 to {MAX_QUANTITY}")
    return quantity


def _can_be_user_id(text: object) -> bool:
    return (
        isinstance(text, str)
        and len(text) <= MAX_USER_ID_LENGTH
        and re.fullmatch(USER_ID_PATTERN, text) is not None
        and _LONE_SURROGATE.search(text) is None
    )


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
