"""What the cart has to know of products, and where it asks: a port, so that nothing else depends on HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from backend.shared import ConflictError, NotFoundError, TandemError

from .entities import MAX_UNIT_PRICE


class CatalogUnavailableError(TandemError):
    """Nobody can say now what a product costs. Nothing was changed; it is worth trying again."""


@dataclass(frozen=True, kw_only=True)
class CatalogProduct:
    """A product as it is offered now."""

    id: int
    price: Decimal
    is_active: bool


class ProductCatalog(Protocol):
    """Where products are looked up."""

    async def find(self, product_id: int) -> CatalogProduct | None:
        """The product, or None if there is none. Raises CatalogUnavailableError when that cannot be told."""

    async def aclose(self) -> None:
        """Let go of what is held. May be repeated."""


async def product_for_sale(catalog: ProductCatalog, product_id: int) -> CatalogProduct:
    """A product that may go into a cart.

    Raises NotFoundError for an unknown one and ConflictError for one that is not sold any more, or not at such a price
    (history has prices below zero).
    """
    product = await catalog.find(product_id)
    if product is None:
        raise NotFoundError(f"product {product_id} does not exist")
    if not product.is_active or not 0 <= product.price <= MAX_UNIT_PRICE:
        raise ConflictError(f"product {product_id} is not for sale")
    return product
