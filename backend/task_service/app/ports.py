"""What the use cases ask of a store, whatever kind it is.

A repository works inside one transaction, which whoever made it owns. Every write of it names one key, so that an engine
that carries keys from store to store knows what was touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .domain.people import (
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
from .domain.tasks import Task, TaskFilter

T = TypeVar("T")
Item = TypeVar("Item")
Wanted_contra = TypeVar("Wanted_contra", contravariant=True)


class Repository(Protocol[Item, Wanted_contra]):
    """Things of one kind, each with a key of 24 hex digits. What is saved is seen by whoever reads later in the same unit."""

    async def get(self, item_id: str, *, lock: bool = False) -> Item | None:
        """The thing with this key, or None. With `lock`, nobody else changes it until this unit ends."""
        ...

    async def list(self, wanted: Wanted_contra, *, after: str | None = None, limit: int) -> list[Item]:
        """Up to `limit` things that fit, by rising key, past the key `after`."""
        ...

    async def save(self, item: Item) -> None:
        """Insert the thing, or change what differs from what is there. What a store holds beyond it is kept."""
        ...

    async def delete(self, item_id: str) -> bool:
        """Delete the thing; False if there was none."""
        ...


class TaskRepository(Repository[Task, TaskFilter], Protocol):
    """Tasks with their labels and checklist."""


class TeamRepository(Repository[Team, TeamFilter], Protocol):
    """Teams. A second one with the same invite code is refused."""


class LabelRepository(Repository[Label, LabelFilter], Protocol):
    """Labels."""


class AssignmentRepository(Repository[Assignment, AssignmentFilter], Protocol):
    """Whose task a task is."""


class WatchListRepository(Repository[WatchList, WatchListFilter], Protocol):
    """Watch lists."""


class UserRepository(Repository[User, UserFilter], Protocol):
    """Users. A second one with the same address is refused."""


@dataclass(frozen=True, kw_only=True)
class Repositories:
    """All repositories of one transaction."""

    tasks: TaskRepository
    teams: TeamRepository
    labels: LabelRepository
    assignments: AssignmentRepository
    watch_lists: WatchListRepository
    users: UserRepository


Unit = Callable[[Repositories], Awaitable[T]]
"""A unit of work. It may be run again, each time in a fresh transaction: it must have no effect outside of it."""


class TaskStore(Protocol):
    """Runs units of work. This is all that the use cases know of how many stores there are, and of which kind."""

    async def write(self, operation: str, unit: Unit[T]) -> T:
        """Run `unit` in one transaction: all of it is kept, or nothing.

        A `ValidationError` raised inside comes out unchanged. Raises ConflictError for a clash with what is there that only
        the store knows of, and StoreError for trouble with the store.
        """
        ...

    async def read(
        self, operation: str, unit: Unit[T], *, entity: str | None = None, key: str | None = None
    ) -> T:
        """Run a unit that only reads. One that is about a single thing says so, with its collection as `entity`, and `key`.

        Raises StoreError for trouble with the store.
        """
        ...

    async def start(self) -> None:
        """Connect, and see that the store has what is needed. Raises ConfigurationError or StoreError otherwise."""
        ...

    async def check(self) -> None:
        """Ask the store for a sign of life. Raises StoreError where there is none."""
        ...

    async def close(self) -> None:
        """Let go of the store. May be repeated."""
        ...


class Transactions(Protocol):
    """Opens transactions on one store; the unit of work of the modes with a single store."""

    def begin(self, *, only_reads: bool = False) -> AbstractAsyncContextManager[Repositories]:
        """A transaction: committed on leaving, rolled back where the body raises. The store's own errors come out."""
        ...

    def explain(self, error: Exception) -> Exception | None:
        """What an error of the store's or its driver's means: an error of the ports; None where it is none of the store's."""
        ...

    def is_repeatable(self, error: Exception) -> bool:
        """Whether the transaction left nothing behind and may simply be run again."""
        ...

    async def start(self) -> None: ...

    async def check(self) -> None: ...

    async def close(self) -> None: ...
