"""The fence of stripes under traffic, each interleaving driven by hooks (decision 0015)."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

import pytest
from bson import ObjectId

from backend.shared.document_units import DocumentUnitRunner
from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Direction, Phase
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.collections import Client
from backend.shared.stores.mongo.fence import LOCK_MS, STRIPES
from backend.shared.stores.mongo.side import MongoSide
from backend.shared.stores.side import LockHeldError
from tests.contract.conftest import NoBreaker
from tests.support.note_sides import note_side
from tests.support.notes import CATALOG, NOTE, digits
from tests.support.steps import PauseAt


class Scene:
    """A side as several processes see it."""

    def __init__(self, client: Client, database: str) -> None:
        self._client = client
        self._database = database
        self.numbers = itertools.count(1)

    def process(self, *, hook: Hook = no_hook, lock_ms: int = LOCK_MS) -> MongoSide:
        return note_side(self._client, self._database, hook=hook, lock_ms=lock_ms)

    async def add(self, side: MongoSide, *, journals: bool = True) -> int:
        """Insert a new note by a unit."""
        runner, number = DocumentUnitRunner(side, catalog=CATALOG, breaker=NoBreaker()), next(self.numbers)

        async def attempt() -> int:
            async with runner.transaction(request_id="r", journals_touched=journals) as transaction:
                await transaction.work.insert("note", {"_id": ObjectId(digits(number)), "n": number})
                await transaction.commit()
            return number

        return await runner.repeat(attempt)

    async def notes(self) -> set[int]:
        found = self.process().collections.of(NOTE).find()
        return {note["n"] async for note in found}


@pytest.fixture
async def scene(document_url: str) -> AsyncIterator[Scene]:
    client = create_client(document_url, application_name="test")
    found = Scene(client, document_url.rpartition("/")[2].partition("?")[0])
    await found.process().install(phase=Phase.OFF, epoch=1, foreign_writes="report")
    yield found
    await client.close()


async def locked(side: MongoSide, *, epoch: int) -> None:
    """Close the side, as often as it takes."""
    while True:
        try:
            async with side.connect() as connection:
                await side.marks.lock_alone(connection, timeout_ms=100)
                assert await side.marks.close(connection, epoch=epoch)
                await connection.commit()
        except LockHeldError:
            continue
        return


@pytest.mark.invariant("I4")
async def test_close_under_traffic(scene: Scene) -> None:
    told: set[int] = set()
    busy = asyncio.Event()

    async def write(side: MongoSide) -> None:
        while True:
            try:
                told.add(await scene.add(side))
            except FencedError:
                return
            if len(told) > 20:
                busy.set()

    writers = [asyncio.create_task(write(scene.process())) for _ in range(6)]
    await busy.wait()
    await locked(scene.process(), epoch=2)
    closed_with = await scene.notes()
    await asyncio.gather(*writers)
    assert closed_with == told == await scene.notes()
    async with scene.process().reading() as connection:
        assert (await scene.process().journal.depth(connection)).rows == len(told)


@pytest.mark.invariant("I1")
async def test_capture_switched_on_under_traffic(scene: Scene) -> None:
    unseen: set[int] = set()
    journalled: set[int] = set()
    busy, done = asyncio.Event(), asyncio.Event()

    async def write(side: MongoSide) -> None:
        journals = False
        while not done.is_set():
            try:
                (journalled if journals else unseen).add(await scene.add(side, journals=journals))
            except FencedError:
                journals = True
            if len(unseen) > 20:
                busy.set()
            if len(journalled) > 20:
                done.set()

    writers = [asyncio.create_task(write(scene.process())) for _ in range(6)]
    await busy.wait()
    side = scene.process()
    while True:
        try:
            async with side.begin() as connection:
                assert await side.switch_capture(connection, phase=Phase.DUALWRITE, number=2, timeout_ms=100)
        except LockHeldError:
            continue
        break
    there = await scene.notes()
    await asyncio.gather(*writers)
    assert unseen <= there
    async with side.reading() as connection:
        assert (await side.journal.depth(connection)).rows == len(journalled)


async def test_stopped_between_close_and_commit_holds_up_nobody(scene: Scene) -> None:
    holder = scene.process(lock_ms=50)
    async with holder.connect() as connection:
        await holder.marks.lock_alone(connection, timeout_ms=1000)
        assert await holder.marks.close(connection, epoch=2)
        number = await scene.add(scene.process())
        with pytest.raises(LockHeldError):
            await connection.commit()
        mark = await holder.marks.read(connection)
    assert (mark.is_open, mark.epoch) == (True, 1)
    assert await scene.notes() == {number}


async def test_a_holder_that_works_keeps_the_lock_past_its_first_term(scene: Scene) -> None:
    lock_ms = 400
    holder, other = scene.process(lock_ms=lock_ms), scene.process()
    async with holder.connect() as connection:
        await holder.marks.lock_alone(connection, timeout_ms=1000)
        late = asyncio.create_task(scene.add(other))
        until = time.monotonic() + 3 * lock_ms / 1000
        while time.monotonic() < until:
            await holder.journal.remainder(connection)
        assert not late.done()
        assert await holder.marks.close(connection, epoch=2)
        await connection.commit()
    with pytest.raises(FencedError):
        await late


async def test_a_writer_that_entered_before_the_lock_ends_first(scene: Scene) -> None:
    side, other = scene.process(), scene.process()
    async with side.connect() as writer:
        await side.marks.hold_open(writer)
        assert writer.stripe is not None
        closing = asyncio.create_task(locked(other, epoch=2))
        # Those that come meanwhile either get in before the lock or are refused after the close.
        late = await asyncio.gather(*(scene.add(side) for _ in range(3)), return_exceptions=True)
        assert not closing.done()
        note = {"_id": ObjectId(digits(900)), "n": 900}
        await side.collections.of(NOTE).insert_one(note, session=await writer.session())
        await writer.commit()
    await closing
    assert 900 in await scene.notes()
    assert {n for n in late if isinstance(n, int)} | {900} == await scene.notes()


async def test_a_lock_whose_holder_died_halfway_is_taken_off(scene: Scene) -> None:
    """It had some of the stripes, and nobody will ever unlock them."""
    fence = scene.process().fence
    await fence._renew("dead", upsert=True)
    assert await fence._take(range(STRIPES // 2), "dead") == []
    await fence._fence.delete_one({"_id": "lock:dead"})
    for _ in range(STRIPES):
        await scene.add(scene.process())
    await locked(scene.process(), epoch=2)
    assert await fence._fence.count_documents({"kind": "stripe", "lock": "dead"}) == 0
    assert await fence._fence.count_documents({"kind": "stripe", "state": "closed"}) == STRIPES


async def test_two_controllers_close_at_once_and_one_of_them_does(scene: Scene) -> None:
    pause = PauseAt("locked_alone")
    one, two = scene.process(hook=pause), scene.process()

    async def close(side: MongoSide, epoch: int) -> bool:
        async with side.connect() as connection:
            await side.marks.lock_alone(connection, timeout_ms=100)
            done = await side.marks.close(connection, epoch=epoch)
            await connection.commit()
            return done

    first = asyncio.create_task(close(one, 2))
    await pause.reached.wait()
    with pytest.raises(LockHeldError):
        await close(two, 3)
    pause.resume.set()
    assert await first
    assert not await close(two, 3)
    async with two.reading() as connection:
        assert (await two.marks.read(connection)).epoch == 2


async def test_carries_end_before_the_lock_is_had_and_a_later_epoch_refuses_them(scene: Scene) -> None:
    side = scene.process()
    await locked(side, epoch=2)
    async with side.connect() as carry:
        await side.state.enter(carry, Direction.TO_LEGACY, epoch=2)
        async with side.connect() as connection:
            with pytest.raises(LockHeldError):
                await side.marks.lock_alone(connection, timeout_ms=50)
    async with side.begin() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        assert await side.marks.raise_epoch(connection, epoch=3, is_open=False)
    async with side.connect() as carry:
        with pytest.raises(FencedError):
            await side.state.enter(carry, Direction.TO_LEGACY, epoch=2)
