"""What others are told of products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.messages.products import ProductChanged
from backend.shared import UnitOfWork
from backend.shared.events.aggregates import Aggregates

from ..entities import Product
from ..models import ROOM
from ..repositories import ProductRepository


def change_of(product: Product) -> ProductChanged:
    """A product as it is now."""
    return ProductChanged(
        product_id=product.id,
        sku=product.sku,
        name=product.name,
        price=product.price,
        is_active=product.is_active,
    )


async def _page(work: UnitOfWork, after: Any, limit: int) -> Sequence[int]:
    return await ProductRepository(work).ids(after_id=after, limit=limit)


async def _hold(work: UnitOfWork, keys: Sequence[Any]) -> Mapping[Any, ProductChanged]:
    return {product.id: change_of(product) for product in await ProductRepository(work).hold_many(keys)}


AGGREGATES = (Aggregates(service="product", kind=ProductChanged, room=ROOM, page=_page, hold=_hold),)
"""What can be told anew."""
