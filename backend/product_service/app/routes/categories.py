"""The tree of categories. Anyone may read; writing is for admins and other services."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Path as PathParameter

from backend.shared.api.fields import DatabaseId
from backend.shared.api.security import require_role
from backend.shared.api.tokens import Role

from ..schemas import CategoryCreate, CategoryForest, CategoryOut, CategoryPatch
from .dependencies import DepCategories

router = APIRouter(prefix="/categories", tags=["categories"])

_WRITERS = [Depends(require_role(Role.ADMIN, Role.SERVICE))]
CategoryId = Annotated[DatabaseId, PathParameter(description="The id of a category.")]


@router.get("", summary="The tree of categories")
async def list_categories(categories: DepCategories) -> CategoryForest:
    """Roots and children by name."""
    return CategoryForest.of(await categories.tree())


@router.post("", summary="Make a category", status_code=201, dependencies=_WRITERS)
async def create_category(categories: DepCategories, body: CategoryCreate) -> CategoryOut:
    """409: the name is taken there, the parent does not exist, or the tree gets too deep."""
    return CategoryOut.of(await categories.create(name=body.name, parent_id=body.parent_id))


@router.patch("/{category_id}", summary="Rename or move a category", dependencies=_WRITERS)
async def update_category(
    categories: DepCategories, category_id: CategoryId, body: CategoryPatch
) -> CategoryOut:
    """All below it comes along. 409: as for a new one, or it would come to stand below itself."""
    return CategoryOut.of(await categories.update(category_id, body.to_entity()))


@router.delete("/{category_id}", summary="Delete an empty category", status_code=204, dependencies=_WRITERS)
async def delete_category(categories: DepCategories, category_id: CategoryId) -> None:
    """409: there are categories or products in it."""
    await categories.delete(category_id)
