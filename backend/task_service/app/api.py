"""All routes of the task service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request

from backend.shared import DualWriteManager
from backend.shared.api.router import dual_write_router

from .routes import labels, people, tasks

TAGS = (
    {"name": "tasks", "description": "What is to be done, by whom, and under which labels."},
    {"name": "people", "description": "Users, their teams, and the lists that they watch."},
)


def routers(*, dual: bool = False) -> Sequence[APIRouter]:
    """Every router, in the order in which paths are looked up; with `dual` those of the engine."""
    own = (tasks.router, labels.router, people.users, people.teams, people.watch_lists)
    return (*own, dual_write_router(get_manager)) if dual else own


def get_manager(request: Request) -> DualWriteManager:
    """The manager behind the store."""
    manager: DualWriteManager = request.app.state.manager
    return manager
