"""A unit on MongoDB whose COMMIT is not answered: it is sent again, then asked after; never guessed, never done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from bson import ObjectId

from backend.shared.document_units import DocumentUnitRunner
from backend.shared.domain.errors import SideError
from backend.shared.domain.phases import Phase, Side
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.fence import KEPT_WRITERS, STRIPES
from backend.shared.stores.mongo.side import MongoSide
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.testing.document_servers import DocumentServer
from tests.contract.conftest import NoBreaker
from tests.support.document_clients import direct
from tests.support.notes import CATALOG, digits, key
from tests.support.proxy import CuttableWire, cuttable_wire

NAMES = EngineNames("notes")
COMMIT = b"commitTransaction\x00"
SENT_BY_DRIVER = 2
"""So often the driver itself sends a commit."""


class Scene:
    """A side behind a wire that can be cut, on a server that can be killed."""

    def __init__(self, server: DocumentServer, wire: CuttableWire, side: MongoSide) -> None:
        self.server = server
        self.wire = wire
        self.side = side
        self.runs = 0
        self.steps: list[str] = []
        self.at: dict[str, str] = {}

    async def hook(self, step: str) -> None:
        self.steps.append(step)
        what = self.at.pop(step, "")
        if what in ("kill", "restart"):
            await asyncio.to_thread(self.server.kill9)
        if what == "restart":
            await asyncio.to_thread(self.server.start)

    async def add(self, *, wait_seconds: float = 20) -> int:
        """Insert note 1 by a unit; answers how often it was run."""
        runner = DocumentUnitRunner(
            self.side,
            catalog=CATALOG,
            breaker=NoBreaker(),
            hook=self.hook,
            status_wait_seconds=wait_seconds,
        )

        async def attempt() -> None:
            self.runs += 1
            async with runner.transaction(request_id="r", journals_touched=True) as transaction:
                await transaction.work.insert("note", {"_id": ObjectId(digits(1)), "n": self.runs})
                await transaction.commit()

        await runner.repeat(attempt)
        return self.runs

    async def kept(self) -> tuple[list[int], int]:
        """The notes, and the number of journal rows."""
        async with self.side.reading() as connection:
            notes = await self.side.collections.of(CATALOG["note"]).find().to_list()
            rows = (await self.side.journal.remainder(connection)).rows
            assert await self.side.journal.open_keys(connection, "note", [key(1)]) == (
                {key(1)} if rows else set()
            )
        return [note["n"] for note in notes], rows


@asynccontextmanager
async def scene_on(directory: Path) -> AsyncIterator[Scene]:
    server = DocumentServer(directory)
    server.start()
    async with AsyncExitStack() as stack:
        stack.callback(server.remove)
        wire = await stack.enter_async_context(cuttable_wire(server.url("notes"), marker=COMMIT))
        client = create_client(direct(wire.url), application_name="test")
        stack.push_async_callback(client.close)
        side = MongoSide(client, "notes", Side.LEGACY, names=NAMES, catalog=CATALOG)
        await side.install(phase=Phase.DUALWRITE, epoch=1, foreign_writes="report")
        yield Scene(server, wire, side)


@pytest.fixture
async def scene(worker_directory: Path) -> AsyncIterator[Scene]:
    async with scene_on(worker_directory / "lost-commit") as found:
        yield found


@pytest.mark.invariant("I1")
@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_answer_is_lost_and_the_server_still_knows(scene: Scene, when: str) -> None:
    scene.wire.cut, scene.wire.left = when, SENT_BY_DRIVER
    assert await scene.add() == 1
    assert scene.steps == ["before_commit", "commit_answer_lost"]
    assert await scene.kept() == ([1], 1)


@pytest.mark.invariant("I1")
async def test_the_server_dies_after_the_commit_and_has_forgotten_who_asks(scene: Scene) -> None:
    scene.wire.cut, scene.wire.left = "after", 1
    scene.wire.left = SENT_BY_DRIVER
    scene.at["commit_answer_lost"] = "restart"
    assert await scene.add() == 1
    assert await scene.kept() == ([1], 1)


@pytest.mark.invariant("I1")
async def test_the_server_dies_before_the_commit_and_the_unit_is_run_again(scene: Scene) -> None:
    scene.at["before_commit"] = "restart"
    assert await scene.add() == 2
    assert await scene.kept() == ([2], 1)


@pytest.mark.invariant("I1")
async def test_a_server_that_stays_away_leaves_it_unknown(scene: Scene) -> None:
    scene.wire.cut, scene.wire.left = "after", SENT_BY_DRIVER
    scene.at["commit_answer_lost"] = "kill"
    with pytest.raises(SideError, match="outcome unknown") as error:
        await scene.add(wait_seconds=0)
    assert error.value.unavailable
    assert scene.runs == 1
    await asyncio.to_thread(scene.server.start)
    assert await scene.kept() == ([1], 1)


async def test_where_too_many_have_written_since_it_is_unknown(scene: Scene) -> None:
    fence = scene.side.fence
    mine, lost = ObjectId(), ObjectId()
    async with scene.side.connect() as connection:
        await fence.enter(connection, check=lambda _: None, by=mine)
        stripe = connection.stripe
        await connection.commit()
    assert stripe is not None
    assert await fence.settled(stripe, mine) is True
    assert await fence.settled(stripe, lost) is False
    fence._in_use.update(dict.fromkeys(set(range(STRIPES)) - {stripe.number}, 1))
    for _ in range(KEPT_WRITERS):
        async with scene.side.connect() as connection:
            await fence.enter(connection, check=lambda _: None, by=ObjectId())
            await connection.commit()
    assert await fence.settled(stripe, mine) is None
