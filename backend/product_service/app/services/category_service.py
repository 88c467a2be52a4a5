"""Use cases round the tree of categories."""

from __future__ import annotations

from backend.shared import UnitOfWork

from ..category_tree import Category, CategoryTree
from ..core.dual_write_manager import ProductDualWriteManager
from ..entities import CategoryChanges
from ..repositories import CategoryRepository
from .outcome import value_of


class CategoryService:
    """Each method is one unit of work.

    All raise SideError when a database does not answer. Those that change something raise NotFoundError for a category
    that does not exist, and ConflictError where the tree has no room for the change.
    """

    def __init__(self, manager: ProductDualWriteManager) -> None:
        self._manager = manager

    async def tree(self) -> CategoryTree:
        """The whole tree."""

        async def unit(work: UnitOfWork) -> CategoryTree:
            return await CategoryRepository(work).tree()

        return await self._manager.read(unit, entity="category", operation="category_tree")

    async def create(self, *, name: str, parent_id: int | None) -> Category:
        return value_of(await self._manager.create_category(name=name, parent_id=parent_id))

    async def update(self, category_id: int, changes: CategoryChanges) -> Category:
        return value_of(await self._manager.update_category(category_id, changes))

    async def delete(self, category_id: int) -> None:
        value_of(await self._manager.delete_category(category_id))
