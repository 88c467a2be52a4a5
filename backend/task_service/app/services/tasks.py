"""Use cases round tasks."""

from __future__ import annotations

from collections.abc import Sequence

from backend.shared import ConflictError, NotFoundError

from ..domain.people import AssignmentFilter
from ..domain.tasks import NewTask, Task, TaskChanges, TaskFilter
from ..domain.values import now
from ..ports import Repositories, TaskStore

_ENTITY = "tasks"
_BATCH = 100


class TaskService:
    """Each method is one unit of work.

    All raise StoreError when the store does not answer. Those about one task raise NotFoundError when there is none, and
    those that change something ConflictError for a clash with what is there.
    """

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    async def create(self, new: NewTask) -> Task:
        """Raises ConflictError where its maker or one of its labels does not exist."""
        task = Task.create(new, at=now())

        async def unit(repositories: Repositories) -> Task:
            await require_user(repositories, task.created_by)
            await _require_labels(repositories, task.label_ids)
            await repositories.tasks.save(task)
            return task

        return await self._store.write("create_task", unit)

    async def get(self, task_id: str) -> Task:
        async def unit(repositories: Repositories) -> Task:
            return existing(await repositories.tasks.get(task_id), task_id)

        return await self._store.read("get_task", unit, entity=_ENTITY, key=task_id)

    async def list(self, wanted: TaskFilter, *, after: str | None = None, limit: int) -> list[Task]:
        """Up to `limit` tasks that fit, by rising id, past the id `after`."""

        async def unit(repositories: Repositories) -> list[Task]:
            return await repositories.tasks.list(wanted, after=after, limit=limit)

        return await self._store.read("list_tasks", unit)

    async def change(self, task_id: str, changes: TaskChanges) -> Task:
        """Raises ConflictError where the task is closed and stays so, or where a label does not exist."""
        at = now()

        async def unit(repositories: Repositories) -> Task:
            before = existing(await repositories.tasks.get(task_id, lock=True), task_id)
            after = before.changed(changes, at=at)
            await _require_labels(repositories, set(after.label_ids) - set(before.label_ids))
            return await _saved(repositories, after, before=before)

        return await self._store.write("change_task", unit)

    async def complete(self, task_id: str) -> Task:
        """May be repeated. Raises ConflictError for a cancelled task."""
        at = now()

        async def unit(repositories: Repositories) -> Task:
            before = existing(await repositories.tasks.get(task_id, lock=True), task_id)
            return await _saved(repositories, before.completed(at=at), before=before)

        return await self._store.write("complete_task", unit)

    async def delete(self, task_id: str) -> None:
        """Its assignments go with it."""

        async def unit(repositories: Repositories) -> None:
            existing(await repositories.tasks.get(task_id, lock=True), task_id)
            wanted = AssignmentFilter(task_id=task_id)
            while found := await repositories.assignments.list(wanted, limit=_BATCH):
                for assignment in found:
                    await repositories.assignments.delete(assignment.id)
            await repositories.tasks.delete(task_id)

        await self._store.write("delete_task", unit)


def existing(task: Task | None, task_id: str) -> Task:
    """The task. Raises NotFoundError when there is none."""
    if task is None:
        raise NotFoundError(f"there is no task {task_id}")
    return task


async def require_user(repositories: Repositories, user_id: str) -> None:
    """Raises ConflictError when there is no such user."""
    if await repositories.users.get(user_id) is None:
        raise ConflictError(f"there is no user {user_id}")


async def _require_labels(repositories: Repositories, label_ids: Sequence[str] | set[str]) -> None:
    for label_id in label_ids:
        if await repositories.labels.get(label_id) is None:
            raise ConflictError(f"there is no label {label_id}")


async def _saved(repositories: Repositories, task: Task, *, before: Task) -> Task:
    if task != before:
        await repositories.tasks.save(task)
    return task
