"""What the service speaks of, apart from how it is stored and from what goes over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from backend.messages.orders import OrderLine as LineOfMessage
from backend.messages.orders import SagaStyle
from backend.shared import ConflictError, ValidationError
from backend.shared.events.saga import Saga

MAX_LINES = 500
MAX_TOTAL = Decimal("9999999.99")
KEY_PATTERN = r"^[!-~]{1,100}$"


class OrderStatus(StrEnum):
    """What has become of an order."""

    PLACED = "placed"
    CONFIRMED = "confirmed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class OrderLine:
    """So many of a product, at the price that the cart had."""

    product_id: int
    quantity: int
    unit_price: Decimal


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order with its lines."""

    id: int
    user_id: str
    cart_id: int
    status: OrderStatus
    total: Decimal
    reason: str | None
    placed_at: datetime
    updated_at: datetime | None
    lines: tuple[OrderLine, ...] = ()
    is_new: bool = False


@dataclass(frozen=True, kw_only=True)
class OrderSaga:
    """How an order makes its way: its saga, and what was heard of it, oldest first.

    `trace` is the trace context that it was placed in: what is done for it later, and because of no message, belongs there too.
    """

    order_id: int
    style: SagaStyle
    saga: Saga
    history: tuple[dict[str, Any], ...]
    trace: Mapping[str, str]
    started_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class CartToOrder:
    """The open cart of a user, as the cart service tells it."""

    id: int
    user_id: str
    lines: tuple[OrderLine, ...]

    @property
    def total(self) -> Decimal:
        """What it costs."""
        return sum((line.quantity * line.unit_price for line in self.lines), Decimal(0))

    def check(self) -> CartToOrder:
        """Itself; raises ConflictError for one that cannot be ordered."""
        if not self.lines:
            raise ConflictError("there is nothing in the cart")
        if len(self.lines) > MAX_LINES:
            raise ConflictError(f"an order has {MAX_LINES} lines at most")
        if any(line.quantity <= 0 or line.unit_price < 0 for line in self.lines):
            raise ConflictError("the cart has a line of history, which cannot be ordered")
        if self.total > MAX_TOTAL:
            raise ConflictError(f"an order costs {MAX_TOTAL} at most")
        return self


@dataclass(frozen=True, kw_only=True)
class ProductSeen:
    """A product as it was heard of; `epoch` and `at` say how late that was."""

    product_id: int
    sku: str
    name: str | None
    price: Decimal
    is_active: bool
    epoch: int
    at: int


def told(order: Order) -> tuple[LineOfMessage, ...]:
    """The lines of an order as others are told of them."""
    return tuple(LineOfMessage(product_id=line.product_id, quantity=line.quantity) for line in order.lines)


def check_id(number: int, what: str) -> int:
    """`number` itself; raises ValidationError for one that no table can hold."""
    if not 0 < number <= 2**31 - 1:
        raise ValidationError(f"the id of a {what} is a whole number above 0")
    return number
