"""All routes of the payment service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from .routes import payments

TAGS = (
    {"name": "payments", "description": "Of orders. Everybody reaches her own only."},
    {"name": "accounts", "description": "What customers may spend with the shop."},
)


def routers(*, with_faults: bool) -> Sequence[APIRouter]:
    """Every router, in the order in which paths are looked up."""
    return (payments.router, payments.faults) if with_faults else (payments.router,)
