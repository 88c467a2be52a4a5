"""All routes of the order service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from backend.shared.api.router import dual_write_router

from .routes import orders
from .routes.dependencies import get_manager

TAGS = (
    {
        "name": "orders",
        "description": "What was bought, and how far it has come. Everybody reaches her own only.",
    },
)


def routers() -> Sequence[APIRouter]:
    """Every router, in the order in which paths are looked up."""
    return (orders.router, dual_write_router(get_manager))
