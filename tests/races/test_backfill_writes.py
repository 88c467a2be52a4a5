"""Writes and carries beside a backfill. Each test is named for its interleaving.

The names are those of Ghostferry's TLA+ model and of its tests, where it has the same race.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from backend.shared import Phase, Side
from backend.shared.domain.results import SecondWrite
from backend.shared.migration.backfill_state import BackfillLimits
from backend.shared.testing.clusters import Databases
from tests.support.backfill_races import (
    PEOPLE,
    backfill,
    execute,
    filled,
    finish,
    is_blocked,
    paused_at,
)
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import people
from tests.support.state import assert_equal_sides
from tests.support.steps import PauseAt


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
async def test_i3_history_arrives_whole(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    await filled(people_databases, make_manager, phase)
    manager = await make_manager(phase)
    found = await backfill(manager).run()
    assert found.is_complete
    assert [item.summary for item in found.entities] == ["complete", "complete"]
    assert [item.progress.rows_copied for item in found.entities] == [PEOPLE, PEOPLE]
    assert len(await assert_equal_sides(people_databases)) == PEOPLE


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
async def test_i3_update_between_read_and_copy(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    """The snapshot is taken, the row changes and is carried, then the snapshot's row is written."""
    await filled(people_databases, make_manager, phase)
    manager = await make_manager(phase)
    pause, running = await paused_at("backfill_after_snapshot", manager)
    await manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "after"}))
    relay = asyncio.create_task(manager.relay().run_once())
    assert await is_blocked(relay, people_databases, phase.policy.authoritative.other)
    await finish(manager, pause, running)
    await relay
    await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[0][2] == "after"


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
async def test_i3_copy_between_read_and_apply_of_a_carry(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    """A relay reads a row and sleeps; the row changes and is copied; the relay wakes with what it has read."""
    await filled(people_databases, make_manager, phase)
    manager = await make_manager(phase)
    await manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "old"}))
    pause = PauseAt("after_read")
    late = await make_manager(phase, hook=pause)
    sleeping = asyncio.create_task(late.relay().run_once())
    await asyncio.wait_for(pause.reached.wait(), 10)
    await manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "newer"}))
    found = await backfill(manager).run()
    assert found.is_complete
    seen = []
    pause.resume.set()
    await sleeping
    seen.append((await assert_equal_sides(people_databases))[0][2])
    await manager.relay().drain(timeout_seconds=10)
    seen.append((await assert_equal_sides(people_databases))[0][2])
    assert seen == ["newer", "newer"], "the late relay wrote what the copy had outdated"


@pytest.mark.invariant("I1")
async def test_i1_copy_of_another_range_between_read_and_apply_of_a_carry(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """The key's own range was copied before it changed; a later chunk raises the floor above what the relay has read.

    What it has read is the newest state all the same: it must be read again, and not be taken for carried.
    """
    await filled(people_databases, make_manager)
    manager = await make_manager()
    late_read = PauseAt("after_read")
    late = await make_manager(hook=late_read)
    relays: list[asyncio.Task[Any]] = []
    copied = 0

    async def hook(step: str) -> None:
        nonlocal copied
        copied += step == "backfill_after_commit"
        if step == "backfill_after_commit" and copied == 1:
            await manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "after"}))
            relays.append(asyncio.create_task(late.relay().run_once()))
            await asyncio.wait_for(late_read.reached.wait(), 10)

    work = backfill(manager, hook)
    await work.tell(limits=BackfillLimits(workers=1))
    assert (await work.run()).is_complete
    assert copied > 2
    late_read.resume.set()
    assert (await relays[0]).carried == 1
    assert (await assert_equal_sides(people_databases))[0][2] == "after"


@pytest.mark.invariant("I3")
async def test_i3_copy_between_update_and_carry(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """The change is in the journal, the copy has it already, then it is carried: once more, to no effect."""
    await filled(people_databases, make_manager)
    manager = await make_manager()
    await manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "after"}))
    assert (await backfill(manager).run()).is_complete
    assert (await assert_equal_sides(people_databases))[0][2] == "after"
    assert (await manager.relay().run_once()).carried == 1
    assert (await assert_equal_sides(people_databases))[0][2] == "after"


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
async def test_i3_synchronous_write_between_read_and_copy(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    """The second write of a synchronous call waits for the copy, and is not undone by it."""
    await filled(people_databases, make_manager, phase)
    manager = await make_manager(phase, async_legacy=False)
    pause, running = await paused_at("backfill_after_snapshot", manager)
    writing = asyncio.create_task(
        manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "after"}))
    )
    assert await is_blocked(writing, people_databases, phase.policy.authoritative.other)
    await finish(manager, pause, running)
    assert (await writing).second_write is SecondWrite.APPLIED
    begun, ended = (pause.steps.count(f"backfill_after_{step}") for step in ("lock", "commit"))
    assert begun == ended, "a chunk was rolled back: copy and call waited for each other"
    await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[0][2] == "after"


