"""What goes over the wire, apart from what the service thinks in."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from backend.shared.api.fields import MAX_INT32, JsonInt

from .entities import MAX_QUANTITY, Cart, CartItem, CartStatus, Customer, WishItem

Money = Annotated[
    Decimal, WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2}$", "examples": ["12.50"]})
]
"""An amount as a string. History has amounts below zero."""


class _Body(BaseModel):
    """A body: texts and truth values are no numbers (5.0 is one, as JSON sees it), and what is not known is refused."""

    model_config = ConfigDict(extra="forbid")


class ItemAdd(_Body):
    """A product to put into the cart."""

    product_id: JsonInt = Field(ge=1, le=MAX_INT32)
    quantity: JsonInt = Field(ge=1, le=MAX_QUANTITY, description="How many more.")


class ItemChange(_Body):
    """How many there are to be."""

    quantity: JsonInt = Field(ge=1, le=MAX_QUANTITY)


class WishAdd(_Body):
    """A product to wish for."""

    product_id: JsonInt = Field(ge=1, le=MAX_INT32)


class CartItemOut(BaseModel):
    """A line of a cart."""

    id: int
    product_id: int
    quantity: int = Field(description="Below zero on returns in old carts.")
    unit_price: Money = Field(description="What one cost when the product was last added.")
    line_total: Money
    added_at: datetime

    @classmethod
    def of(cls, item: CartItem) -> CartItemOut:
        return cls(
            id=item.id,
            product_id=item.product_id,
            quantity=item.quantity,
            unit_price=item.unit_price,
            line_total=item.line_total,
            added_at=item.added_at,
        )


class CartOut(BaseModel):
    """A cart with all that is in it."""

    id: int
    user_id: str | None = Field(description="null for what was sold over the counter.")
    status: CartStatus | None = Field(description="null where the old shop has left none that can be read.")
    reference: str | None = Field(description="The number of the invoice, as it always was.")
    created_at: datetime | None = Field(description="null where the old shop has left none that can be read.")
    updated_at: datetime | None = Field(
        description="When the cart itself was changed; its items do not count."
    )
    items: list[CartItemOut]
    quantity: int = Field(description="How many pieces in all.")
    total: Money

    @classmethod
    def of(cls, cart: Cart) -> CartOut:
        return cls(**_fields(cart))


class CustomerOut(BaseModel):
    """What the cart service knows of its owner."""

    user_id: str
    display_name: str | None
    is_active: bool
    refreshed_at: datetime = Field(
        description="When the token was issued, or the message was told, that said so."
    )


class OwnedCartOut(CartOut):
    """A cart, with whose it is."""

    customer: CustomerOut | None = Field(
        description="null for what was sold over the counter, and when nothing was heard of her, and no token of hers seen."
    )

    @classmethod
    def of_customer(cls, cart: Cart, customer: Customer | None) -> OwnedCartOut:
        return cls(**_fields(cart), customer=CustomerOut(**vars(customer)) if customer else None)


class WishOut(BaseModel):
    """A product that is wished for."""

    product_id: int
    added_at: datetime

    @classmethod
    def of(cls, wish: WishItem) -> WishOut:
        return cls(product_id=wish.product_id, added_at=wish.added_at)


def _fields(cart: Cart) -> dict[str, object]:
    names = ("id", "user_id", "status", "reference", "created_at", "updated_at", "quantity", "total")
    items = [CartItemOut.of(item) for item in cart.items]
    return {name: getattr(cart, name) for name in names} | {"items": items}
