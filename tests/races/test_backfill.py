"""A backfill beside writers, relays and other backfills. Each test is named for its interleaving.

The names are those of Ghostferry's TLA+ model and of its tests, where it has the same race.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from backend.shared import ConflictError, Phase, Side
from backend.shared.domain.results import SecondWrite
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.migration.backfill import Backfill, BackfillStatus
from backend.shared.migration.backfill_state import BackfillLimits
from backend.shared.stores.postgres.names import CARRY_CLASS
from backend.shared.sync_validator import SyncValidator
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import PeopleManager, people
from tests.support.state import assert_equal_sides
from tests.support.steps import Crash, CrashAt, PauseAt

PEOPLE = 30
FILL = {
    Phase.DUALWRITE: f"""
INSERT INTO folk (folk_no, mail, nm, cents) SELECT n, 'p' || n, 'before', n FROM generate_series(1, {PEOPLE}) AS n;
INSERT INTO folk_extra SELECT n, 'Ulm' FROM generate_series(1, {PEOPLE}, 2) AS n;
INSERT INTO notes (note_no, folk_no, body) SELECT n, n, 'note' FROM generate_series(1, {PEOPLE}) AS n""",
    Phase.RAMPDOWN: f"""
INSERT INTO people (id, email, name, credit) SELECT n, 'p' || n, 'before', n FROM generate_series(1, {PEOPLE}) AS n;
INSERT INTO profiles SELECT n, 'Ulm' FROM generate_series(1, {PEOPLE}, 2) AS n;
INSERT INTO notes (id, person_id, body) SELECT n, n, 'note' FROM generate_series(1, {PEOPLE}) AS n""",
}


async def execute(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def filled(databases: Databases, make_manager: MakeManager, phase: Phase = Phase.DUALWRITE) -> None:
    """History that no journal knows of, on the authoritative side."""
    side = phase.policy.authoritative
    await execute(databases.legacy_url if side is Side.LEGACY else databases.new_url, FILL[phase])
    (await make_manager(phase)).relay()  # installs


def backfill(manager: PeopleManager, hook: Hook = no_hook) -> Backfill:
    """A backfill in small chunks, several of them at once."""
    return Backfill(manager.runtime, chunk_seconds=0.001, first_chunk_rows=4, hook=hook)


async def paused_at(step: str, manager: PeopleManager) -> tuple[PauseAt, asyncio.Task[BackfillStatus]]:
    """A backfill with one worker, that stands at `step` with the first chunk in its hands."""
    pause = PauseAt(step)
    work = backfill(manager, pause)
    await work.tell(limits=BackfillLimits(workers=1))
    running = asyncio.create_task(work.run())
    await asyncio.wait_for(pause.reached.wait(), 10)
    return pause, running


async def finish(
    manager: PeopleManager, pause: PauseAt, running: asyncio.Task[BackfillStatus]
) -> BackfillStatus:
    pause.resume.set()
    found = await asyncio.wait_for(running, 20)
    assert found.is_complete
    assert await manager.relay().drain(timeout_seconds=10)
    return found


async def is_blocked(task: asyncio.Task[Any], databases: Databases, side: Side) -> bool:
    """Whether `task` stands because its connection waits for a lock, seen in the server: no guess by time."""
    connection = await asyncpg.connect(databases.new_url if side is Side.NEW else databases.legacy_url)
    try:
        while not task.done():
            if await connection.fetchval(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND datname = current_database())"
            ):
                return True
            await asyncio.sleep(0.01)
        return False
    finally:
        await connection.close()


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


@pytest.mark.invariant("I2")
@BOTH_AUTHORITIES
async def test_i2_delete_between_read_and_insert(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    """The snapshot has the row; it is deleted, and the deletion is carried, before the row is inserted."""
    await filled(people_databases, make_manager, phase)
    manager = await make_manager(phase)
    pause, running = await paused_at("backfill_after_snapshot", manager)
    await manager.write("remove", lambda work: work.delete("note", (1,)))
    await manager.write("remove", lambda work: work.delete("person", (1,)))
    relay = asyncio.create_task(manager.relay().run_once())
    assert await is_blocked(relay, people_databases, phase.policy.authoritative.other)
    await finish(manager, pause, running)
    await relay
    await manager.relay().drain(timeout_seconds=10)
    rows = await assert_equal_sides(people_databases)
    assert [row[0] for row in rows] == list(range(2, PEOPLE + 1))


@pytest.mark.invariant("I2")
@BOTH_AUTHORITIES
async def test_i2_delete_and_copy_between_read_and_apply_of_a_carry(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    """A relay holds the row as it was; the row is deleted and a copy finds it gone; the relay must not bring it back."""
    await filled(people_databases, make_manager, phase)
    manager = await make_manager(phase)
    await manager.write("change", lambda work: work.update("person", (7,), {people.c.name: "alive"}))
    pause = PauseAt("after_read")
    late = await make_manager(phase, hook=pause)
    sleeping = asyncio.create_task(late.relay().run_once())
    await asyncio.wait_for(pause.reached.wait(), 10)
    await manager.write("remove", lambda work: work.delete("note", (7,)))
    await manager.write("remove", lambda work: work.delete("person", (7,)))
    assert (await backfill(manager).run()).is_complete
    pause.resume.set()
    await sleeping
    rows = await assert_equal_sides(people_databases)
    assert 7 not in [row[0] for row in rows], "a deleted row came back"


@pytest.mark.invariant("I2")
async def test_i2_insert_delete_insert(make_manager: MakeManager, people_databases: Databases) -> None:
    """One key is there, gone and there again, each time between two steps of a copy."""
    await filled(people_databases, make_manager)
    manager = await make_manager()
    steps = iter(("remove", "insert", "remove", "insert"))

    async def hook(step: str) -> None:
        if step not in ("backfill_after_lock", "backfill_after_snapshot", "backfill_after_commit"):
            return
        action = next(steps, None)
        if action == "remove":
            await manager.write("remove", lambda work: work.delete("person", (3,)))
        elif action == "insert":
            await manager.write(
                "add",
                lambda work: work.insert(
                    "person", {people.c.id: 3, people.c.email: "p3", people.c.name: "again"}
                ),
            )

    work = backfill(manager, hook)
    await work.tell(limits=BackfillLimits(workers=1))
    assert (await work.run()).is_complete
    assert next(steps, None) is None
    await manager.relay().drain(timeout_seconds=10)
    assert [row[2] for row in await assert_equal_sides(people_databases) if row[0] == 3] == ["again"]


@pytest.mark.invariant("I2")
async def test_i2_key_changed_between_read_and_copy(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql
) -> None:
    """A row moves from a range in hand to one that was copied, or is to come: it must be there once."""
    await filled(people_databases, make_manager)
    manager = await make_manager()
    pause, running = await paused_at("backfill_after_snapshot", manager)
    await legacy_sql("DELETE FROM notes WHERE folk_no = 2")
    await legacy_sql("DELETE FROM folk_extra WHERE folk_no = 2")
    await legacy_sql("UPDATE folk SET folk_no = 1000 WHERE folk_no = 2")
    await legacy_sql("UPDATE folk SET folk_no = -5 WHERE folk_no = 1000")
    await finish(manager, pause, running)
    keys = [row[0] for row in await assert_equal_sides(people_databases)]
    assert keys[0] == -5
    assert 2 not in keys
    assert 1000 not in keys


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


@pytest.mark.invariant("I2")
async def test_i2_carry_in_flight_when_a_chunk_is_handed_out(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """A carry has seen no chunk and is about to commit a row that is deleted by now: the copy waits for it."""
    await filled(people_databases, make_manager)
    manager = await make_manager()
    await manager.write("change", lambda work: work.update("person", (7,), {people.c.name: "alive"}))
    pause = PauseAt("before_target_commit")
    late = await make_manager(hook=pause)
    carrying = asyncio.create_task(late.relay().run_once())
    await asyncio.wait_for(pause.reached.wait(), 10)
    await manager.write("remove", lambda work: work.delete("note", (7,)))
    await manager.write("remove", lambda work: work.delete("person", (7,)))
    running = asyncio.create_task(backfill(manager).run())
    assert await is_blocked(running, people_databases, Side.NEW)
    pause.resume.set()
    await carrying
    assert (await running).is_complete
    assert 7 not in [row[0] for row in await assert_equal_sides(people_databases)], "a deleted row came back"


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
