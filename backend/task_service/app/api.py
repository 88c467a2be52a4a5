"""All routes of the task service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from .routes import labels, people, tasks

TAGS = (
    {"name": "tasks", "description": "What is to be done, by whom, and under which labels."},
    {"name": "people", "description": "Users, their teams, and the lists that they watch."},
)


def routers() -> Sequence[APIRouter]:
    """Every router, in the order in which paths are looked up."""
    return (tasks.router, labels.router, people.users, people.teams, people.watch_lists)
