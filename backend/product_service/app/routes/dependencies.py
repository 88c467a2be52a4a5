"""What routes ask for."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from ..core.dual_write_manager import ProductDualWriteManager
from ..services.category_service import CategoryService
from ..services.product_service import ProductService


def get_manager(request: Request) -> ProductDualWriteManager:
    """The manager that the application was made with."""
    return cast("ProductDualWriteManager", request.app.state.manager)


DepManager = Annotated[ProductDualWriteManager, Depends(get_manager)]


def _products(manager: DepManager) -> ProductService:
    return ProductService(manager)


def _categories(manager: DepManager) -> CategoryService:
    return CategoryService(manager)


DepProducts = Annotated[ProductService, Depends(_products)]
DepCategories = Annotated[CategoryService, Depends(_categories)]
