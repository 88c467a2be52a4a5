"""Use cases round users, teams, labels, assignments and watch lists."""

from __future__ import annotations

from typing import TypeVar

from backend.shared import ConflictError, NotFoundError

from ..domain.people import (
    Assignment,
    AssignmentFilter,
    Label,
    LabelFilter,
    Team,
    TeamFilter,
    User,
    UserFilter,
    WatchList,
    WatchListFilter,
)
from ..ports import Repositories, TaskStore
from .tasks import existing, require_user

T = TypeVar("T")


class PeopleService:
    """Users and teams; each method is one unit of work. All raise StoreError when the store does not answer."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    async def create_user(self, *, email: str, name: str | None, google_id: str | None) -> User:
        """Raises ConflictError where somebody has the address already."""
        user = User.create(email=email, name=name, google_id=google_id)

        async def unit(repositories: Repositories) -> User:
            if await repositories.users.list(UserFilter(email=email), limit=1):
                raise ConflictError("there is a user with this address already")
            await repositories.users.save(user)
            return user

        return await self._store.write("create_user", unit)

    async def get_user(self, user_id: str) -> User:
        """Raises NotFoundError when there is none."""

        async def unit(repositories: Repositories) -> User:
            return _found(await repositories.users.get(user_id), f"user {user_id}")

        return await self._store.read("get_user", unit, entity="users", key=user_id)

    async def list_users(self, wanted: UserFilter, *, after: str | None = None, limit: int) -> list[User]:
        """Up to `limit` users that fit, by rising id, past the id `after`."""

        async def unit(repositories: Repositories) -> list[User]:
            return await repositories.users.list(wanted, after=after, limit=limit)

        return await self._store.read("list_users", unit)

    async def create_team(self, *, name: str, created_by: str) -> Team:
        """Raises ConflictError where its maker does not exist."""
        team = Team.create(name=name, created_by=created_by)

        async def unit(repositories: Repositories) -> Team:
            await require_user(repositories, created_by)
            await repositories.teams.save(team)
            return team

        return await self._store.write("create_team", unit)

    async def get_team(self, team_id: str) -> Team:
        """Raises NotFoundError when there is none."""

        async def unit(repositories: Repositories) -> Team:
            return _found(await repositories.teams.get(team_id), f"team {team_id}")

        return await self._store.read("get_team", unit, entity="teams", key=team_id)

    async def list_teams(self, wanted: TeamFilter, *, after: str | None = None, limit: int) -> list[Team]:
        """Up to `limit` teams that fit, by rising id, past the id `after`."""

        async def unit(repositories: Repositories) -> list[Team]:
            return await repositories.teams.list(wanted, after=after, limit=limit)

        return await self._store.read("list_teams", unit)


class SortingService:
    """Labels and watch lists; each method is one unit of work. All raise StoreError when the store does not answer."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    async def create_label(self, *, name: str, color: str | None) -> Label:
        """Raises ConflictError where there is one with this name."""
        label = Label.create(name=name, color=color)

        async def unit(repositories: Repositories) -> Label:
            if await repositories.labels.list(LabelFilter(name=name), limit=1):
                raise ConflictError("there is a label with this name already")
            await repositories.labels.save(label)
            return label

        return await self._store.write("create_label", unit)

    async def list_labels(self, wanted: LabelFilter, *, after: str | None = None, limit: int) -> list[Label]:
        """Up to `limit` labels that fit, by rising id, past the id `after`."""

        async def unit(repositories: Repositories) -> list[Label]:
            return await repositories.labels.list(wanted, after=after, limit=limit)

        return await self._store.read("list_labels", unit)

    async def create_watch_list(self, *, name: str, user_id: str) -> WatchList:
        """Raises ConflictError where the user does not exist."""
        made = WatchList.create(name=name, user_id=user_id)

        async def unit(repositories: Repositories) -> WatchList:
            await require_user(repositories, user_id)
            await repositories.watch_lists.save(made)
            return made

        return await self._store.write("create_watch_list", unit)

    async def list_watch_lists(
        self, wanted: WatchListFilter, *, after: str | None = None, limit: int
    ) -> list[WatchList]:
        """Up to `limit` watch lists that fit, by rising id, past the id `after`."""

        async def unit(repositories: Repositories) -> list[WatchList]:
            return await repositories.watch_lists.list(wanted, after=after, limit=limit)

        return await self._store.read("list_watch_lists", unit)

    async def delete_watch_list(self, watch_list_id: str) -> None:
        """Raises NotFoundError when there is none."""

        async def unit(repositories: Repositories) -> None:
            if not await repositories.watch_lists.delete(watch_list_id):
                raise NotFoundError(f"there is no watch list {watch_list_id}")

        await self._store.write("delete_watch_list", unit)


class AssignmentService:
    """Whose task a task is; each method is one unit of work.

    All raise StoreError when the store does not answer, and NotFoundError for a task that does not exist.
    """

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    async def assign(self, task_id: str, *, user_id: str) -> Assignment:
        """May be repeated. Raises ConflictError where the task is closed, or the user does not exist."""
        made = Assignment.create(task_id=task_id, user_id=user_id)

        async def unit(repositories: Repositories) -> Assignment:
            # Held, so that of two at once the second one sees the first, and none is left of a deleted task.
            task = existing(await repositories.tasks.get(task_id, lock=True), task_id)
            wanted = AssignmentFilter(task_id=task_id, user_id=user_id)
            for there in await repositories.assignments.list(wanted, limit=1):
                return there
            if not task.status.is_open:
                raise ConflictError(f"task {task_id} is {task.status.value}: open it before you assign it")
            await require_user(repositories, user_id)
            await repositories.assignments.save(made)
            return made

        return await self._store.write("assign_task", unit)

    async def unassign(self, task_id: str, *, user_id: str) -> None:
        """Raises NotFoundError also where the task is not the user's."""

        async def unit(repositories: Repositories) -> None:
            existing(await repositories.tasks.get(task_id, lock=True), task_id)
            wanted = AssignmentFilter(task_id=task_id, user_id=user_id)
            found = await repositories.assignments.list(wanted, limit=1)
            if not found:
                raise NotFoundError(f"task {task_id} is not assigned to user {user_id}")
            await repositories.assignments.delete(found[0].id)

        await self._store.write("unassign_task", unit)

    async def list(
        self, wanted: AssignmentFilter, *, after: str | None = None, limit: int
    ) -> list[Assignment]:
        """Up to `limit` assignments that fit, by rising id, past the id `after`."""

        async def unit(repositories: Repositories) -> list[Assignment]:
            if wanted.task_id is not None:
                existing(await repositories.tasks.get(wanted.task_id), wanted.task_id)
            return await repositories.assignments.list(wanted, after=after, limit=limit)

        return await self._store.read("list_assignments", unit)


def _found(item: T | None, what: str) -> T:
    if item is None:
        raise NotFoundError(f"there is no {what}")
    return item
