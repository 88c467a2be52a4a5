"""A backfill beside other backfills, dead ones, relays and a validator. Each test is named for its interleaving.

The names are those of Ghostferry's TLA+ model and of its tests, where it has the same race.
"""

from __future__ import annotations

import asyncio

import pytest

from backend.shared import ConflictError, Side
from backend.shared.migration.backfill import Backfill
from backend.shared.stores.postgres.names import CARRY_CLASS
from backend.shared.sync_validator import SyncValidator
from backend.shared.testing.clusters import Databases
from tests.support.backfill_races import (
    PEOPLE,
    backfill,
    execute,
    filled,
    is_blocked,
    paused_at,
)
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import people
from tests.support.state import assert_equal_sides
from tests.support.steps import Crash, CrashAt, PauseAt


@pytest.mark.invariant("I3")
async def test_i3_two_backfills_at_once(make_manager: MakeManager, people_databases: Databases) -> None:
    """One stands in a chunk; the other does all the rest, and leaves that chunk alone."""
    await filled(people_databases, make_manager)
    manager, other = await make_manager(), await make_manager()
    pause, running = await paused_at("backfill_after_snapshot", manager)
    work = backfill(other)
    beside = asyncio.create_task(work.run())
    async with asyncio.timeout(20):
        while (await work.status()).entities[0].progress.rows_copied < PEOPLE - 4:  # noqa: ASYNC110 - rows ring no bell
            await asyncio.sleep(0.02)
    await manager.write("change", lambda work: work.update("person", (PEOPLE,), {people.c.name: "after"}))
    pause.resume.set()
    found = [await asyncio.wait_for(task, 20) for task in (running, beside)]
    assert all(status.is_complete for status in found)
    assert [item.progress.rows_copied for item in found[0].entities] == [PEOPLE, PEOPLE]
    await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[-1][2] == "after"


@pytest.mark.invariant("I7")
@pytest.mark.parametrize(
    "step",
    [
        "backfill_after_hand_out",
        "backfill_after_lock",
        "backfill_after_snapshot",
        "backfill_before_commit",
        "backfill_after_commit",
    ],
)
async def test_i7_crash_and_begin_again(
    make_manager: MakeManager, people_databases: Databases, step: str
) -> None:
    await filled(people_databases, make_manager)
    manager = await make_manager()
    with pytest.raises(Crash):
        await backfill(manager, CrashAt(step)).run()
    await manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "after"}))
    await manager.write("remove", lambda work: work.delete("note", (2,)))
    found = await backfill(await make_manager()).run()
    assert found.is_complete
    assert found.entities[0].progress.rows_copied == PEOPLE, "a chunk was counted twice, or not at all"
    await manager.relay().drain(timeout_seconds=10)
    await assert_equal_sides(people_databases)


async def test_chunk_that_a_dead_process_left_does_not_stop_carries(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    await filled(people_databases, make_manager)
    manager = await make_manager()
    with pytest.raises(Crash):
        await backfill(manager, CrashAt("backfill_after_hand_out")).run()
    await manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "after"}))
    assert (await manager.relay().run_once()).carried == 1
    assert (await backfill(manager).run()).is_complete
    assert (await assert_equal_sides(people_databases))[0][2] == "after"


@pytest.mark.invariant("I7")
async def test_i7_late_process_does_not_end_what_another_has_begun_anew(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql
) -> None:
    """It has copied all and stands; capture has a gap; another begins anew; the first must not call that complete."""
    await filled(people_databases, make_manager)
    manager = await make_manager()
    late = PauseAt("backfill_after_commit")
    standing = asyncio.create_task(
        Backfill(manager.runtime, first_chunk_rows=PEOPLE + 1, hook=late).run(["person"])
    )
    await asyncio.wait_for(late.reached.wait(), 10)
    await legacy_sql("DROP TRIGGER tandem_people_folk_update ON folk")
    await legacy_sql("UPDATE folk SET nm = 'unseen'")
    await manager.install()
    anew = PauseAt("backfill_after_hand_out")
    running = asyncio.create_task(backfill(manager, anew).run())
    await asyncio.wait_for(anew.reached.wait(), 10)
    late.resume.set()
    with pytest.raises(ConflictError, match="begun the backfill anew"):
        await standing
    anew.resume.set()
    assert (await running).is_complete
    assert {row[2] for row in await assert_equal_sides(people_databases)} == {"unseen"}


@pytest.mark.invariant("I7")
async def test_i7_crash_before_a_failure_is_closed(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql, new_sql: Sql
) -> None:
    await legacy_sql("INSERT INTO folk (folk_no, mail, cents) VALUES (1, 'p1', -5)")
    manager = await make_manager()
    assert (await backfill(manager).run()).failures_open == 1
    await new_sql("ALTER TABLE people DROP CONSTRAINT people_credit_check")
    with pytest.raises(Crash):
        await backfill(manager, CrashAt("backfill_after_commit")).run()
    assert (await backfill(manager).run()).is_complete
    assert await manager.relay().drain(timeout_seconds=10)
    assert await manager.list_failures(limit=10) == []
    await assert_equal_sides(people_databases)


@pytest.mark.invariant("I5")
async def test_i5_validator_beside_a_backfill(make_manager: MakeManager, people_databases: Databases) -> None:
    """What a copy writes between the validator's look at the source and that at the target is no mismatch."""
    await filled(people_databases, make_manager)
    manager = await make_manager()
    assert (await backfill(manager).run()).is_complete
    ending = asyncio.Event()

    async def write_and_copy() -> None:
        for number in range(15):
            await execute(people_databases.legacy_url, f"UPDATE folk SET nm = 'n{number}', cents = cents + 1")
            assert (await backfill(manager).run()).is_complete
            await manager.relay().drain(timeout_seconds=10)
        ending.set()

    beside = asyncio.create_task(write_and_copy())
    while not ending.is_set():
        report = await SyncValidator(manager.runtime).run()
        assert [item.mismatch_count for item in report.entities] == [0, 0]
    await beside


@pytest.mark.invariant("I3")
async def test_i3_carries_are_not_starved_by_chunks_that_follow_each_other(
    make_manager: MakeManager, people_databases: Databases, new_sql: Sql
) -> None:
    """The floor rises while a carry waits. It reads again without letting go, or the next chunk would always be first."""
    await filled(people_databases, make_manager)
    pause, running = await paused_at("backfill_after_lock", await make_manager())
    held: list[int] = []

    async def look(step: str) -> None:
        if step == "after_read":
            locks = await new_sql(
                "SELECT count(*) AS n FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
                "WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.classid = $1 "
                "AND l.mode = 'ShareLock' AND l.granted",
                CARRY_CLASS,
            )
            held.append(locks[0]["n"])

    manager = await make_manager(hook=look)
    await manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "after"}))
    relay = asyncio.create_task(manager.relay().run_once())
    assert await is_blocked(relay, people_databases, Side.NEW)
    pause.resume.set()
    assert (await relay).carried == 1
    assert held == [0, 1], "read, outdated while it waited, and read once more with its locks in its hands"
    assert (await running).is_complete
    assert (await assert_equal_sides(people_databases))[0][2] == "after"
