"""State between documents and rows on MongoDB, the journal's leases, and a relay between the two kinds of sides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from backend.shared.database import create_side_engine
from backend.shared.domain.errors import (
    InstallationError,
)
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.journal.relay import Relay, RelaySettings
from backend.shared.stores.errors import classify, describe
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.errors import UnfitRowsError
from backend.shared.stores.mongo.journal import LeaseLostError
from backend.shared.stores.postgres.side import PostgresSide
from backend.shared.stores.protocol import Position, StateBatch, Trouble, UnfitKeysError
from backend.shared.stores.side import SideStore
from backend.shared.testing.clusters import Cluster
from tests.support.document_scene import Scene
from tests.support.note_sides import NAMES
from tests.support.notes import BOARD, CATALOG, DDL, NOTE, digits, key
from tests.support.steps import PauseAt


class Conflicts(CommandListener):
    """Commands that were refused."""

    def __init__(self) -> None:
        self.met: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        """Nothing yet."""

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """None."""

    def failed(self, event: CommandFailedEvent) -> None:
        """One."""
        self.met.append(event.command_name)


# Installation -------------------------------------------------------------------------------------------------------


async def test_a_side_that_lacks_something_says_what_to_run(scene: Scene) -> None:
    side, fence = scene.side, scene.side.collections.fence
    await side.check_installation(phase=Phase.DUALWRITE)
    await fence.delete_one({"_id": "fence:07"})
    with pytest.raises(InstallationError, match="incomplete: run `tandem install notes`"):
        await side.check_installation(phase=Phase.DUALWRITE)
    await side.collections.installation.update_one({}, {"$set": {"fingerprint": "old"}})
    with pytest.raises(InstallationError, match="another version: run `tandem install notes`"):
        await side.check_installation(phase=Phase.DUALWRITE)
    await side.collections.installation.drop()
    await fence.drop()
    with pytest.raises(InstallationError, match="not installed on the legacy side: run"):
        await side.check_installation(phase=Phase.DUALWRITE)
    async with side.connect() as connection:
        with pytest.raises(InstallationError, match="run `tandem install notes`, then this again"):
            await side.epoch_of_mark(connection)


async def test_a_database_that_was_made_anew_is_another_one(scene: Scene) -> None:
    side = scene.side
    async with side.connect() as connection:
        before = await side.identity(connection)
        assert before == await scene.process().identity(connection)
        assert (await side.marks.read(connection)).identity == before
    await side.collections.fence.drop()
    await side.install(phase=Phase.DUALWRITE, epoch=1, foreign_writes="report")
    async with side.connect() as connection:
        assert await side.identity(connection) != before


async def test_a_known_gap_in_capture_changes_its_token(scene: Scene) -> None:
    side = scene.side
    async with side.connect() as connection:
        before = await side.capture_token(connection, phase=Phase.DUALWRITE)
        assert (await side.marks.read(connection)).capture_token == before != ""
    await side.marks.note_capture_gap()
    async with side.connect() as connection:
        after = await side.capture_token(connection, phase=Phase.DUALWRITE)
    assert after not in ("", before)


# State --------------------------------------------------------------------------------------------------------------


async def test_a_document_with_an_array_is_rows_of_two_tables_and_back(scene: Scene) -> None:
    side = scene.side
    await scene.put("board", 1, name="é", tags=["b", "a", "b"])
    await scene.put("board", 2, name="bare", tags=[])
    keys = [key(1), key(2), key(3)]
    async with side.reading() as connection:
        state = await side.state.read_state(connection, BOARD, Direction.TO_NEW, keys=keys)
    assert state.present == (frozenset({key(1), key(2)}), frozenset({key(1)}))
    assert [row["tag"] for row in json.loads(state.rows[1])] == ["b", "a", "b"]
    async with side.begin() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        await side.marks.close(connection, epoch=2)
    await side.collections.of(BOARD).delete_many({})
    back = StateBatch(
        entity=BOARD,
        direction=Direction.TO_LEGACY,
        keys=state.keys,
        position=Position(major=1, minor=0),
        rows=state.rows,
        present=state.present,
    )
    async with side.begin() as connection:
        await side.state.apply(connection, [back], epoch=2)
    found = {board["name"]: board["tags"] async for board in side.collections.of(BOARD).find()}
    assert found == {"é": ["b", "a", "b"], "bare": []}


async def test_a_document_that_rows_cannot_hold_is_named_with_its_field_and_no_value(
    scene: Scene,
) -> None:
    side = scene.side
    await scene.put("note", 1, n="secret")
    await scene.put("note", 2, n=2)
    async with side.reading() as connection:
        with pytest.raises(UnfitKeysError) as refused:
            await side.state.read_state(connection, NOTE, Direction.TO_NEW, keys=[key(1), key(2)])
        assert refused.value.reasons == {key(1): "n: not a whole number"}
        assert refused.value.position < await side.state.position(connection)
        with pytest.raises(UnfitKeysError, match="24 hexadecimal digits"):
            await side.state.read_state(connection, NOTE, Direction.TO_NEW, keys=['["abc"]'])


async def test_rows_that_no_document_can_hold_are_a_refusal_of_this_key(scene: Scene) -> None:
    side = scene.side
    async with side.begin() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        await side.marks.close(connection, epoch=2)
    batch = StateBatch(
        entity=NOTE,
        direction=Direction.TO_LEGACY,
        keys=(key(1),),
        position=Position(major=1, minor=0),
        rows=(json.dumps([{"id": digits(1), "n": None}]),),
        present=(frozenset({key(1)}),),
    )
    async with side.connect() as connection:
        with pytest.raises(UnfitRowsError) as refused:
            await side.state.apply(connection, [batch], epoch=2)
    assert classify(refused.value) is Trouble.REFUSED
    assert describe(refused.value) == "n: missing"
    async with side.reading() as connection:
        assert not await side.state.read_guards(connection, NOTE, keys=[key(1)])


@pytest.mark.invariant("I3")
async def test_update_between_ticket_and_read_gets_no_older_ticket(scene: Scene) -> None:
    await scene.put("note", 1, n=1)
    pause = PauseAt("ticket_drawn")
    early = asyncio.create_task(scene.read(scene.process(hook=pause), 1))
    await pause.reached.wait()
    await scene.put("note", 1, n=2)
    late = asyncio.create_task(scene.read(scene.side, 1))
    pause.resume.set()
    (first, old), (second, new) = await asyncio.gather(early, late)
    assert (old, new) == (1, 2)
    assert first < second


async def test_readers_of_one_process_take_turns_and_do_not_conflict(document_url: str) -> None:
    """Each would make all others begin anew."""
    conflicts = Conflicts()
    client = create_client(document_url, application_name="test", listeners=[conflicts])
    scene = Scene(client, document_url.rpartition("/")[2].partition("?")[0])
    try:
        await scene.side.install(phase=Phase.DUALWRITE, epoch=1, foreign_writes="report")
        await scene.put("note", 1, n=1)
        conflicts.met.clear()
        found = await asyncio.gather(*(scene.read(scene.side, 1) for _ in range(8)))
    finally:
        await client.close()
    assert len({position for position, _ in found}) == 8
    assert conflicts.met == []


# Leases -------------------------------------------------------------------------------------------------------------


async def test_a_claim_that_outlived_its_lease_keeps_nothing(scene: Scene) -> None:
    await scene.put("note", 1, n=1)
    slow = scene.process(lease_seconds=0)

    async def claim() -> None:
        async with slow.journal.claiming(limit=10) as (connection, mine):
            assert len(mine.keys) == 1
            async with scene.side.journal.claiming(limit=10) as (_, other):
                assert set(other.keys) == set(mine.keys)
                await slow.journal.add(connection, "note", [key(9)])
                # It ends while the other one holds the rows.
                async with slow.connect() as inner:
                    assert await slow.journal.open_keys(inner, "note", [key(1)]) == {key(1)}
            await slow.journal.add(connection, "note", [key(8)])

    with pytest.raises(LeaseLostError):
        await claim()
    async with scene.side.reading() as connection:
        assert (await scene.side.journal.depth(connection)).rows == 0


async def test_a_long_journal_is_claimed_oldest_first_in_windows(scene: Scene) -> None:
    side = scene.side
    for start in range(0, 300, 50):
        async with side.begin() as connection:
            await side.journal.add(connection, "note", [key(n) for n in range(start, start + 50)])
    seen: list[str] = []
    for _ in range(12):
        async with side.journal.claiming(limit=25) as (_, claim):
            assert claim.row_count == 25
            seen += [found for _, found in claim.keys]
    blocks = [sorted(seen[start : start + 50]) for start in range(0, 300, 50)]
    assert blocks == [[key(n) for n in range(start, start + 50)] for start in range(0, 300, 50)]
    async with side.journal.claiming(limit=25) as (_, nothing):
        assert nothing.row_count == 0


# A relay between the kinds ----------------------------------------------------------------------------------------------


@pytest.mark.invariant("I1")
async def test_what_units_write_to_documents_arrives_in_tables_and_the_other_way_round(
    scene: Scene, services_cluster: Cluster, make_database: Callable[..., Awaitable[str]]
) -> None:
    engine = create_side_engine(await make_database(services_cluster), application_name="test")
    new = PostgresSide(engine, Side.NEW, names=NAMES, catalog=CATALOG)
    async with new.begin() as connection:
        for statement in DDL:
            await connection.exec_driver_sql(statement)
    await new.install(phase=Phase.DUALWRITE, epoch=1, foreign_writes="report")
    for number in range(40):
        await scene.put("note", number, n=number)
    await scene.put("board", 1, name="b", tags=["x", "y"])
    await scene.run(lambda work: work.delete("note", (digits(7),)))
    await scene.put("note", 8, n="unfit")

    def relay(source: SideStore, target: SideStore, direction: Direction, epoch: int) -> Relay:
        return Relay(
            source=source,
            target=target,
            service="notes",
            catalog=CATALOG,
            direction=direction,
            settings=lambda: RelaySettings(epoch=epoch, retry_attempts=1, batch_size=16),
        )

    to_new = relay(scene.side, new, Direction.TO_NEW, 1)
    assert await to_new.drain(timeout_seconds=20)
    async with new.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT n FROM notes ORDER BY n")
        assert [row.n for row in rows] == [n for n in range(40) if n not in (7, 8)]
        tags = await connection.exec_driver_sql("SELECT tag FROM board_tags ORDER BY place")
        assert [row.tag for row in tags] == ["x", "y"]
    async with scene.side.reading() as documents:
        (failure,) = await scene.side.failures.page(documents)
        assert (failure.key, failure.reason) == (key(8), "n: not a whole number")
    async with scene.side.begin() as documents:
        await scene.side.marks.lock_alone(documents, timeout_ms=1000)
        assert await scene.side.marks.close(documents, epoch=2)
    async with new.begin() as connection:
        await new.marks.lock_alone(connection, timeout_ms=1000)
        assert await new.marks.open(connection, epoch=2, capture_token="t")
    async with new.begin() as connection:
        await connection.exec_driver_sql("UPDATE notes SET n = n + 100")
        await connection.exec_driver_sql("DELETE FROM board_tags WHERE place = 0")
    assert await relay(new, scene.side, Direction.TO_LEGACY, 2).drain(timeout_seconds=20)
    found = [note["n"] async for note in scene.side.collections.of(NOTE).find() if note["n"] != "unfit"]
    assert sorted(found) == [n + 100 for n in range(40) if n not in (7, 8)]
    (board,) = await scene.side.collections.of(BOARD).find().to_list()
    assert board["tags"] == ["y"]
    await engine.dispose()
