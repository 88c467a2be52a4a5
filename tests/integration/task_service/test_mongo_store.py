"""What the task service makes of documents that others wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from structlog.testing import capture_logs

from backend.shared import ConflictError
from backend.task_service.app.adapters.mongo.documents import Documents
from backend.task_service.app.adapters.mongo.repository import mongo_repositories
from backend.task_service.app.adapters.rows.shapes import TASK
from backend.task_service.app.documents import ValidationAction, ValidationLevel, apply_validators
from backend.task_service.app.domain.errors import StoreRefusedError
from backend.task_service.app.domain.people import Label, Team
from backend.task_service.app.domain.tasks import ChecklistItem, Task, TaskFilter, TaskStatus
from backend.task_service.app.ports import Repositories, TaskStore
from tests.contract.task_service.support import a_full_task, a_task, a_user, save
from tests.support.task_stores import running_store

ANN = a_user("ann")
AT = datetime(2020, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
AWKWARD: dict[str, Any] = {
    "_id": ObjectId("5e0d5e0d5e0d5e0d5e0d5e0d"),
    "importedBy": {"tool": "x", "version": Int64(7)},
    "title": " padded ",
    "status": "In Progress",
    "priority": "normal",
    "created_by": ObjectId(ANN.id),
    "description": None,
    "estimate_hours": Int64(3),
    "source": {"app": "shop", "url": "https://example.org"},
    "checklist": [{"text": "left", "by": ObjectId(ANN.id)}, {"text": "right", "done": None}],
    "created_at": AT,
    "updated_at": AT,
}


@pytest.fixture
async def database(document_url: str) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(document_url, tz_aware=True)
    yield client.get_default_database()
    await client.close()


@pytest.fixture
async def store(document_url: str) -> AsyncIterator[TaskStore]:
    async with running_store({"ORM": "mongo", "MONGO_URL": document_url}) as store:
        yield store


async def listed(store: TaskStore, wanted: TaskFilter, *, limit: int = 9) -> list[Task]:
    async def unit(repositories: Repositories) -> list[Task]:
        return await repositories.tasks.list(wanted, limit=limit)

    return await store.read("list", unit)


async def test_an_awkward_document_keeps_all_but_what_is_changed(
    store: TaskStore, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await database.tasks.insert_one(dict(AWKWARD))
    (task,) = await listed(store, TaskFilter())
    assert (task.status, task.estimate_hours, task.label_ids) == (TaskStatus.IN_PROGRESS, Decimal(3), ())
    await save(store, tasks=[task])
    assert await database.tasks.find_one() == AWKWARD
    steps = (ChecklistItem(text="new"), *task.checklist)
    await save(store, tasks=[replace(task, title="Mop", checklist=steps, source=None)])
    after = await database.tasks.find_one() or {}
    assert after == {
        **AWKWARD,
        "title": "Mop",
        "checklist": [{"text": "new", "done": False}, *AWKWARD["checklist"]],
        "source": {"url": "https://example.org"},
    }
    assert list(after)[:5] == list(AWKWARD)[:5]
    await save(store, tasks=[replace(task, estimate_hours=Decimal("2.5"), status=TaskStatus.DONE)])
    last = await database.tasks.find_one() or {}
    assert (last["estimate_hours"], last["status"]) == (Decimal128("2.5"), "done")
    assert last["importedBy"] == AWKWARD["importedBy"]


def test_an_update_names_what_differs_and_nothing_else() -> None:
    documents = Documents(TASK)
    task = a_full_task(ANN)
    document = documents.new(task) | {"unknown": 1}
    assert documents.change(document, task) == {}
    assert documents.change(document, replace(task, title="Mop")) == {"$set": {"title": "Mop"}}
    gone = documents.change(document, replace(task, due_at=None, status=TaskStatus.TODO))
    assert gone == {"$set": {"status": "todo"}, "$unset": {"due_at": ""}}


@pytest.mark.parametrize(
    ("status", "spellings"),
    [
        (TaskStatus.TODO, ["todo", "TODO", "to_do", "To Do", "to-do"]),
        (TaskStatus.IN_PROGRESS, ["in_progress", "In Progress", "inProgress", "IN-PROGRESS", "inprogress"]),
        (TaskStatus.DONE, ["done", "Done", "completed"]),
        (TaskStatus.CANCELLED, ["cancelled", "canceled", "Canceled"]),
    ],
)
async def test_a_filter_finds_every_spelling(
    store: TaskStore,
    database: AsyncDatabase[dict[str, Any]],
    status: TaskStatus,
    spellings: list[str],
) -> None:
    others = [word for word in ("todo", "in progress", "DONE", "Canceled") if word not in spellings]
    words = [*spellings, *others]
    await database.tasks.insert_many([AWKWARD | {"_id": ObjectId(), "status": word} for word in words])
    tasks = await listed(store, TaskFilter(), limit=99)
    assert len(tasks) == len(words)
    expected = [task for task in tasks if task.status is status]
    assert len(expected) >= len(spellings)
    assert await listed(store, TaskFilter(status=status), limit=99) == expected


async def test_what_does_not_fit_is_left_out_of_listings_and_said_by_its_key(
    store: TaskStore, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await save(store, users=[ANN])
    fitting = [a_task(ANN), a_task(ANN)]
    await save(store, tasks=fitting)
    unfit = AWKWARD | {"status": "whatever", "title": "secret"}
    await database.tasks.insert_one(unfit)
    with capture_logs() as said:
        assert await listed(store, TaskFilter(), limit=2) == fitting
    (left_out,) = [line for line in said if line["event"] == "document_left_out"]
    assert (left_out["collection"], left_out["key"]) == ("tasks", str(unfit["_id"]))
    assert "whatever" not in str(left_out)

    async def unit(repositories: Repositories) -> Task | None:
        return await repositories.tasks.get(str(unfit["_id"]))

    with pytest.raises(StoreRefusedError, match=r"tasks 5e0d.* does not fit: status: ") as refused:
        await store.read("get", unit)
    assert "whatever" not in str(refused.value)


async def test_what_is_written_fits_the_validators(
    store: TaskStore, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await apply_validators(database, level=ValidationLevel.STRICT, action=ValidationAction.ERROR)
    red = Label.create(name="red", color="#ff0000")
    task = a_full_task(ANN, red)
    team = Team.create(name="t", created_by=ANN.id)
    await save(store, users=[ANN, a_user("bob", google_id="g")], labels=[red], teams=[team])
    await save(store, tasks=[task, a_task(ANN)])
    await save(store, tasks=[replace(task, description=None, checklist=())])
    assert [found.description for found in await listed(store, TaskFilter())] == [None, None]


async def test_history_that_breaks_a_rule_does_not_keep_the_service_from_starting(
    document_url: str, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await database.users.insert_many([{"email_id": "twice@example.org"}, {"email_id": "twice@example.org"}])
    async with running_store({"ORM": "mongo", "MONGO_URL": document_url}) as store:
        await save(store, users=[ANN])
        with pytest.raises(ConflictError):
            await save(
                store,
                users=[replace(a_user("bob", google_id="g"), google_id="h"), a_user("c", google_id="h")],
            )


async def test_repositories_work_in_the_transaction_of_their_caller(
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    async with database.client.start_session() as session:
        await session.start_transaction()
        repositories = mongo_repositories(database, session)
        await repositories.users.save(ANN)
        assert await repositories.users.get(ANN.id, lock=True) == ANN
        assert await mongo_repositories(database).users.get(ANN.id) is None
        await session.abort_transaction()
    without = mongo_repositories(database)
    assert await without.users.get(ANN.id) is None
    await without.users.save(ANN)
    assert await without.users.get(ANN.id, lock=True) == ANN
