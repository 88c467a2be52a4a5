"""The use cases on every store: rules that look at several things at once."""

from __future__ import annotations

import asyncio

import pytest

from backend.shared import ConflictError, NotFoundError
from backend.task_service.app.domain.ids import new_id
from backend.task_service.app.domain.people import AssignmentFilter, TeamFilter, UserFilter, WatchListFilter
from backend.task_service.app.domain.tasks import NewTask, TaskChanges, TaskFilter, TaskStatus
from backend.task_service.app.ports import TaskStore
from backend.task_service.app.services.people import AssignmentService, PeopleService, SortingService
from backend.task_service.app.services.tasks import TaskService
from tests.contract.task_service.support import STORES, at_once

pytestmark = STORES


async def a_user_id(store: TaskStore, email: str = "ann@example.org") -> str:
    return (await PeopleService(store).create_user(email=email, name="Ann", google_id=None)).id


async def test_a_task_lives_and_dies(store: TaskStore) -> None:
    tasks, user = TaskService(store), await a_user_id(store)
    label = await SortingService(store).create_label(name="red", color="#ff0000")
    made = await tasks.create(NewTask(title="Sweep", created_by=user))
    assert await tasks.get(made.id) == made
    changed = await tasks.change(made.id, TaskChanges(title="Mop", label_ids=(label.id, label.id)))
    assert (changed.title, changed.label_ids, changed.created_at) == ("Mop", (label.id,), made.created_at)
    assert changed.updated_at >= made.updated_at
    done = await tasks.complete(made.id)
    assert (done.status, done.completed_at) == (TaskStatus.DONE, done.updated_at)
    assert await tasks.complete(made.id) == done
    with pytest.raises(ConflictError):
        await tasks.change(made.id, TaskChanges(title="Dust"))
    opened = await tasks.change(made.id, TaskChanges(title="Dust", status=TaskStatus.TODO))
    assert (opened.title, opened.completed_at) == ("Dust", None)
    assert await tasks.list(TaskFilter(), limit=5) == [opened]
    await tasks.delete(made.id)
    assert await tasks.list(TaskFilter(), limit=5) == []
    for again in (tasks.get, tasks.complete, tasks.delete):
        with pytest.raises(NotFoundError):
            await again(made.id)


async def test_what_refers_to_nothing_is_a_conflict_and_leaves_nothing(store: TaskStore) -> None:
    tasks, user, nobody = TaskService(store), await a_user_id(store), new_id()
    made = await tasks.create(NewTask(title="Sweep", created_by=user))
    people, sorting = PeopleService(store), SortingService(store)
    for refused in (
        tasks.create(NewTask(title="x", created_by=nobody)),
        tasks.create(NewTask(title="x", created_by=user, label_ids=(nobody,))),
        tasks.change(made.id, TaskChanges(title="x", label_ids=(nobody,))),
        people.create_team(name="x", created_by=nobody),
        people.create_user(email="ann@example.org", name=None, google_id=None),
        sorting.create_watch_list(name="x", user_id=nobody),
        AssignmentService(store).assign(made.id, user_id=nobody),
    ):
        with pytest.raises(ConflictError):
            await refused
    assert await tasks.list(TaskFilter(), limit=5) == [made]
    assert await people.list_teams(TeamFilter(), limit=5) == []
    assert len(await people.list_users(UserFilter(), limit=5)) == 1
    assert await sorting.list_watch_lists(WatchListFilter(), limit=5) == []


async def test_assignments_come_and_go_with_their_task(store: TaskStore) -> None:
    tasks, assignments = TaskService(store), AssignmentService(store)
    ann, bob = await a_user_id(store), await a_user_id(store, "bob@example.org")
    task = await tasks.create(NewTask(title="Sweep", created_by=ann))
    first = await assignments.assign(task.id, user_id=ann)
    assert await assignments.assign(task.id, user_id=ann) == first
    second = await assignments.assign(task.id, user_id=bob)
    of_task = AssignmentFilter(task_id=task.id)
    assert await assignments.list(of_task, limit=5) == [first, second]
    await assignments.unassign(task.id, user_id=bob)
    with pytest.raises(NotFoundError):
        await assignments.unassign(task.id, user_id=bob)
    await tasks.complete(task.id)
    with pytest.raises(ConflictError):
        await assignments.assign(task.id, user_id=bob)
    assert await assignments.list(of_task, limit=5) == [first]
    await tasks.delete(task.id)
    assert await assignments.list(AssignmentFilter(user_id=ann), limit=5) == []
    for gone in (assignments.list(of_task, limit=5), assignments.assign(task.id, user_id=ann)):
        with pytest.raises(NotFoundError):
            await gone


async def test_a_task_is_assigned_once_however_many_ask_at_once(store: TaskStore) -> None:
    """`others_assign_between_look_and_write`: each has to see what the one before has written."""
    user = await a_user_id(store)
    task = await TaskService(store).create(NewTask(title="Sweep", created_by=user))
    assignments = AssignmentService(store)
    made = await at_once(*(assignments.assign(task.id, user_id=user) for _ in range(4)))
    assert len({assignment.id for assignment in made}) == 1
    assert await assignments.list(AssignmentFilter(user_id=user), limit=5) == made[:1]


async def test_no_assignment_outlives_its_task(store: TaskStore) -> None:
    """`task_deleted_between_look_and_assignment`: whoever comes second finds no task."""
    user = await a_user_id(store)
    tasks, assignments = TaskService(store), AssignmentService(store)
    task = await tasks.create(NewTask(title="Sweep", created_by=user))
    await asyncio.gather(
        assignments.assign(task.id, user_id=user), tasks.delete(task.id), return_exceptions=True
    )
    with pytest.raises(NotFoundError):
        await tasks.get(task.id)
    assert await assignments.list(AssignmentFilter(user_id=user), limit=5) == []
