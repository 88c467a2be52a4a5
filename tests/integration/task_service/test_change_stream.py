"""What other programs write to the collections of the service: captured by change stream (R1), and never unseen."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from bson import ObjectId
from pymongo.errors import OperationFailure
from structlog.testing import capture_logs

from backend.shared import (
    ConfigurationError,
    ConflictError,
    DocumentDualWriteService,
    DualWriteSettings,
    Phase,
    Side,
    UnitOfWork,
)
from backend.shared.document_units import DocumentUnitOfWork
from backend.shared.dual_write_config import ForeignWrites
from backend.shared.gap_backfill import mend
from backend.shared.observability.labels import Verdict
from backend.shared.stores.mongo.shapes import key_of
from backend.shared.stores.mongo.stream import StreamLostError
from backend.shared.stores.side import LockHeldError
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.document_servers import DocumentServer
from tests.conftest import MakeDatabase
from tests.integration.task_service.conftest import MakePair
from tests.support.phases import SLOW_GATES
from tests.support.steps import Crash, CrashAt, PauseAt
from tests.support.task_pair import ANN, BOB, StreamingTaskManager, TaskPair, task_pair, user

CID = ObjectId("65f000000000000000000003")


def subject_of(number: ObjectId, entity: str = "users") -> str:
    return f'{entity}:["{number}"]'


async def listen(pair: TaskPair, *, passes: int = 3) -> None:
    """Read what there is."""
    for _ in range(passes):
        assert await pair.stream().pump()


async def conflicts(pair: TaskPair) -> list[tuple[str, str]]:
    found = await pair.documents.tandem_task_conflict.find().sort("number", 1).to_list()
    return [(conflict["operation"], conflict["key"]) for conflict in found]


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


async def test_what_was_read_and_not_kept_is_read_again(make_pair: MakePair) -> None:
    """Whoever waited for it was cancelled: the driver is past it, and the journal does not have it yet."""
    pair = await make_pair(streams=True)
    pause = PauseAt("stream_read")
    process = await pair.make_manager(hook=pause)
    stream = pair.stream(process)
    await pair.documents.users.insert_one(user())
    waiting = asyncio.create_task(stream.pump())
    await asyncio.wait_for(pause.reached.wait(), 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    pause.resume.set()
    for _ in range(3):
        assert await stream.pump()
    assert await pair.journalled() == [subject_of(ANN)]


async def test_what_another_process_has_read_meanwhile_is_not_read_again(make_pair: MakePair) -> None:
    """Else it would be told once more: on a side that was closed since, as conflicts that are none."""
    pair = await make_pair(streams=True)
    other = await pair.make_manager()
    await listen(pair)
    kept = pair.stream()._reader
    await listen(pair)
    assert pair.stream()._reader is kept, "a stream is read on"
    give_back = {"$set": {"lease": None}}
    await pair.documents.tandem_task_stream.update_one({"_id": "capture"}, give_back)
    await pair.documents.users.insert_one(user())
    for _ in range(3):
        assert await pair.stream(other).pump()
    assert await pair.journalled() == [subject_of(ANN)]
    await pair.documents.tandem_task_stream.update_one({"_id": "capture"}, give_back)
    await pair.documents.users.insert_one(user(BOB))
    await listen(pair)
    assert await pair.journalled() == [subject_of(ANN), subject_of(BOB)]


async def test_capture_that_begins_twice_at_once_skips_nothing(make_pair: MakePair) -> None:
    """A controller that was slow to begin it comes after another, and after other programs' writes."""
    pair = await make_pair(streams=True)
    late = await pair.stream().generation()
    await pair.stream().establish(after=late)
    await pair.documents.users.insert_one(user())
    await pair.stream().establish(after=late)
    await listen(pair)
    assert await pair.journalled() == [subject_of(ANN)]


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


@pytest.mark.parametrize("step", ["stream_read", "stream_keeping", "stream_kept"])
async def test_a_reader_that_dies_loses_nothing_and_says_nothing_twice(
    make_pair: MakePair, step: str
) -> None:
    pair = await make_pair(Phase.LIVE, streams=True)
    other = await pair.make_manager(hook=CrashAt(step))
    await pair.documents.users.insert_one(user())
    with pytest.raises(Crash):
        await pair.stream(other).pump()
    await pair.stream(other).let_go()
    assert not await pair.stream().pump(), "the dead one's lease holds"
    await pair.documents.tandem_task_stream.update_one({"_id": "capture"}, [{"$set": {"until": "$$NOW"}}])
    await pair.documents.users.insert_one(user(BOB))
    await listen(pair)
    assert await conflicts(pair) == [("insert", f'["{ANN}"]'), ("insert", f'["{BOB}"]')]


# Killed within its transaction: that holds the row until the server gives it up, a minute later.
@pytest.mark.parametrize("step", ["stream_read", "stream_kept"])
async def test_a_process_that_is_killed_between_events(make_pair: MakePair, step: str) -> None:
    """Again and again, while somebody writes: every write is a conflict once, since the side is closed."""
    pair = await make_pair(Phase.LIVE, streams=True)
    for times in (1, 2):
        await _write_until_it_dies(pair, step, times)
        await pair.documents.tandem_task_stream.update_one({"_id": "capture"}, [{"$set": {"until": "$$NOW"}}])
    await listen(pair)
    written = [document["_id"] async for document in pair.documents.users.find().sort("_id", 1)]
    assert written
    assert sorted(await conflicts(pair)) == [("insert", f'["{number}"]') for number in written]


