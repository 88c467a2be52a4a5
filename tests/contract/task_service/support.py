"""What the cases of the task service talk to, and what they make."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import httpx
import pytest

from backend.task_service.app.domain.people import Label, User
from backend.task_service.app.domain.tasks import ChecklistItem, NewTask, Task, TaskPriority, TaskSource
from backend.task_service.app.ports import Repositories, TaskStore
from tests.support.task_stores import FAKE

T = TypeVar("T")

ORMS = pytest.mark.parametrize("kind", ["sqlalchemy", "peewee", "mongo", "dual-dualwrite", "dual-live"])
"""What `ORM` may be: each serves the same API; the two databases with either of them as the authority."""
STORES = pytest.mark.parametrize(
    "kind",
    [
        *("sqlalchemy-postgresql", "sqlalchemy-sqlite", "peewee-postgresql", "peewee-sqlite"),
        *("mongo", "dual-dualwrite", FAKE),
    ],
)
"""Every adapter of the ports, on every database."""

AT = datetime(2026, 2, 28, 23, 59, 59, 999000, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Api:
    """The service over HTTP; `admin` calls with an admin's token, `anyone` without."""

    anyone: httpx.AsyncClient
    admin: httpx.AsyncClient
    user: httpx.AsyncClient
    service: httpx.AsyncClient

    async def make(self, path: str, **body: Any) -> str:
        """Create something; answers its id."""
        made = await self.admin.post(path, json=body)
        assert made.status_code == 201, made.text
        return str(made.json()["id"])


def a_user(word: str = "ann", **values: Any) -> User:
    return replace(User.create(email=f"{word}@example.org", name=word, google_id=None), **values)


def a_task(user: User, title: str = "Sweep", **values: Any) -> Task:
    """The least that a task can be."""
    return replace(Task.create(NewTask(title=title, created_by=user.id), at=AT), **values)


def a_full_task(user: User, *labels: Label) -> Task:
    """A task with a value in every field."""
    new = NewTask(
        title="Count the shelves",
        created_by=user.id,
        description="All of them.\nTwice - 'quoted' \\ %s {} \U0001f9f9",
        priority=TaskPriority.URGENT,
        due_at=AT,
        estimate_hours=Decimal("12345678901234567890.125"),
        source=TaskSource(app="shop", ticket="T-1"),
        label_ids=tuple(label.id for label in labels),
        checklist=(ChecklistItem(text="left"), ChecklistItem(text="right", done=True)),
    )
    return Task.create(new, at=AT).completed(at=AT)


async def save(store: TaskStore, **things: Any) -> None:
    """Save things by the name of their repository, users first."""

    async def unit(repositories: Repositories) -> None:
        for kind, items in things.items():
            for item in items:
                await getattr(repositories, kind).save(item)

    await store.write("save", unit)


async def at_once(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """What the calls answer, all made at the same time. None is left running when one fails."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]


def assert_problem(response: httpx.Response, status: int) -> Mapping[str, Any]:
    """The response refuses with problem details of this status; answers them."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: Mapping[str, Any] = response.json()
    assert body["status"] == status
    return body
