"""What goes over the wire, apart from what the service thinks in."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from backend.messages.orders import SagaStyle
from backend.shared.events.read_models import moment
from backend.shared.events.saga import SagaState

from .entities import Order, OrderLine, OrderSaga, OrderStatus, ProductSeen
from .services.order_service import Expanded, FoundOrder

Money = Annotated[
    Decimal, WithJsonSchema({"type": "string", "pattern": r"^[0-9]+\.[0-9]{2}$", "examples": ["12.50"]})
]
"""An amount as a string."""


class Cancel(BaseModel):
    """Why an order is taken back."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="asked for", min_length=1, max_length=100, pattern=r"^[^\x00]*$")


class ProductSeenOut(BaseModel):
    """A product, as this service has heard of it."""

    sku: str
    name: str | None
    as_of: datetime = Field(description="When the product service told this. It may have changed since.")

    @classmethod
    def of(cls, seen: ProductSeen) -> ProductSeenOut:
        return cls(sku=seen.sku, name=seen.name, as_of=moment(seen.at))


class OrderLineOut(BaseModel):
    """A line of an order."""

    product_id: int
    quantity: int
    unit_price: Money
    product: ProductSeenOut | None = Field(description="null as long as nothing was heard of it.")

    @classmethod
    def of(cls, line: OrderLine, seen: ProductSeen | None) -> OrderLineOut:
        return cls(
            product_id=line.product_id,
            quantity=line.quantity,
            unit_price=line.unit_price,
            product=ProductSeenOut.of(seen) if seen else None,
        )


class OrderSummary(BaseModel):
    """An order without its lines."""

    id: int
    user_id: str
    cart_id: int
    status: OrderStatus
    total: Money
    reason: str | None = Field(description="Why it was taken back.")
    placed_at: datetime
    updated_at: datetime | None

    @classmethod
    def of(cls, order: Order) -> OrderSummary:
        return cls(**_fields(order))


class SagaEntryOut(BaseModel):
    """Something that was heard of an order, or done about it."""

    at: datetime
    what: str
    state: SagaState


class SagaOut(BaseModel):
    """How an order makes its way through the services."""

    style: SagaStyle
    state: SagaState
    participant: str | None = Field(description="Who began its undoing, by failing or by asking for it.")
    reason: str | None
    started_at: datetime
    updated_at: datetime
    history: list[SagaEntryOut] = Field(description="Oldest first; the last 200.")

    @classmethod
    def of(cls, found: OrderSaga) -> SagaOut:
        return cls(
            style=found.style,
            state=found.saga.state,
            participant=found.saga.participant,
            reason=found.saga.reason,
            started_at=found.started_at,
            updated_at=found.updated_at,
            history=[
                SagaEntryOut(at=entry["at"], what=entry["what"], state=SagaState(entry["state"]))
                for entry in found.history
            ],
        )


class OrderOut(OrderSummary):
    """An order, and how far it has come."""

    lines: list[OrderLineOut]
    saga: SagaOut | None = Field(description="null for an order of the time before.")
    customer: Any = Field(
        default=None, description="What the auth service says of who ordered, if asked for."
    )
    products: Any = Field(default=None, description="What the product service says, by id, if asked for.")
    missing: list[str] = Field(
        default_factory=list, description="What was asked for, of whom nothing could be heard now."
    )

    @classmethod
    def whole(cls, found: FoundOrder, expanded: Expanded | None = None) -> OrderOut:
        """With all that is known."""
        more = expanded or Expanded()
        return cls(
            **_fields(found.order),
            lines=[OrderLineOut.of(line, found.products.get(line.product_id)) for line in found.order.lines],
            saga=SagaOut.of(found.saga) if found.saga else None,
            customer=more.customer,
            products=more.products,
            missing=more.missing,
        )


def _fields(order: Order) -> dict[str, Any]:
    names = ("id", "user_id", "cart_id", "status", "total", "reason", "placed_at", "updated_at")
    return {name: getattr(order, name) for name in names}
