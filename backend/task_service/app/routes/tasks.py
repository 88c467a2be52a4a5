"""Tasks, and whose they are. Reading asks for a token; writing is for admins and other services."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from backend.shared.api.pagination import DepPage, Page

from ..domain.people import AssignmentFilter
from ..domain.tasks import TaskFilter, TaskPriority, TaskStatus
from ..fields import Id, TaskId, UserId
from ..schemas import AssignmentOut, TaskCreate, TaskOut, TaskPatch
from .dependencies import CREATED, READERS, WRITERS, DepAssignments, DepTasks
from .paging import after_id, page_of

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.post("", summary="Create a task", status_code=201, dependencies=WRITERS, responses=CREATED)
async def create_task(tasks: DepTasks, body: TaskCreate, response: Response) -> TaskOut:
    """409: its maker or one of its labels does not exist."""
    task = await tasks.create(body.to_entity())
    response.headers["Location"] = f"{router.prefix}/{task.id}"
    return TaskOut.of(task)


@router.get("", summary="List tasks", dependencies=READERS)
async def list_tasks(
    *,
    tasks: DepTasks,
    page: DepPage,
    status: Annotated[TaskStatus | None, Query(description="Only those that stand so.")] = None,
    priority: Annotated[TaskPriority | None, Query(description="Only those as urgent as this.")] = None,
    created_by: Annotated[Id | None, Query(description="Only this user's making.")] = None,
    label_id: Annotated[Id | None, Query(description="Only those with this label.")] = None,
) -> Page[TaskOut]:
    """By id, which is by age. All filters that are given must fit."""
    wanted = TaskFilter(status=status, priority=priority, created_by=created_by, label_id=label_id)
    found = await tasks.list(wanted, after=after_id(page, "tasks"), limit=page.limit + 1)
    return page_of(found, page=page, listing="tasks", shown=TaskOut.of)


@router.get("/{task_id}", summary="One task", dependencies=READERS)
async def get_task(tasks: DepTasks, task_id: TaskId) -> TaskOut:
    return TaskOut.of(await tasks.get(task_id))


@router.patch("/{task_id}", summary="Change a task", dependencies=WRITERS)
async def change_task(tasks: DepTasks, task_id: TaskId, body: TaskPatch) -> TaskOut:
    """409: it is done or cancelled, and is not opened by this change; or a label does not exist."""
    return TaskOut.of(await tasks.change(task_id, body.to_entity()))


@router.post("/{task_id}/complete", summary="Say that a task is done", dependencies=WRITERS)
async def complete_task(tasks: DepTasks, task_id: TaskId) -> TaskOut:
    """Nothing happens to one that is. 409: it is cancelled."""
    return TaskOut.of(await tasks.complete(task_id))


@router.delete("/{task_id}", summary="Delete a task", status_code=204, dependencies=WRITERS)
async def delete_task(tasks: DepTasks, task_id: TaskId) -> None:
    """Its assignments go with it."""
    await tasks.delete(task_id)


@router.get("/{task_id}/assignments", summary="Whose a task is", dependencies=READERS)
async def list_assignments(
    assignments: DepAssignments, page: DepPage, task_id: TaskId
) -> Page[AssignmentOut]:
    wanted = AssignmentFilter(task_id=task_id)
    found = await assignments.list(wanted, after=after_id(page, "assignments"), limit=page.limit + 1)
    return page_of(found, page=page, listing="assignments", shown=AssignmentOut.of)


@router.put("/{task_id}/assignments/{user_id}", summary="Make a task a user's", dependencies=WRITERS)
async def assign_task(assignments: DepAssignments, task_id: TaskId, user_id: UserId) -> AssignmentOut:
    """Nothing happens where it is. 409: the task is done or cancelled, or the user does not exist."""
    return AssignmentOut.of(await assignments.assign(task_id, user_id=user_id))


@router.delete(
    "/{task_id}/assignments/{user_id}",
    summary="Take a task from a user",
    status_code=204,
    dependencies=WRITERS,
)
async def unassign_task(assignments: DepAssignments, task_id: TaskId, user_id: UserId) -> None:
    """404 also where the task is not the user's."""
    await assignments.unassign(task_id, user_id=user_id)
