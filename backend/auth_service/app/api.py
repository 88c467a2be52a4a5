"""All routes of the auth service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request

from backend.shared.api.router import dual_write_router

from .core.dual_write_manager import AuthDualWriteManager
from .routes import accounts, administration, sessions
from .routes.dependencies import services

TAGS = (
    {"name": "accounts", "description": "Register, and one's own account."},
    {"name": "sessions", "description": "Log in, stay in, log out; the public keys."},
    {"name": "administration", "description": "Other people's accounts. Admins only; services may read."},
)


def manager(request: Request) -> AuthDualWriteManager:
    """The manager of the running application."""
    return services(request).manager


def routers() -> Sequence[APIRouter]:
    """Routers in the order that paths are looked up in: `/users/me` before `/users/{user_id}`."""
    return (
        accounts.router,
        sessions.router,
        sessions.keys_router,
        administration.router,
        dual_write_router(manager),
    )
