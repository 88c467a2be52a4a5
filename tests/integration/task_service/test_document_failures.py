"""Failures and the state of documents, as `DocumentDualWriteService` tells and mends them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from bson import ObjectId
from structlog.testing import capture_logs

from backend.shared import (
    DocumentDualWriteService,
    NotFoundError,
    Phase,
    SyncStatus,
    ValidationError,
)
from tests.integration.task_service.conftest import MakePair
from tests.support.fixtures import BOTH_AUTHORITIES
from tests.support.task_pair import ANN, BOB, TaskPair, user


async def spoil(pair: TaskPair, number: ObjectId = ANN) -> None:
    """The document is made one that rows cannot hold, and journalled."""
    await pair.documents.users.update_one({"_id": number}, {"$set": {"email_id": 5}}, upsert=True)
    store = pair.manager.runtime.stores[pair.manager.phase.policy.authoritative]
    async with store.begin() as connection:
        await store.journal.add(connection, "users", [f'["{number}"]'])


async def test_failures_are_listed_counted_and_tried_again(make_pair: MakePair) -> None:
    pair = await make_pair()
    service = DocumentDualWriteService(pair.manager)
    await spoil(pair)
    await spoil(pair, BOB)
    with capture_logs() as logs:
        await pair.carry()
    failed = [entry for entry in logs if entry["event"].startswith("key_failed")]
    assert [(entry["event"], entry["log_level"]) for entry in failed] == [("key_failed", "error")] * 2

    found = await service.get_sync_failures(collection_name="users")
    assert [(failure.collection_name, failure.mongo_id) for failure in found] == [
        ("users", str(ANN)),
        ("users", str(BOB)),
    ]
    assert "email_id" in found[0].error
    assert await service.get_sync_failures(collection_name="tasks") == []
    assert [failure.id for failure in await service.get_sync_failures(limit=1, after_id=found[0].id)] == [
        found[1].id
    ]

    await service.retry_sync_failure(found[0].id)
    with capture_logs() as logs:
        await pair.carry()
    (again,) = [entry for entry in logs if entry["event"].startswith("key_failed")]
    assert (again["event"], again["log_level"]) == ("key_failed_again", "critical")
    metrics = await service.get_sync_metrics()
    assert (metrics.failures, metrics.repeated_failures) == (3, 1)
    assert metrics.failures_open == {"users": 2}

    await pair.documents.users.update_many(
        {}, {"$set": user(ANN, _id=None) and {"email_id": "x@example.org"}}
    )
    await pair.documents.users.update_one({"_id": BOB}, {"$set": {"email_id": "y@example.org"}})
    assert await service.retry_sync_failures(collection_name="users") == 2
    await pair.carry()
    assert await service.get_sync_failures() == []
    assert (await service.get_sync_status("users", str(ANN))).status is SyncStatus.SYNCED
    with pytest.raises(NotFoundError):
        await service.retry_sync_failure(10**6)


async def test_settled_failures_are_forgotten_in_the_end(make_pair: MakePair) -> None:
    pair = await make_pair()
    service = DocumentDualWriteService(pair.manager)
    await spoil(pair)
    await spoil(pair, BOB)
    await pair.carry()
    await pair.documents.users.update_one({"_id": ANN}, {"$set": {"email_id": "x@example.org"}})
    await service.retry_sync_failures()
    await pair.carry()
    assert await service.clean_up_failures(older_than=timedelta(hours=1)) == 0
    assert await service.clean_up_failures(older_than=timedelta(0)) == 1
    assert await service.clean_up_failures(older_than=timedelta(0)) == 0
    (left,) = await service.get_sync_failures()
    assert left.mongo_id == str(BOB), "an open one stays however old it is"
    with pytest.raises(ValidationError):
        await service.clean_up_failures(older_than=timedelta(seconds=-1))


@BOTH_AUTHORITIES
async def test_the_status_is_asked_of_both_sides(make_pair: MakePair, phase: Phase) -> None:
    pair = await make_pair(phase)
    service = DocumentDualWriteService(pair.manager)
    with pytest.raises(NotFoundError):
        await service.get_sync_status("users", str(ANN))
    await service.create_document("users", user())
    pending = await service.get_sync_status("users", str(ANN))
    assert (pending.status, pending.last_synced_at) == (SyncStatus.PENDING, None)
    await pair.carry()
    synced = await service.get_sync_status("users", str(ANN))
    assert (synced.status, synced.error) == (SyncStatus.SYNCED, None)
    assert synced.last_synced_at is not None
    # Changed behind everybody's back: the row says SYNCED, or cannot know.
    await pair.documents.users.update_one({"_id": ANN}, {"$set": {"name": "Eve"}})
    differs = await service.get_sync_status("users", str(ANN))
    assert differs.status is SyncStatus.FAILED
    assert "name" in (differs.error or "")
    assert "Eve" not in (differs.error or "")


async def test_the_status_of_a_document_that_failed(make_pair: MakePair) -> None:
    pair = await make_pair()
    service = DocumentDualWriteService(pair.manager)
    await service.create_document("users", user())
    await pair.carry()
    await spoil(pair)
    await pair.carry()
    failed = await service.get_sync_status("users", str(ANN))
    assert failed.status is SyncStatus.FAILED
    assert "email_id" in (failed.error or "")
    assert failed.last_synced_at is not None
    await service.retry_sync_failures()
    assert (await service.get_sync_status("users", str(ANN))).status is SyncStatus.PENDING
