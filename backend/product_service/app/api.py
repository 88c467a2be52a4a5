"""All routes of the product service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from backend.shared.api.router import dual_write_router

from .routes import categories, products
from .routes.dependencies import get_manager

TAGS = (
    {"name": "products", "description": "What the shop sells, and how many there are."},
    {"name": "categories", "description": "The tree that products stand in."},
)


def routers() -> Sequence[APIRouter]:
    """Every router, in the order in which paths are looked up."""
    return (products.router, categories.router, dual_write_router(get_manager))
