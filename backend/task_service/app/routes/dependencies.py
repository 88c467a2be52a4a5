"""What routes ask for."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import Depends, Request

from backend.shared.api.security import current_principal, require_role
from backend.shared.api.tokens import Role

from ..ports import TaskStore
from ..services.people import AssignmentService, PeopleService, SortingService
from ..services.tasks import TaskService

READERS = [Depends(current_principal)]
"""Anybody with a valid token."""
WRITERS = [Depends(require_role(Role.ADMIN, Role.SERVICE))]
"""Admins and other services."""
CREATED: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}}
}


def _store(request: Request) -> TaskStore:
    return cast("TaskStore", request.app.state.store)


_DepStore = Annotated[TaskStore, Depends(_store)]


def _tasks(store: _DepStore) -> TaskService:
    return TaskService(store)


def _people(store: _DepStore) -> PeopleService:
    return PeopleService(store)


def _sorting(store: _DepStore) -> SortingService:
    return SortingService(store)


def _assignments(store: _DepStore) -> AssignmentService:
    return AssignmentService(store)


DepTasks = Annotated[TaskService, Depends(_tasks)]
DepPeople = Annotated[PeopleService, Depends(_people)]
DepSorting = Annotated[SortingService, Depends(_sorting)]
DepAssignments = Annotated[AssignmentService, Depends(_assignments)]
