"""Tasks in memory, for tests that need no server; held to the same cases as the real stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from backend.shared import ConflictError
from backend.task_service.app.domain.people import Team, User
from backend.task_service.app.ports import Repositories

Item = TypeVar("Item")
_KINDS = ("tasks", "teams", "labels", "assignments", "watch_lists", "users")
_Things = dict[str, dict[str, Any]]


def _no_rule(_item: Any) -> tuple[object, ...]:
    return ()


def _invite_code(team: Team) -> tuple[object, ...]:
    return (team.invite_code,)


def _addresses(user: User) -> tuple[object, ...]:
    return (("email", user.email), ("google", user.google_id) if user.google_id else ("id", user.id))


@dataclass
class FakeRepository(Generic[Item]):
    """Things by key. `unique` names the values of one that no other may have."""

    things: dict[str, Item] = field(default_factory=dict)
    unique: Callable[[Any], tuple[object, ...]] = _no_rule

    async def get(self, item_id: str, *, lock: bool = False) -> Item | None:
        await asyncio.sleep(0)
        return self.things.get(item_id)

    async def list(self, wanted: Any, *, after: str | None = None, limit: int) -> list[Item]:
        await asyncio.sleep(0)
        given = {name: value for name, value in vars(wanted).items() if value is not None}
        found = [self.things[key] for key in sorted(self.things) if after is None or key > after]
        return [item for item in found if all(_fits(item, *pair) for pair in given.items())][:limit]

    async def save(self, item: Item) -> None:
        await asyncio.sleep(0)
        key: str = vars(item)["id"]
        taken = {value for other in self.things if other != key for value in self.unique(self.things[other])}
        if taken & set(self.unique(item)):
            raise ConflictError("there is one with this value already")
        self.things[key] = item

    async def delete(self, item_id: str) -> bool:
        await asyncio.sleep(0)
        return self.things.pop(item_id, None) is not None


def _fits(item: Any, name: str, value: object) -> bool:
    return value in item.label_ids if name == "label_id" else getattr(item, name) == value


def fake_repositories(things: _Things | None = None) -> Repositories:
    """Repositories over `things` by kind and key."""
    things = things if things is not None else {kind: {} for kind in _KINDS}
    return Repositories(
        tasks=FakeRepository(things["tasks"]),
        teams=FakeRepository(things["teams"], unique=_invite_code),
        labels=FakeRepository(things["labels"]),
        assignments=FakeRepository(things["assignments"]),
        watch_lists=FakeRepository(things["watch_lists"]),
        users=FakeRepository(things["users"], unique=_addresses),
    )


class FakeTransactions:
    """Writers come one after the other, each on a copy that takes the place of the original when it commits."""

    def __init__(self) -> None:
        self._things: _Things = {kind: {} for kind in _KINDS}
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def begin(self, *, only_reads: bool = False) -> AsyncIterator[Repositories]:
        if only_reads:
            yield fake_repositories(self._things)
            return
        async with self._writing:
            copy = {kind: dict(things) for kind, things in self._things.items()}
            yield fake_repositories(copy)
            self._things = copy

    def explain(self, error: Exception) -> Exception | None:
        return None

    def is_repeatable(self, error: Exception) -> bool:
        return False

    async def start(self) -> None: ...

    async def check(self) -> None: ...

    async def close(self) -> None: ...
