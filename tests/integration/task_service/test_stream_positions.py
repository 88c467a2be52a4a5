"""How far a change stream was read (R1): crashes, frozen readers, two at once, tokens that are too old; never a silent gap."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo.errors import OperationFailure
from structlog.testing import capture_logs

from backend.shared import (
    Phase,
    Side,
)
from backend.shared.gap_backfill import mend
from backend.shared.stores.mongo.stream import StreamLostError
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.document_servers import DocumentServer
from tests.conftest import MakeDatabase
from tests.integration.task_service.conftest import MakePair
from tests.support.steps import Crash, CrashAt, PauseAt
from tests.support.streaming import conflicts, listen, subject_of, until
from tests.support.task_pair import ANN, BOB, TaskPair, task_pair, user


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
