"""I2 and I3: whoever is late changes nothing. Each test is named for its interleaving."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from backend.shared import FencedError, Key, Phase, Unit
from backend.shared.stores.postgres.projection_sql import POSITION
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import people, profiles
from tests.support.state import assert_equal_sides
from tests.support.steps import PauseAt


def renamed(key: Key, name: str) -> Unit[bool]:
    return lambda work: work.update("person", key, {people.c.name: name})


ANN = {people.c.email: "ann@example.org", people.c.name: "one"}


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
async def test_i3_update_between_read_and_apply(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    """A relay reads, sleeps; the key changes and another relay carries it; the first one wakes up late."""
    manager = await make_manager(phase)
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    pause = PauseAt("after_read")
    late = await make_manager(phase, hook=pause)
    sleeping = asyncio.ensure_future(late.relay().run_once())
    await pause.reached.wait()
    await manager.write("change", lambda work: work.update("person", key, {people.c.name: "two"}))
    assert (await manager.relay().run_once()).carried == 1
    pause.resume.set()
    assert (await sleeping).skipped == 1
    (row,) = await assert_equal_sides(people_databases)
    assert row[2] == "two"


@pytest.mark.invariant("I2")
@BOTH_AUTHORITIES
async def test_i2_delete_between_read_and_insert(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    manager = await make_manager(phase)
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    pause = PauseAt("after_read")
    late = await make_manager(phase, hook=pause)
    sleeping = asyncio.ensure_future(late.relay().run_once())
    await pause.reached.wait()
    await manager.write("remove", lambda work: work.delete("person", key))
    assert (await manager.relay().run_once()).carried == 1
    pause.resume.set()
    await sleeping
    assert await assert_equal_sides(people_databases) == []


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
async def test_i3_two_relays_on_one_key(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    """Both hold a journal row of the same key; the one that read last applies first."""
    manager = await make_manager(phase, batch_size=1)
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    pauses = [PauseAt("after_read"), PauseAt("after_read")]
    relays = [(await make_manager(phase, batch_size=1, hook=pause)).relay() for pause in pauses]
    running = []
    for name, pause, relay in zip(("two", "three"), pauses, relays, strict=True):
        await manager.write("change", renamed(key, name))
        running.append(asyncio.ensure_future(relay.run_once()))
        await pause.reached.wait()
    pauses[1].resume.set()
    await running[1]
    pauses[0].resume.set()
    await running[0]
    await manager.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert row[2] == "three"


@pytest.mark.invariant("I3")
async def test_i3_two_tables_of_one_entity_commit_in_the_other_order(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql
) -> None:
    """The transaction with the lower journal number commits last: a version made of journal numbers loses it."""
    manager = await make_manager()
    await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (1, 'x@example.org')")
    await legacy_sql("INSERT INTO folk_extra VALUES (1, 'Ulm')")
    await manager.relay().drain(timeout_seconds=10)
    early, late = [await asyncpg.connect(people_databases.legacy_url) for _ in range(2)]
    try:
        first = early.transaction()
        await first.start()
        await early.execute("UPDATE folk_extra SET city = 'Bonn'")
        second = late.transaction()
        await second.start()
        await late.execute("UPDATE folk SET nm = 'Bea'")
        await second.commit()
        assert (await manager.relay().run_once()).carried == 1
        await first.commit()
    finally:
        await early.close()
        await late.close()
    await manager.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert (row[2], row[5]) == ("Bea", "Bonn")


@pytest.mark.invariant("I3")
@pytest.mark.parametrize("reader_has_id", [True, False])
async def test_i3_later_snapshot_is_greater_though_xmax_is_the_same(
    legacy_sql: Sql, *, reader_has_id: bool
) -> None:
    """A transaction below xmax ends between two snapshots; the earlier reader may have an id of its own or not."""
    other, reader, third, after = [await asyncpg.connect(legacy_sql.url) for _ in range(4)]
    try:
        for connection in (other, reader):
            await connection.execute("BEGIN")
            if connection is other or reader_has_id:
                await connection.fetchval("SELECT pg_current_xact_id()::text")
        await third.execute("SELECT pg_current_xact_id()")
        early = tuple(await reader.fetchrow(POSITION))
        await other.execute("COMMIT")
        later = tuple(await after.fetchrow(POSITION))
    finally:
        for connection in (other, reader, third, after):
            await connection.close()
    assert early[0] == later[0], "the two snapshots must share their xmax for this to say anything"
    assert early < later


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
async def test_i3_relay_of_another_epoch_and_open_target_write_nothing(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases, *, phase: Phase
) -> None:
    manager = await make_manager(phase)
    await manager.write("add", lambda work: work.insert("person", ANN | {profiles.c.city: "Ulm"}))
    target = new_sql if phase is Phase.DUALWRITE else legacy_sql
    for change in ("epoch = 2", "epoch = 1, state = 'open'"):
        await target(f"UPDATE tandem_people.mark SET {change}")
        with pytest.raises(FencedError):
            await manager.relay().run_once()
        assert (await manager.status()).journal_rows > 0
    await target("UPDATE tandem_people.mark SET epoch = 1, state = 'closed'")
    assert await manager.relay().drain(timeout_seconds=10)
    assert len(await assert_equal_sides(people_databases)) == 1
