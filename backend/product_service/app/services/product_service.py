"""Use cases round products and their stock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.shared import UnitOfWork

from ..core.dual_write_manager import ProductDualWriteManager
from ..entities import NewProduct, Product, ProductChanges, ProductFilter, ProductSort, Stock
from ..repositories import ProductRepository, SortKey
from .outcome import value_of
from .units import active


@dataclass(frozen=True, kw_only=True)
class FoundProducts:
    """The products asked for that exist, and the ids that lead nowhere."""

    products: tuple[Product, ...]
    missing: tuple[int, ...]


class ProductService:
    """Each method is one unit of work.

    All raise SideError when a database does not answer. Those that change something raise NotFoundError for a product
    that does not exist, and ConflictError for a clash with what is there.
    """

    def __init__(self, manager: ProductDualWriteManager) -> None:
        self._manager = manager

    async def create(self, new: NewProduct) -> Product:
        return value_of(await self._manager.create_product(new))

    async def update(self, product_id: int, changes: ProductChanges) -> Product:
        """A product on sale. Raises NotFoundError for any other."""
        return value_of(await self._manager.update_product(product_id, changes, only_active=True))

    async def deactivate(self, product_id: int) -> Product:
        """May be repeated."""
        return value_of(await self._manager.deactivate_product(product_id))

    async def activate(self, product_id: int) -> Product:
        """May be repeated."""
        return value_of(await self._manager.activate_product(product_id))

    async def set_stock(self, product_id: int, quantity: int) -> Stock:
        return value_of(await self._manager.set_stock(product_id, quantity))

    async def adjust_stock(self, product_id: int, delta: int) -> Stock:
        """Raises ConflictError where there is not enough."""
        return value_of(await self._manager.adjust_stock(product_id, delta))

    async def get(self, product_id: int) -> Product:
        """A product on sale. Raises NotFoundError for any other."""

        async def unit(work: UnitOfWork) -> Product:
            return active(await ProductRepository(work).get(product_id), product_id)

        return await self._manager.read(unit, entity="product", key=(product_id,), operation="get_product")

    async def get_many(self, product_ids: Sequence[int]) -> FoundProducts:
        """Products by id, deactivated ones too: whoever holds an id may still have to show what it was."""

        async def unit(work: UnitOfWork) -> list[Product]:
            return await ProductRepository(work).get_many(product_ids)

        found = await self._manager.read(unit, entity="product", operation="get_products")
        there = {product.id for product in found}
        missing = sorted({product_id for product_id in product_ids if product_id not in there})
        return FoundProducts(products=tuple(found), missing=tuple(missing))

    async def search(
        self, wanted: ProductFilter, *, sort: ProductSort, after: SortKey | None, limit: int
    ) -> list[Product]:
        """Up to `limit` products in order of `sort`, past the one with the sort key `after`."""

        async def unit(work: UnitOfWork) -> list[Product]:
            return await ProductRepository(work).search(wanted, sort=sort, after=after, limit=limit)

        return await self._manager.read(unit, entity="product", operation="search_products")
