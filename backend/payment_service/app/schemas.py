"""What goes over the wire, apart from what the service thinks in."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from .entities import MAX_AMOUNT, USER_ID_PATTERN, Account, Payment, PaymentState

Money = Annotated[
    Decimal, WithJsonSchema({"type": "string", "pattern": r"^[0-9]+\.[0-9]{2}$", "examples": ["12.50"]})
]
"""An amount as a string."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CreditSet(_Body):
    """How much a customer may spend, what is set aside included."""

    credit: Annotated[Decimal, Field(ge=0, le=MAX_AMOUNT, decimal_places=2)]


class FaultAdd(_Body):
    """What the provider for tests is to do with a step, so often."""

    step: Literal["authorise", "capture", "refund", "void"]
    action: Literal["decline", "delay", "fail"]
    user_id: str | None = Field(default=None, pattern=USER_ID_PATTERN)
    seconds: Annotated[Decimal, Field(ge=0, le=60, decimal_places=3)] = Decimal(0)
    times: int = Field(default=1, ge=1, le=1_000_000)


class AccountOut(BaseModel):
    """What a customer may spend."""

    user_id: str
    credit: Money
    held: Money = Field(description="Set aside for orders under way.")
    available: Money

    @classmethod
    def of(cls, account: Account) -> AccountOut:
        return cls(
            user_id=account.user_id, credit=account.credit, held=account.held, available=account.available
        )


class PaymentOut(BaseModel):
    """The payment of an order."""

    order_id: int
    user_id: str
    amount: Money
    state: PaymentState
    reason: str | None
    updated_at: datetime

    @classmethod
    def of(cls, payment: Payment) -> PaymentOut:
        return cls(
            order_id=payment.order_id,
            user_id=payment.user_id,
            amount=payment.amount,
            state=payment.state,
            reason=payment.reason,
            updated_at=payment.updated_at,
        )