async def _write_until_it_dies(pair: TaskPair, step: str, times: int) -> None:
    urls = {"LEGACY_URL": pair.urls[Side.LEGACY], "NEW_URL": pair.urls[Side.NEW]}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.listening_process", step, str(times)),
        env={**os.environ, **urls},
    )
    dying = asyncio.ensure_future(process.wait())
    try:
        async with asyncio.timeout(30):
            while not dying.done():
                await pair.documents.users.insert_one(user(ObjectId()))
                await asyncio.wait([dying], timeout=0.2)
        assert dying.result() == -signal.SIGKILL
    finally:
        if not dying.done():
            process.kill()
        await dying


async def test_a_reader_that_was_frozen_past_its_lease_keeps_nothing(make_pair: MakePair) -> None:
    pair = await make_pair(streams=True)
    pause = PauseAt("stream_read")
    other = await pair.make_manager(hook=pause)
    await pair.documents.users.insert_one(user())
    frozen = asyncio.ensure_future(pair.stream(other).pump())
    await asyncio.wait_for(pause.reached.wait(), 10)
    await pair.documents.tandem_task_stream.update_one({"_id": "capture"}, [{"$set": {"until": "$$NOW"}}])
    await listen(pair)
    assert await pair.journalled() == [subject_of(ANN)]
    pause.resume.set()
    with pytest.raises(StreamLostError):
        await frozen
    assert await pair.journalled() == [subject_of(ANN)]


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


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await look():
            pass


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


@pytest.fixture
async def forgetful(
    worker_directory: Path, services_cluster: Cluster, make_database: MakeDatabase, new_template: str
) -> AsyncIterator[TaskPair]:
    """A server whose oplog reaches back a second or so."""
    server = DocumentServer(worker_directory / "forgetful", oplog_seconds=1, durable=False)
    await asyncio.to_thread(server.start)
    new_url = await make_database(services_cluster, template=new_template)
    try:
        async with task_pair(
            phase=Phase.DUALWRITE, document_url=server.url("tasks"), new_url=new_url, streams=True
        ) as pair:
            yield pair
    finally:
        await asyncio.to_thread(server.remove)


async def forget(pair: TaskPair) -> None:
    """Write until the server cannot go on from the token that is kept."""
    row = await pair.documents.tandem_task_stream.find_one({"_id": "capture"})
    assert row is not None
    async with asyncio.timeout(40):
        while await _goes_on(pair, row["token"]):
            await pair.documents.other.insert_many([{} for _ in range(500)])


async def _goes_on(pair: TaskPair, token: Any) -> bool:
    try:
        async with await pair.documents.watch([], resume_after=token):
            return True
    except OperationFailure as error:
        if error.code != 286:
            raise
        return False


async def test_a_token_that_is_too_old_is_no_silent_gap(forgetful: TaskPair) -> None:
    pair = forgetful
    side = pair.manager.runtime.stores[Phase.DUALWRITE.policy.authoritative]
    async with side.connect() as connection:
        before = await side.capture_token(connection, phase=Phase.DUALWRITE)
    await pair.documents.users.insert_one(user())
    await forget(pair)
    found: list[Any] = []
    pair.stream().on_gap = found.append
    with capture_logs() as logs:
        assert await pair.stream().pump()
    assert [(entry["event"], entry["log_level"]) for entry in logs if "change_stream" in entry["event"]] == [
        ("change_stream_broken", "critical")
    ]
    assert [gap.number for gap in found] == [1]
    async with side.connect() as connection:
        after = await side.capture_token(connection, phase=Phase.DUALWRITE)
    assert before
    assert after
    assert before != after, "what was copied and compared until now is void"

    # What is written from here on is told again, before any backfill.
    await pair.documents.users.insert_one(user(BOB))
    await listen(pair)
    assert await pair.journalled() == [subject_of(BOB)]

    assert await pair.stream().open_gap() == found[0]
    with capture_logs() as logs:
        assert await mend(pair.manager.runtime, pair.stream(), found[0])
    assert "gap_backfill_started" in {entry["event"] for entry in logs}
    assert await pair.stream().open_gap() is None
    assert (await pair.row("users", ANN) or {})["name"] == "Ann"


async def test_a_process_that_carries_mends_a_gap_by_itself(forgetful: TaskPair) -> None:
    pair = forgetful
    await pair.documents.users.insert_one(user())
    await forget(pair)
    process = await pair.make_manager()
    await process.start(relay=True)

    async def carried() -> bool:
        return await pair.row("users", ANN) is not None and await pair.stream().open_gap() is None

    await until(carried)
    rendered = process.runtime.metrics.render().decode()
    assert 'dualwrite_capture_gaps_total{service="task",side="legacy"} 1.0' in rendered


async def test_a_collection_that_is_dropped_is_a_gap(make_pair: MakePair) -> None:
    pair = await make_pair(streams=True)
    await pair.documents.drop_collection("labels")
    await listen(pair, passes=1)
    gap = await pair.stream().open_gap()
    assert gap is not None
    assert "labels" in gap.reason