@pytest.mark.invariant("I3")
async def test_i3_copy_of_another_range_within_a_synchronous_write(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """A floor rises between the last read of a synchronous call and its guards: it reads again, and succeeds."""
    await filled(people_databases, make_manager)
    pause_copy, backfilling = await paused_at("backfill_after_lock", await make_manager())
    pause_call = PauseAt("after_final_read")
    manager = await make_manager(async_legacy=False, hook=pause_call)
    writing = asyncio.create_task(
        manager.write("change", lambda work: work.update("person", (PEOPLE,), {people.c.name: "after"}))
    )
    await asyncio.wait_for(pause_call.reached.wait(), 10)
    pause_copy.resume.set()
    assert await is_blocked(backfilling, people_databases, Side.NEW), "the next chunk waits for the call"
    pause_call.resume.set()
    result = await writing
    assert result.success
    assert result.second_write is SecondWrite.APPLIED
    await finish(manager, pause_copy, backfilling)
    assert (await assert_equal_sides(people_databases))[-1][2] == "after"


@pytest.mark.invariant("I3")
async def test_i3_foreign_writer_on_the_source(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """Another program changes, deletes and inserts without pause until the copy is over."""
    await filled(people_databases, make_manager)
    manager = await make_manager()
    ending = asyncio.Event()

    async def writer(number: int) -> int:
        connection, writes = await asyncpg.connect(people_databases.legacy_url), 0
        try:
            while not ending.is_set():
                key = (writes * 7 + number) % PEOPLE + 1
                await connection.execute(
                    "UPDATE folk SET nm = $2 WHERE folk_no = $1", key, f"w{number} {writes}"
                )
                if writes % 5 == 0:
                    await connection.execute("DELETE FROM folk WHERE folk_no = $1", key)
                    await connection.execute(
                        "INSERT INTO folk (folk_no, mail) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                        key,
                        f"p{key}",
                    )
                writes += 1
        finally:
            await connection.close()
        return writes

    async def relay() -> None:
        while not ending.is_set():
            await manager.relay().run_once()
            await asyncio.sleep(0)

    beside = [asyncio.create_task(work) for work in (writer(1), writer(2), relay())]
    for _ in range(5):
        assert (await backfill(manager).run()).is_complete
    ending.set()
    assert sum(count or 0 for count in await asyncio.gather(*beside)) > 20
    assert await manager.relay().drain(timeout_seconds=10)
    await assert_equal_sides(people_databases)
    assert await manager.list_failures(limit=10) == []


@pytest.mark.invariant("I3")
async def test_i3_foreign_row_on_the_target_during_the_copy(
    make_manager: MakeManager, people_databases: Databases, new_sql: Sql
) -> None:
    """A row of the range appears on the target after the copy saw that there is none."""
    await filled(people_databases, make_manager)
    manager = await make_manager()
    pause, running = await paused_at("backfill_after_snapshot", manager)
    await new_sql("INSERT INTO people (id, email, name) VALUES (1, 'stranger', 'stranger')")
    await finish(manager, pause, running)
    assert (await assert_equal_sides(people_databases))[0][1] == "p1"


@pytest.mark.invariant("I1")
async def test_i1_table_rewritten_between_snapshot_and_read(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """ALTER TABLE leaves a rewritten table empty to older snapshots: it has to wait for the copy, or come before it."""
    await filled(people_databases, make_manager)
    manager = await make_manager()
    rewriting: list[asyncio.Task[None]] = []

    async def hook(step: str) -> None:
        if step == "backfill_after_snapshot" and not rewriting:
            statement = "ALTER TABLE folk ALTER COLUMN shoe_size TYPE bigint"
            rewriting.append(asyncio.create_task(execute(people_databases.legacy_url, statement)))
            await is_blocked(rewriting[0], people_databases, Side.LEGACY)

    found = await backfill(manager, hook).run()
    await rewriting[0]
    assert found.entities[0].progress.rows_copied == PEOPLE
    assert len(await assert_equal_sides(people_databases)) == PEOPLE
