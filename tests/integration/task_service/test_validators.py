"""The server holds documents against their schema as it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Decimal128, ObjectId
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import WriteError

from backend.task_service.app.documents import (
    DOCUMENTS,
    UnknownFields,
    ValidationAction,
    ValidationLevel,
    apply_validators,
)

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
async def database(document_url: str) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    async with AsyncMongoClient[dict[str, Any]](document_url) as client:
        yield client.get_default_database()


def task(**fields: Any) -> dict[str, Any]:
    needed = {"_id": ObjectId(), "title": "t", "status": "todo", "priority": "low", "created_by": ObjectId()}
    return {**needed, "created_at": NOON, "updated_at": NOON} | fields


async def apply(database: Any, **settings: Any) -> tuple[str, ...]:
    chosen = {"level": ValidationLevel.STRICT, "action": ValidationAction.ERROR} | settings
    return await apply_validators(database, **chosen)


async def test_it_creates_what_is_missing_changes_what_differs_and_does_nothing_twice(database: Any) -> None:
    await database.create_collection("tasks")
    await database.tasks.insert_one({"an": "old one"})
    assert await apply(database) == tuple(DOCUMENTS)
    assert await apply(database) == ()
    assert set(await database.list_collection_names()) == set(DOCUMENTS)
    assert await database.tasks.count_documents({}) == 1
    assert await apply(database, unknown=UnknownFields.FORBID) == tuple(DOCUMENTS)
    assert await apply(database, unknown=UnknownFields.FORBID) == ()
    assert await apply(database, action=ValidationAction.WARN) == tuple(DOCUMENTS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "someday"},
        {"title": 5},
        {"title": None},
        {"created_by": "0123456789abcdef01234567"},
        {"due_at": "2026-01-02"},
        {"estimate_hours": "5"},
        {"labels": [None]},
        {"checklist": [{"done": True}]},
        {"source": {"app": 1}},
    ],
)
async def test_what_does_not_fit_is_refused(database: Any, wrong: dict[str, Any]) -> None:
    await apply(database)
    with pytest.raises(WriteError) as caught:
        await database.tasks.insert_one(task(**wrong))
    assert caught.value.code == 121
    assert await database.tasks.count_documents({}) == 0


async def test_what_fits_passes_missing_and_null_alike(database: Any) -> None:
    await apply(database)
    optional = ("description", "due_at", "estimate_hours", "source", "completed_at", "labels", "checklist")
    await database.tasks.insert_one(task())
    await database.tasks.insert_one(task(**dict.fromkeys(optional)))
    await database.tasks.insert_one(task(unknown=1, source={"x": 1}, checklist=[{"text": "", "x": 1}]))
    for number in (Decimal128("NaN"), 5, 5.5):
        await database.tasks.insert_one(task(estimate_hours=number))
    assert await database.tasks.count_documents({}) == 6


@pytest.mark.parametrize("wrong", [{"x": 1}, {"source": {"x": 1}}, {"checklist": [{"text": "", "x": 1}]}])
async def test_unknown_fields_are_refused_when_they_are_forbidden(
    database: Any, wrong: dict[str, Any]
) -> None:
    await apply(database, unknown=UnknownFields.FORBID)
    await database.tasks.insert_one(task())
    with pytest.raises(WriteError):
        await database.tasks.insert_one(task(**wrong))
    await apply(database, unknown=UnknownFields.IGNORE)
    await database.tasks.insert_one(task(**wrong))


@pytest.mark.parametrize(
    "settings", [{"level": ValidationLevel.OFF}, {"action": ValidationAction.WARN}], ids=["off", "warn"]
)
async def test_the_server_may_be_told_to_let_everything_pass(database: Any, settings: dict[str, Any]) -> None:
    await apply(database)
    await apply(database, **settings)
    await database.tasks.insert_one({"title": 5})
    assert await database.tasks.count_documents({}) == 1


async def test_moderate_leaves_documents_alone_that_did_not_fit_before(database: Any) -> None:
    await database.tasks.insert_many([task(_id="old", status="someday"), task(_id=ObjectId("a" * 24))])
    await apply(database, level=ValidationLevel.MODERATE)
    await database.tasks.update_one({"_id": "old"}, {"$set": {"title": "changed"}})
    with pytest.raises(WriteError):
        await database.tasks.update_one({"_id": ObjectId("a" * 24)}, {"$set": {"status": "someday"}})
    await apply(database, level=ValidationLevel.STRICT)
    with pytest.raises(WriteError):
        await database.tasks.update_one({"_id": "old"}, {"$set": {"title": "again"}})
