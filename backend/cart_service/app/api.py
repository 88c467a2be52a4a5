"""All routes of the cart service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from backend.shared.api.router import dual_write_router

from .routes import carts, wishes
from .routes.dependencies import get_manager

TAGS = (
    {"name": "carts", "description": "What a user is about to buy. Everybody reaches her own cart only."},
    {"name": "wish list", "description": "What a user might buy one day."},
)


def routers() -> Sequence[APIRouter]:
    """Every router, in the order in which paths are looked up."""
    return (carts.router, wishes.router, dual_write_router(get_manager))
