"""Units of work on MongoDB: what they read and write, how they repeat, how long they may take, and their pool."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.document_units import DocumentUnitRunner
from backend.shared.domain.errors import (
    ConfigurationError,
    FencedError,
    SideError,
    ValidationError,
)
from backend.shared.domain.mapping import Key
from backend.shared.domain.outages import Outage
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.stores.mongo.pool_watch import PoolWatch
from backend.shared.stores.side import Pool
from backend.shared.testing.document_servers import DocumentServer
from tests.contract.conftest import NoBreaker
from tests.support.document_scene import Scene, limited
from tests.support.notes import CATALOG, NOTE, digits
from tests.support.steps import Crash, CrashAt


async def test_a_unit_reads_and_writes_documents_by_entity_and_key(scene: Scene) -> None:
    async def write(work: DocumentUnitOfWork) -> Key:
        made = await work.insert("board", {"name": "a", "tags": ["x"]})
        assert await work.get("board", made) == {"_id": ObjectId(made[0]), "name": "a", "tags": ["x"]}
        assert await work.update("board", made, {"tags": []})
        assert not await work.update("board", (digits(404),), {"tags": []})
        assert not await work.delete("board", (digits(404),))
        return made

    made = await scene.run(write)
    found = await scene.run(lambda work: work.get("board", made), only_reads=True)
    assert found == {"_id": ObjectId(made[0]), "name": "a", "tags": []}
    assert await scene.run(lambda work: work.delete("board", made))
    assert await scene.run(lambda work: work.get("board", made), only_reads=True) is None


@pytest.mark.parametrize("document", [{"_id": "a text", "n": 1}, {"_id": 7, "n": 1}])
async def test_a_unit_takes_no_id_that_is_no_object_id(scene: Scene, document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="_id"):
        await scene.run(lambda work: work.insert("note", document))
    with pytest.raises(ValidationError, match="_id"):
        await scene.run(lambda work: work.get("note", ("xyz",)))


async def test_a_unit_that_reads_is_refused_on_a_closed_side_and_writes_nothing(scene: Scene) -> None:
    await scene.put("note", 1, n=1)
    with pytest.raises(ConfigurationError, match="only reads"):
        await scene.run(lambda work: work.delete("note", (digits(1),)), only_reads=True)
    async with scene.side.begin() as connection:
        await scene.side.marks.lock_alone(connection, timeout_ms=1000)
        await scene.side.marks.close(connection, epoch=2)
    with pytest.raises(FencedError):
        await scene.run(lambda work: work.get("note", (digits(1),)), only_reads=True)
    found = await scene.run(lambda work: work.get("note", (digits(1),)), even_if_closed=True)
    assert found == {"_id": ObjectId(digits(1)), "n": 1}


@pytest.mark.invariant("I7")
async def test_a_crash_before_the_commit_leaves_neither_document_nor_journal_row(scene: Scene) -> None:
    scene.runner = DocumentUnitRunner(
        scene.side, catalog=CATALOG, breaker=NoBreaker(), hook=CrashAt("before_commit")
    )
    with pytest.raises(Crash):
        await scene.put("note", 1, n=1)
    async with scene.side.reading() as connection:
        assert (await scene.side.journal.depth(connection)).rows == 0
        assert await scene.side.state.count(connection, NOTE) == 0
    await scene.put("note", 1, n=1)
    async with scene.side.reading() as connection:
        assert (await scene.side.journal.depth(connection)).rows == 1


async def test_two_units_on_one_document_are_run_one_after_the_other(scene: Scene) -> None:
    await scene.put("note", 1, n=0)

    async def add(work: DocumentUnitOfWork) -> None:
        found = await work.get("note", (digits(1),))
        assert found is not None
        await work.update("note", (digits(1),), {"n": found["n"] + 1})

    await asyncio.gather(*(scene.run(add) for _ in range(3)))
    assert (await scene.read(scene.side, 1))[1] == 3


async def test_a_unit_that_takes_too_long_is_rolled_back(document_url: str) -> None:
    async with limited(document_url, max_time_ms=200) as scene:

        async def endless(work: DocumentUnitOfWork) -> None:
            await work.insert("note", {"_id": ObjectId(digits(1)), "n": 1})
            await asyncio.Event().wait()

        async with asyncio.timeout(10):
            with pytest.raises(SideError) as caught:
                await scene.run(endless)
        assert caught.value.outage is Outage.NO_ANSWER
        await scene.put("note", 2, n=2)
        async with scene.side.reading() as connection:
            assert await scene.side.state.count(connection, NOTE) == 1


async def test_a_unit_on_a_server_that_hangs_has_an_end(worker_directory: Path) -> None:
    # One of its own: it keeps the transaction whose end it has not heard of.
    server = DocumentServer(worker_directory / "hangs", durable=False)
    server.start()
    try:
        async with limited(server.url("notes"), max_time_ms=300) as scene:

            async def hangs(work: DocumentUnitOfWork) -> None:
                server.suspend()
                await work.insert("note", {"_id": ObjectId(digits(1)), "n": 1})

            try:
                async with asyncio.timeout(10):
                    with pytest.raises(SideError) as caught:
                        await scene.run(hangs)
            finally:
                server.resume()
            assert caught.value.outage is Outage.NO_ANSWER
            await scene.put("note", 2, n=2)
    finally:
        server.remove()


async def test_a_limit_cuts_no_commit_short(document_url: str) -> None:
    """How it ends has to be known; nor what is done about the other side after it."""
    async with limited(document_url, max_time_ms=200) as scene:
        async with scene.runner.transaction(request_id="r", journals_touched=True) as transaction:
            await transaction.work.insert("note", {"_id": ObjectId(digits(1)), "n": 1})
            await transaction.commit()
            await asyncio.sleep(0.4)
        assert transaction.committed


async def test_the_pool_tells_what_is_lent_out(document_url: str) -> None:
    pools = PoolWatch(most=2)
    limits = DocumentLimits(max_pool_size=2)
    client = create_client(document_url, application_name="test", limits=limits, listeners=[pools])
    seen: list[Pool] = []
    try:
        await client.admin.command("ping")
        assert pools.pool() == Pool(size=2, in_use=0, waiting=0)
        pings = [asyncio.ensure_future(client.admin.command("ping")) for _ in range(6)]
        while not all(ping.done() for ping in pings):
            seen.append(pools.pool())
            await asyncio.sleep(0)
    finally:
        await client.close()
    assert max(pool.in_use for pool in seen) in (1, 2)
    assert max(pool.waiting for pool in seen) >= 1
    assert pools.pool() == Pool(size=2, in_use=0, waiting=0)
