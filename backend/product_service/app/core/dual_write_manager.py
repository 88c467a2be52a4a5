"""`ProductDualWriteManager`: every operation of this service that both sides have to know of."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path

from backend.shared import DualWriteManager, DualWriteResult, EntityMapping, Exercised, Key, Unit, UnitOfWork
from backend.shared.events.outbox import Outbox

from ..category_tree import Category
from ..entities import CategoryChanges, NewProduct, Product, ProductChanges, Stock
from ..legacy import CATEGORY, MESSAGES, PRODUCT, RESERVATION
from ..models import ROOM
from ..repositories import ProductRepository
from ..services import units
from ..services.telling import change_of
from .exercise import exercise_operations


class ProductDualWriteManager(DualWriteManager):
    """Categories, and products with their stock.

    Each operation is one transaction on the authoritative side. Bad input raises an error of the `ValidationError` tree;
    trouble with a database is in the result.
    """

    service = "product"
    outbox: Outbox | None = None
    """Through which others are told of products, where anybody listens."""
    migrations = Path(__file__).parents[2] / "migrations"
    messages = ROOM

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        """Categories before products, which stand in them; what is reserved for orders; what is told and was heard."""
        return (CATEGORY, PRODUCT, RESERVATION, *MESSAGES)

    def exercise(self) -> AsyncIterator[Exercised]:
        """Every operation once, on what is made for it; nothing is left over in the end."""
        return exercise_operations(self)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        """A product that nobody can buy."""
        probe = NewProduct(
            sku=f"~{secrets.token_hex(9)}", name="probe", price=Decimal("0.00"), is_active=False
        )
        return "product", (await ProductRepository(work).insert(probe),)

    async def create_product(self, new: NewProduct) -> DualWriteResult[Product]:
        """Put a product on sale."""
        return await self.write("create_product", self._told(units.create_product(new)))

    async def update_product(
        self, product_id: int, changes: ProductChanges, *, only_active: bool = False
    ) -> DualWriteResult[Product]:
        """Change what is known of a product; with `only_active`, one that is off sale counts as unknown."""
        unit = units.update_product(product_id, changes, only_active=only_active)
        return await self.write("update_product", self._told(unit))

    async def deactivate_product(self, product_id: int) -> DualWriteResult[Product]:
        """Take a product off sale; it keeps its data and its id. May be repeated."""
        return await self.write(
            "deactivate_product", self._told(units.set_active(product_id, is_active=False))
        )

    async def activate_product(self, product_id: int) -> DualWriteResult[Product]:
        """Put a deactivated product on sale again. May be repeated."""
        return await self.write("activate_product", self._told(units.set_active(product_id, is_active=True)))

    async def set_stock(self, product_id: int, quantity: int) -> DualWriteResult[Stock]:
        """Say how many there are, as after counting. May be repeated."""
        return await self.write("set_stock", units.set_stock(product_id, quantity))

    async def adjust_stock(self, product_id: int, delta: int) -> DualWriteResult[Stock]:
        """Add to the stock or take from it, however many do so at once; it never falls below zero."""
        return await self.write("adjust_stock", units.adjust_stock(product_id, delta))

    async def create_category(self, *, name: str, parent_id: int | None = None) -> DualWriteResult[Category]:
        """Make a category, a root if it has no parent."""
        return await self.write("create_category", units.create_category(parent_id=parent_id, name=name))

    async def update_category(self, category_id: int, changes: CategoryChanges) -> DualWriteResult[Category]:
        """Rename a category, move it, or both; all below it comes along."""
        return await self.write("update_category", units.update_category(category_id, changes))

    async def delete_category(self, category_id: int) -> DualWriteResult[Category]:
        """Delete an empty category; answers what it was."""
        return await self.write("delete_category", units.delete_category(category_id))

    def _told(self, unit: Unit[Product]) -> Unit[Product]:
        """What `unit` makes of a product is told in its transaction."""
        outbox = self.outbox
        if outbox is None:
            return unit

        async def and_tell(work: UnitOfWork) -> Product:
            product = await unit(work)
            await outbox.record(work, change_of(product))
            return product

        return and_tell
