"""What the service speaks of, apart from how it is stored and from what goes over the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from backend.messages.orders import SagaStyle
from backend.shared import ValidationError

MAX_AMOUNT = Decimal("9999999999.99")
USER_ID_PATTERN = r"^[A-Za-z0-9_.:@~-]{1,40}$"


class PaymentState(StrEnum):
    """How far the payment of one order has come."""

    NEW = "new"
    """Nothing was done yet."""
    AUTHORISED = "authorised"
    DECLINED = "declined"
    CAPTURED = "captured"
    REFUNDED = "refunded"
    VOIDED = "voided"


@dataclass(frozen=True, kw_only=True)
class Payment:
    """The payment of one order. `amount` is 0 as long as nobody has said how much it is."""

    order_id: int
    style: SagaStyle
    user_id: str
    amount: Decimal
    state: PaymentState
    is_stopped: bool
    """It is being taken back: nothing more is to be set aside or captured, however late somebody asks for it."""
    is_by_hand: bool
    """Somebody has undone it elsewhere; here that was noted."""
    reason: str | None
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a customer may spend: `credit`, of which `held` is set aside for orders under way."""

    user_id: str
    credit: Decimal
    held: Decimal

    @property
    def available(self) -> Decimal:
        """What a new order may cost at most."""
        return self.credit - self.held


def check_amount(amount: Decimal) -> Decimal:
    """`amount` itself; raises ValidationError for one that no account can hold."""
    if not amount.is_finite() or amount < 0 or amount > MAX_AMOUNT or amount != round(amount, 2):
        raise ValidationError("an amount is not below 0, has two places at most, and is not too large")
    return amount
