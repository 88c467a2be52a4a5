"""What the product service tells of what the shop sells."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from backend.shared.events.envelope import DomainEvent


class ProductChanged(DomainEvent):
    """A product as it is from now on, whatever of it was changed. Of two the one with the later position counts."""

    message_type: ClassVar[str] = "ProductChanged"
    aggregate_type: ClassVar[str] = "product"

    product_id: int
    sku: str
    name: str | None
    price: Decimal
    is_active: bool

    @property
    def aggregate_id(self) -> str:
        """The product's id."""
        return str(self.product_id)
