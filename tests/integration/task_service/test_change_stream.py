"""What other programs write to the collections of the service: captured by change stream (R1), and never unseen."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from bson import ObjectId

from backend.shared import (
    ConfigurationError,
    ConflictError,
    DocumentDualWriteService,
    DualWriteSettings,
    Phase,
    UnitOfWork,
)
from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.dual_write_config import ForeignWrites
from backend.shared.observability.labels import Verdict
from backend.shared.stores.mongo.shapes import key_of
from backend.shared.stores.side import LockHeldError
from tests.integration.task_service.conftest import MakePair
from tests.support.phases import SLOW_GATES
from tests.support.steps import PauseAt
from tests.support.streaming import conflicts, listen, subject_of, until
from tests.support.task_pair import ANN, BOB, StreamingTaskManager, user

CID = ObjectId("65f000000000000000000003")


async def test_other_programs_changes_are_captured_and_carried(make_pair: MakePair) -> None:
    pair = await make_pair(streams=True)
    users = pair.documents.users
    for change in (
        users.insert_one(user()),
        users.update_one({"_id": ANN}, {"$set": {"name": "Anna"}}),
        users.replace_one({"_id": ANN}, user(name="Anne")),
    ):
        await change
        await listen(pair)
        assert set(await pair.journalled()) == {subject_of(ANN)}
        await pair.carry()
        assert await pair.journalled() == []
    assert (await pair.row("users", ANN) or {})["name"] == "Anne"
    await users.delete_one({"_id": ANN})
    await listen(pair)
    await pair.carry()
    assert await pair.row("users", ANN) is None


STRANGE_IDS = pytest.mark.parametrize("number", ["ann", UUID(int=7), 1.5, {"a": 1}], ids=repr)


@STRANGE_IDS
async def test_a_document_whose_id_fits_no_row_is_listed_until_it_is_gone(
    make_pair: MakePair, number: Any
) -> None:
    pair = await make_pair(streams=True)
    users: Any = pair.documents.users
    await users.insert_one({**user(), "_id": number})
    await users.insert_one(user(BOB))
    await listen(pair)
    await pair.carry()
    (failure,) = await pair.manager.list_failures(limit=10)
    assert failure.key == key_of(number)
    assert "_id" in failure.error
    assert await pair.row("users", BOB) is not None, "it stands in nobody's way"
    await users.delete_one({"_id": number})
    await listen(pair)
    await pair.carry()
    assert await pair.manager.list_failures(limit=10) == []


@STRANGE_IDS
async def test_on_a_closed_side_such_a_document_is_a_conflict(make_pair: MakePair, number: Any) -> None:
    pair = await make_pair(Phase.LIVE, streams=True)
    users: Any = pair.documents.users
    await users.insert_one({**user(), "_id": number, "note": UUID(int=9)})
    await users.insert_one(user(BOB))
    await listen(pair)
    assert await conflicts(pair) == [("insert", key_of(number)), ("insert", f'["{BOB}"]')]
    assert len(await pair.manager.list_conflicts(limit=10, show_values=True)) == 2


async def test_a_lock_that_the_stream_has_passed_closes_nothing(make_pair: MakePair) -> None:
    """Its holder said nothing for too long, and wakes up: what came behind its lock is journalled, and not carried."""
    pair = await make_pair(streams=True)
    side = pair.manager.runtime.stores[pair.manager.phase.policy.authoritative]
    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=2000)
        assert (await side.journal.remainder(connection)).rows == 0
        await pair.documents.tandem_task_fence.update_many(
            {"until": {"$exists": True}}, {"$set": {"until": datetime(2020, 1, 1, tzinfo=UTC)}}
        )
        await pair.documents.users.insert_one(user())
        await listen(pair)
        assert await pair.journalled() == [subject_of(ANN)]
        assert await side.marks.close(connection, epoch=2)
        with pytest.raises(LockHeldError):
            await connection.commit()
    assert (await pair.manager.status()).phase is Phase.DUALWRITE
    await pair.carry()
    assert await pair.row("users", ANN) is not None


async def test_other_programs_transactions_are_captured_whole(make_pair: MakePair) -> None:
    pair = await make_pair(streams=True)
    async with pair.documents.client.start_session() as session, await session.start_transaction():
        for number in (ANN, BOB, CID):
            await pair.documents.users.insert_one(user(number), session=session)
    await listen(pair)
    assert await pair.journalled() == [subject_of(ANN), subject_of(BOB), subject_of(CID)]


async def test_own_units_are_not_captured_twice(make_pair: MakePair) -> None:
    pair = await make_pair(streams=True)
    service = DocumentDualWriteService(pair.manager, audit=None)
    await service.create_document("users", user())
    await pair.documents.users.insert_one(user(BOB))
    await service.update_document("users", str(ANN), {"name": "Anna"})
    await listen(pair)
    assert await pair.journalled() == [subject_of(ANN), subject_of(ANN), subject_of(BOB)]


async def test_what_a_unit_forgot_to_say_is_captured(make_pair: MakePair) -> None:
    pair = await make_pair(streams=True)

    async def unit(work: UnitOfWork | DocumentUnitOfWork) -> None:
        assert isinstance(work, DocumentUnitOfWork)
        await work.insert("users", user())
        await work.collection("users").insert_one(user(BOB), session=work.session)

    (await pair.manager.write("put", unit)).unwrap()
    await listen(pair)
    assert await pair.journalled() == [subject_of(ANN), subject_of(BOB)]


async def test_on_a_closed_side_carries_are_no_conflicts_and_other_programs_writes_are(
    make_pair: MakePair,
) -> None:
    pair = await make_pair(Phase.LIVE, streams=True)
    service = DocumentDualWriteService(pair.manager, audit=None)
    await service.create_document("users", user())
    await pair.carry()
    await listen(pair)
    assert await conflicts(pair) == []
    await pair.documents.users.update_one({"_id": ANN}, {"$set": {"name": "Eve"}})
    await pair.documents.users.insert_one(user(BOB))
    await pair.documents.users.delete_one({"_id": BOB})
    await listen(pair)
    assert await conflicts(pair) == [
        ("update", f'["{ANN}"]'),
        ("insert", f'["{BOB}"]'),
        ("delete", f'["{BOB}"]'),
    ]
    assert await pair.journalled() == []
    listed = await pair.manager.list_conflicts(limit=10)
    assert [view.key for view in listed] == [f'["{ANN}"]', f'["{BOB}"]', f'["{BOB}"]']


async def test_a_cutover_carries_what_was_written_just_before(make_pair: MakePair) -> None:
    """Nobody has read the stream yet when the fence is locked."""
    pair = await make_pair(Phase.SHADOW, streams=True)
    await pair.documents.users.insert_one(user())
    await pair.manager.change_phase(Phase.LIVE, reason="a test", force=[*SLOW_GATES, "backfill"])
    assert (await pair.row("users", ANN) or {})["name"] == "Ann"
    await pair.documents.users.update_one({"_id": ANN}, {"$set": {"name": "Eve"}})
    await listen(pair)
    assert await conflicts(pair) == [("update", f'["{ANN}"]')], "the side is closed by now"


async def test_a_cutover_waits_for_whoever_reads_the_stream(make_pair: MakePair) -> None:
    pair = await make_pair(Phase.SHADOW, streams=True)
    pause = PauseAt("stream_read")
    other = await pair.make_manager(hook=pause)
    await pair.documents.users.insert_one(user())
    reading = asyncio.ensure_future(pair.stream(other).pump())
    await asyncio.wait_for(pause.reached.wait(), 10)
    with pytest.raises(ConflictError, match="change stream"):
        await pair.manager.change_phase(
            Phase.LIVE, reason="a test", force=[*SLOW_GATES, "backfill"], give_up_seconds=0.5
        )
    assert pair.manager.phase is Phase.SHADOW
    pause.resume.set()
    await reading


@pytest.mark.parametrize("ends", ["closed", "let go"])
async def test_what_comes_behind_the_lock_waits_for_what_becomes_of_it(
    make_pair: MakePair, ends: str
) -> None:
    pair = await make_pair(streams=True)
    side = pair.manager.runtime.stores[pair.manager.phase.policy.authoritative]
    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=2000)
        assert (await side.journal.remainder(connection)).rows == 0
        await pair.documents.users.insert_one(user())
        await listen(pair, passes=2)
        assert await pair.journalled() == []
        assert await conflicts(pair) == []
        if ends == "closed":
            assert await side.marks.close(connection, epoch=2)
            await connection.commit()
    await listen(pair)
    assert await pair.journalled() == ([] if ends == "closed" else [subject_of(ANN)])
    assert await conflicts(pair) == ([("insert", f'["{ANN}"]')] if ends == "closed" else [])


async def test_the_hold_outlives_the_reader(make_pair: MakePair) -> None:
    """Whoever takes the stream over must not go past the lock either."""
    pair = await make_pair(streams=True)
    side = pair.manager.runtime.stores[pair.manager.phase.policy.authoritative]
    other = await pair.make_manager()
    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=2000)
        assert (await side.journal.remainder(connection)).rows == 0
        await pair.documents.users.insert_one(user())
        await pair.documents.tandem_task_stream.update_one({"_id": "capture"}, {"$set": {"lease": None}})
        assert await pair.stream(other).pump()
        assert await pair.stream(other).pump()
        assert await pair.journalled() == []


async def test_other_programs_race_with_units(make_pair: MakePair) -> None:
    pair = await make_pair(streams=True, batch_size=7)
    service = DocumentDualWriteService(pair.manager, audit=None)
    numbers = [ObjectId(f"65f0000000000000000001{n:02x}") for n in range(12)]
    for number in numbers:
        await service.create_document("users", user(number))
    stop = asyncio.Event()
    listening = asyncio.ensure_future(pair.stream().run(stop))
    carrying = asyncio.ensure_future(pair.manager.relay().run(stop))

    async def strange(turn: int) -> None:
        for number in numbers:
            await pair.documents.users.update_one({"_id": number}, {"$set": {"name": f"strange {turn}"}})

    async def own(turn: int) -> None:
        for number in reversed(numbers):
            await service.update_document("users", str(number), {"name": f"own {turn}"})

    await asyncio.gather(*(work(turn) for turn in range(4) for work in (strange, own)))

    async def carried() -> bool:
        return await pair.journalled() == []

    await until(carried)
    stop.set()
    await asyncio.gather(listening, carrying)
    await listen(pair)
    await pair.carry()
    for number in numbers:
        document = await pair.documents.users.find_one({"_id": number})
        row = await pair.row("users", number)
        assert document is not None
        assert row is not None
        assert row["name"] == document["name"]


async def test_a_change_that_is_not_captured_yet_is_no_mismatch(make_pair: MakePair) -> None:
    """The validator asks whether a key is on its way: the stream has to have told everything before that is answered."""
    pair = await make_pair(streams=True)
    await pair.documents.users.insert_one(user())
    view = await pair.manager.validate_key(str(ANN), entity="users")
    assert view.verdict is Verdict.INCOMPLETE
    await pair.carry()
    assert (await pair.manager.validate_key(str(ANN), entity="users")).verdict is Verdict.EQUAL


async def test_where_nobody_can_tell_every_key_may_be_on_its_way(make_pair: MakePair) -> None:
    pair = await make_pair(streams=True)
    pause = PauseAt("stream_read")
    other = await pair.make_manager(hook=pause)
    await pair.documents.users.insert_one(user())
    reading = asyncio.ensure_future(pair.stream(other).pump())
    await asyncio.wait_for(pause.reached.wait(), 10)
    assert (await pair.manager.validate_key(str(ANN), entity="users")).verdict is Verdict.INCOMPLETE
    pause.resume.set()
    await reading


async def test_reject_cannot_be_chosen_at_run_time_either(make_pair: MakePair) -> None:
    pair = await make_pair()
    with pytest.raises(ConflictError):
        await pair.manager.change_config({"foreign_writes": "reject"})
    assert pair.manager.settings.foreign_writes is ForeignWrites.REPORT


def test_a_mongodb_rejects_no_other_program() -> None:
    manager = StreamingTaskManager(
        settings=DualWriteSettings(
            service="task",
            legacy_database_url="mongodb://localhost:1/x",
            database_url="postgresql://x@localhost:1/x",
            foreign_writes=ForeignWrites.REJECT,
        )
    )
    with pytest.raises(ConfigurationError, match="DUAL_WRITE_FOREIGN_WRITES"):
        _ = manager.runtime
