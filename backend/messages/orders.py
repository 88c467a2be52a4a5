"""What all messages about an order have in common, and what the order service tells of it."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.shared.events.envelope import Command, DomainEvent, Message


class SagaStyle(StrEnum):
    """Who decides what comes next: each participant by itself, or the order service for all."""

    CHOREOGRAPHED = "choreographed"
    ORCHESTRATED = "orchestrated"


class Participant(StrEnum):
    """Who takes part in an order."""

    ORDER = "order"
    PAYMENT = "payment"
    PRODUCT = "product"
    CART = "cart"


class Failure(BaseModel):
    """Who could not do its part, and why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    participant: Participant
    reason: str


class AboutOrder(Message):
    """A message about one order. `style` is that of its saga, so that a participant needs no setting."""

    order_id: int
    style: SagaStyle

    @property
    def aggregate_id(self) -> str:
        """The order's id: what is told of one order goes to one place."""
        return str(self.order_id)


class AboutUndoing(AboutOrder):
    """A message of an order that is being taken back. `failure` is what began it, None if somebody asked for it."""

    failure: Failure | None = None


class AboutUndone(AboutUndoing):
    """Something is undone. `by_hand`: it was only noted so, since somebody had said that it was undone elsewhere."""

    by_hand: bool = False


class OrderLine(BaseModel):
    """So many of a product."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    product_id: int
    quantity: int = Field(gt=0)


class OrderPlaced(AboutOrder, DomainEvent):
    """A customer has ordered what was in her cart."""

    message_type: ClassVar[str] = "OrderPlaced"
    aggregate_type: ClassVar[str] = "order"

    user_id: str
    cart_id: int
    lines: tuple[OrderLine, ...]
    total: Decimal


class OrderConfirmed(AboutOrder, DomainEvent):
    """Money is captured and stock reserved."""

    message_type: ClassVar[str] = "OrderConfirmed"
    aggregate_type: ClassVar[str] = "order"

    user_id: str
    cart_id: int


class OrderCancelRequested(AboutUndoing, DomainEvent):
    """The order is to be taken back, whatever of it was done."""

    message_type: ClassVar[str] = "OrderCancelRequested"
    aggregate_type: ClassVar[str] = "order"


class OrderCancelled(AboutUndoing, DomainEvent):
    """Nothing of it is left."""

    message_type: ClassVar[str] = "OrderCancelled"
    aggregate_type: ClassVar[str] = "order"

    user_id: str
    cart_id: int


class AuthorisePayment(AboutOrder, Command):
    """Set money of the customer's aside."""

    message_type: ClassVar[str] = "AuthorisePayment"
    aggregate_type: ClassVar[str] = "payment"

    user_id: str
    amount: Decimal


class CapturePayment(AboutOrder, Command):
    """Take the money that was set aside."""

    message_type: ClassVar[str] = "CapturePayment"
    aggregate_type: ClassVar[str] = "payment"


class UndoCommand(AboutUndoing, Command):
    """Something is to be undone, or was, `by_hand`: then that is only noted, as if it had been done by whoever is told."""

    by_hand: bool = False


class RefundPayment(UndoCommand):
    """Give back what was captured, if it was, and let nothing be captured any more."""

    message_type: ClassVar[str] = "RefundPayment"
    aggregate_type: ClassVar[str] = "payment"


class VoidPayment(UndoCommand):
    """Let go of what was set aside, if it was, and let nothing be set aside any more."""

    message_type: ClassVar[str] = "VoidPayment"
    aggregate_type: ClassVar[str] = "payment"


class ReserveStock(AboutOrder, Command):
    """Take what was ordered off the shelves."""

    message_type: ClassVar[str] = "ReserveStock"
    aggregate_type: ClassVar[str] = "stock"

    lines: tuple[OrderLine, ...]


class ReleaseStock(UndoCommand):
    """Put back what was reserved, if it was, and let nothing be reserved any more."""

    message_type: ClassVar[str] = "ReleaseStock"
    aggregate_type: ClassVar[str] = "stock"
