"""I1 and I7: whatever dies, at whatever line, what was acknowledged is there and both sides end up the same."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy import text

from backend.shared import Phase, SecondWrite, Side, UnitOfWork
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import notes, people, profiles
from tests.support.state import assert_equal_sides, both_sides
from tests.support.steps import Crash, CrashAt, PauseAt

BEFORE_FIRST_COMMIT = ["after_guards_locked", "after_trial", "before_first_commit"]
AFTER_FIRST_COMMIT = ["after_first_commit", "after_final_read", "before_second_commit", "after_second_commit"]
RELAY_STEPS = [
    "after_claim",
    "after_read",
    "before_target_commit",
    "after_target_commit",
    "before_source_commit",
    "after_source_commit",
]


async def add_person(work: UnitOfWork) -> int:
    (key,) = await work.insert("person", {people.c.email: "ann@example.org", profiles.c.city: "Ulm"})
    await work.insert("note", {notes.c.person_id: key, notes.c.body: "first"})
    return int(key)


@pytest.mark.invariant("I7")
@BOTH_AUTHORITIES
@pytest.mark.parametrize("step", BEFORE_FIRST_COMMIT + AFTER_FIRST_COMMIT)
async def test_i7_crash_in_a_synchronous_write(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase, step: str
) -> None:
    crash = CrashAt(step)
    dying = await make_manager(phase, async_legacy=False, hook=crash)
    with pytest.raises(Crash):
        await dying.write("add", add_person)
    assert crash.reached
    await dying.close()

    manager = await make_manager(phase, async_legacy=False)
    assert await manager.relay().drain(timeout_seconds=10)
    rows = await assert_equal_sides(people_databases)
    assert len(rows) == (1 if step in AFTER_FIRST_COMMIT else 0)
    assert (await manager.status()).journal_rows == 0


@pytest.mark.invariant("I7")
@BOTH_AUTHORITIES
@pytest.mark.parametrize("step", RELAY_STEPS)
async def test_i7_crash_of_the_relay(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase, step: str
) -> None:
    writer = await make_manager(phase)
    key = ((await writer.write("add", add_person)).unwrap(),)
    await writer.relay().drain(timeout_seconds=10)
    await writer.write("change", lambda work: work.update("person", key, {people.c.name: "Bea"}))
    await writer.write("add", lambda work: work.insert("person", {people.c.email: "cy@example.org"}))
    crash = CrashAt(step)
    dying = await make_manager(phase, hook=crash)
    with pytest.raises(Crash):
        await dying.relay().run_once()
    assert crash.reached
    await dying.close()

    assert await writer.relay().drain(timeout_seconds=10)
    rows = await assert_equal_sides(people_databases)
    assert [row[2] for row in rows] == ["Bea", None]


@pytest.mark.invariant("I1")
@BOTH_AUTHORITIES
async def test_i1_acknowledged_is_authoritative_at_once_and_on_the_other_side_in_the_end(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    manager = await make_manager(phase)
    result = await manager.write("add", add_person)
    assert result.success
    assert result.second_write is SecondWrite.PENDING
    legacy, new = await both_sides(people_databases)
    first, second = (legacy, new) if phase is Phase.DUALWRITE else (new, legacy)
    assert len(first) == 1
    assert second == []
    await manager.relay().drain(timeout_seconds=10)
    assert await assert_equal_sides(people_databases) == first


@pytest.mark.invariant("I1")
@BOTH_AUTHORITIES
async def test_i1_cancelled_request_does_not_cancel_the_second_write(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    pause = PauseAt("after_first_commit")
    manager = await make_manager(phase, async_legacy=False, hook=pause)
    request = asyncio.ensure_future(manager.write("add", add_person))
    await pause.reached.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    pause.resume.set()
    await manager.close()
    assert len(await assert_equal_sides(people_databases)) == 1


@BOTH_AUTHORITIES
async def test_unit_cancelled_until_it_ends_leaves_no_transaction_to_the_next(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, *, phase: Phase
) -> None:
    """A task group cancels at each step: then not even ROLLBACK may be sent, and nobody may go on in that transaction."""
    manager = await make_manager(phase)
    side = phase.policy.authoritative
    sql = legacy_sql if side is Side.LEGACY else new_sql
    runner = manager.runtime.sql_runner(side)

    async def ask() -> int:
        async with runner.transaction(request_id="", only_reads=True) as unit:
            return int((await unit.connection.execute(text("SELECT 1"))).scalar_one())

    holder = await asyncpg.connect(sql.url)
    try:
        async with holder.transaction():
            await holder.execute(f"SELECT pg_advisory_xact_lock({runner.names.fence_lock})")
            request = asyncio.ensure_future(ask())
            await sql.until("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            while not request.done():
                request.cancel()
                await asyncio.sleep(0)
    finally:
        await holder.close()
    for _ in range(20):  # more than the pool has connections
        assert await ask() == 1


@pytest.mark.invariant("I1")
@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("phase", [Phase.DUALWRITE, Phase.RAMPDOWN])
@pytest.mark.parametrize("trouble", ["refused", "unreachable"])
async def test_i1_fail_on_error_decides_whether_the_secondary_fails_the_call(
    make_manager: MakeManager,
    people_databases: Databases,
    legacy_sql: Sql,
    new_sql: Sql,
    *,
    phase: Phase,
    fails: bool,
    trouble: str,
) -> None:
    """All four combinations of the two FAIL_ON settings, told apart by the secondary's."""
    secondary = phase.policy.secondary
    assert secondary is not None
    manager = await make_manager(
        phase,
        async_legacy=False,
        fail_on_new_error=fails if secondary.value == "new" else not fails,
        fail_on_legacy_error=fails if secondary.value == "legacy" else not fails,
    )
    sql = new_sql if secondary.value == "new" else legacy_sql
    if trouble == "refused":
        table = "people" if secondary.value == "new" else "folk"
        column = "email" if secondary.value == "new" else "mail"
        await sql(f"ALTER TABLE {table} ADD CONSTRAINT no_ann CHECK ({column} NOT LIKE 'ann%')")
    else:
        await sql("ALTER TABLE tandem_people.guard RENAME TO guard_away")
    result = await manager.write("add", add_person)
    legacy, new = await both_sides(people_databases)
    first, second = (legacy, new) if secondary.value == "new" else (new, legacy)
    error = result.new_db_error if secondary.value == "new" else result.legacy_db_error
    assert error is not None
    assert error.unavailable is (trouble == "unreachable")
    assert second == []
    assert result.success is not fails
    assert len(first) == (0 if fails else 1)
    assert (await manager.status()).journal_rows == (0 if fails else 3)
    assert result.second_write is (SecondWrite.FAILED if fails else SecondWrite.PENDING)
