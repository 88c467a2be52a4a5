"""I7 and I4: controllers that are killed, replicas that are stopped, sides that are lost or restored while the phase moves."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from backend.shared import Key, Phase, Side, Unit
from backend.shared.migration.backfill import Backfill
from backend.shared.migration.phase_controller import GateShutError
from backend.shared.testing.clusters import Cluster, Databases
from backend.shared.testing.programs import REPOSITORY
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager, people
from tests.support.phases import SLOW_GATES, change, controller
from tests.support.state import assert_equal_sides, both_sides

FORCE = [*SLOW_GATES, "backfill"]
CUTOVER_STEPS = [
    "intent_written",
    "cutover_sequences_moved",
    "cutover_locked",
    "cutover_closing",
    "cutover_closed",
    "cutover_opened",
    "cutover_entered",
    "step_done",
]
CAPTURE_STEPS = [
    "intent_written",
    "capture_switched_new",
    "capture_switched_legacy",
    "phase_entered",
    "step_done",
]


def added(email: str) -> Unit[Key]:
    return lambda work: work.insert("person", {people.c.email: email})


def looked_at(key: Key) -> Unit[object]:
    return lambda work: work.get("person", key)


@asynccontextmanager
async def own_process(databases: Databases, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.own_process",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env=os.environ | {"LEGACY_URL": databases.legacy_url, "NEW_URL": databases.new_url},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def killed_controller(databases: Databases, to: Phase, at: str) -> None:
    async with own_process(databases, "controller", to.value, at) as process:
        assert await asyncio.wait_for(process.wait(), 40) == -signal.SIGKILL


async def write_until(stop: asyncio.Event, manager: PeopleManager) -> list[Key]:
    written: list[Key] = []
    while not stop.is_set():
        done = await manager.write("add", added(f"{len(written)}@example.org"))
        assert done.success, done.error
        written.append(done.unwrap())
        await asyncio.sleep(0.002)
    return written


async def resumed_after(
    make_manager: MakeManager, databases: Databases, origin: Phase, to: Phase, step: str
) -> PeopleManager:
    """Kill a controller on its way from `origin` to `to`, under traffic; another one finishes. Nothing may be lost."""
    replica = await make_manager(origin)
    await replica.start(relay=True)
    stop = asyncio.Event()
    working = asyncio.ensure_future(write_until(stop, replica))
    await killed_controller(databases, to, step)
    operator = await make_manager(origin)
    await controller(operator).change(to, reason="go on", force=FORCE)
    await asyncio.sleep(0.05)  # some writes after it
    stop.set()
    written = await working
    assert operator.phase is to
    assert operator.runtime.control.intent is None
    if to.policy.dual:
        assert await operator.relay().drain(timeout_seconds=20)
    legacy, new = await both_sides(databases)
    there = new if to.policy.authoritative is Side.NEW else legacy
    assert {(row[0],) for row in there} == set(written)
    return operator


@pytest.mark.parametrize("step", CUTOVER_STEPS)
@pytest.mark.invariant("I7")
async def test_i7_controller_killed_on_the_way_over(
    make_manager: MakeManager, people_databases: Databases, step: str
) -> None:
    await resumed_after(make_manager, people_databases, Phase.SHADOW, Phase.LIVE, step)
    await assert_equal_sides(people_databases)


@pytest.mark.parametrize("step", ["cutover_locked", "cutover_closed", "cutover_opened"])
@pytest.mark.invariant("I7")
async def test_i7_controller_killed_on_the_way_back(
    make_manager: MakeManager, people_databases: Databases, step: str
) -> None:
    await resumed_after(make_manager, people_databases, Phase.LIVE, Phase.SHADOW, step)
    await assert_equal_sides(people_databases)


@pytest.mark.parametrize("step", [step for step in CAPTURE_STEPS if step != "phase_entered"])
@pytest.mark.invariant("I7")
async def test_i7_controller_killed_while_it_puts_capture_on(
    make_manager: MakeManager, people_databases: Databases, step: str
) -> None:
    operator = await resumed_after(make_manager, people_databases, Phase.OFF, Phase.DUALWRITE, step)
    await Backfill(operator.runtime).run()
    assert await operator.relay().drain(timeout_seconds=20)
    await assert_equal_sides(people_databases)


@pytest.mark.parametrize("step", CAPTURE_STEPS)
@pytest.mark.parametrize("ends", [Phase.OFF, Phase.COMPLETE])
@pytest.mark.invariant("I7")
async def test_i7_controller_killed_while_it_takes_capture_off(
    make_manager: MakeManager,
    people_databases: Databases,
    legacy_sql: Sql,
    new_sql: Sql,
    step: str,
    ends: Phase,
) -> None:
    origin = Phase.DUALWRITE if ends is Phase.OFF else Phase.RAMPDOWN
    await resumed_after(make_manager, people_databases, origin, ends, step)
    for sql in (legacy_sql, new_sql):
        assert not await sql(
            "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'tandem_people%' AND tgname NOT LIKE '%fence%'"
        )
        assert not await sql("SELECT 1 FROM tandem_people.journal")


@pytest.mark.invariant("I7")
async def test_i7_controller_killed_while_it_gives_up(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql, new_sql: Sql
) -> None:
    operator = await make_manager(Phase.SHADOW)
    long = await asyncpg.connect(people_databases.legacy_url)
    try:
        await long.execute("BEGIN; UPDATE folk SET nm = nm")
        await killed_controller(people_databases, Phase.LIVE, "cutover_given_up")
    finally:
        await long.close()
    assert (await operator.write("add", added("x@example.org"))).authoritative is Side.LEGACY
    await controller(operator).change(Phase.LIVE, reason="once more", force=FORCE)
    marks = [(await sql("SELECT state, epoch FROM tandem_people.mark"))[0] for sql in (legacy_sql, new_sql)]
    assert [tuple(mark) for mark in marks] == [("closed", 3), ("open", 3)]
    assert await operator.relay().drain(timeout_seconds=10)
    await assert_equal_sides(people_databases)


@pytest.mark.invariant("I4")
async def test_i4_replica_stopped_through_a_cutover_goes_on_and_its_caller_sees_success(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """SIGSTOP within a unit that has not written yet; the cutover; SIGCONT: refused by the database, repeated on new."""
    operator = await make_manager(Phase.SHADOW)
    async with own_process(people_databases, "replica", "shadow") as replica:
        assert replica.stdin
        assert replica.stdout
        assert await replica.stdout.readline() == b"ready\n"
        replica.stdin.write(b"add late@example.org\n")
        assert await replica.stdout.readline() == b"begun\n"
        replica.send_signal(signal.SIGSTOP)
        await change(operator, Phase.LIVE, force=FORCE)
        replica.stdin.write(b"go\n")
        replica.send_signal(signal.SIGCONT)
        answer = (await replica.stdout.readline()).decode().split()
        assert answer[:3] == ["done", "new", "runs=2"]
        replica.stdin.write(b"\n")
        assert await replica.wait() == 0
    assert await operator.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert row[1] == "late@example.org"


@pytest.mark.invariant("I1")
async def test_i1_legacy_lost_in_live_and_caught_up_with(
    make_manager: MakeManager, people_databases: Databases, legacy_cluster: Cluster
) -> None:
    manager = await make_manager(Phase.LIVE)
    await manager.start(relay=True)
    await manager.write("add", added("before@example.org"))
    legacy_cluster.kill9()
    try:
        for number in range(20):
            done = await manager.write("add", added(f"{number}@example.org"))
            assert done.success, done.error
            assert await manager.read(looked_at(done.unwrap()))
        depth = await manager.runtime.measure()
        assert depth.rows >= 20
        with pytest.raises(GateShutError, match="sides: "):
            await controller(manager).change(Phase.SHADOW)
        assert manager.phase is Phase.LIVE
    finally:
        legacy_cluster.start()
    async with asyncio.timeout(30):
        while (await manager.runtime.measure()).rows:  # noqa: ASYNC110 - another server's affair
            await asyncio.sleep(0.1)
    assert len(await assert_equal_sides(people_databases)) == 21


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.LIVE])
@pytest.mark.invariant("I6")
async def test_i6_secondary_restored_from_an_old_backup(
    make_manager: MakeManager,
    people_databases: Databases,
    legacy_cluster: Cluster,
    services_cluster: Cluster,
    phase: Phase,
) -> None:
    """The backup is of a time before the last writes, and (in live) before the cutover: its mark says open."""
    secondary = phase.policy.authoritative.other
    cluster = legacy_cluster if secondary is Side.LEGACY else services_cluster
    url = people_databases.legacy_url if secondary is Side.LEGACY else people_databases.new_url
    manager = await make_manager(Phase.OFF)
    await manager.write("add", added("first@example.org"))
    await change(manager, Phase.SHADOW)
    assert await manager.relay().drain(timeout_seconds=10)
    name = url.rsplit("/", 1)[1]
    backup = await backup_of(cluster, name)
    try:
        manager = await make_manager(phase)
        await change(manager, phase)
        await manager.write("add", added("second@example.org"))
        assert await manager.relay().drain(timeout_seconds=10)
        await restore(cluster, name, backup)
        stale = await make_manager(phase)
        wrong = await stale.runtime.sides.found_wrong(secondary)
        assert "another database than it was" in wrong
        with pytest.raises(GateShutError, match="another database"):
            await controller(stale).change(
                Phase.SHADOW if phase is Phase.LIVE else Phase.LIVE, force=SLOW_GATES, reason="x"
            )
        epoch = stale.runtime.control.epoch
        await stale.take_up_restored(secondary, reason="the disk was lost")
        assert stale.runtime.control.epoch > epoch  # so that no position from before counts
        assert (
            await stale.write("add", added("third@example.org"))
        ).authoritative is phase.policy.authoritative
        with pytest.raises(GateShutError, match="backfill: "):
            await controller(stale).change(
                Phase.SHADOW if phase is Phase.LIVE else Phase.LIVE, force=SLOW_GATES, reason="x"
            )
        await Backfill(stale.runtime).run()
        assert await stale.relay().drain(timeout_seconds=10)
        assert len(await assert_equal_sides(people_databases)) == 3
        await change(stale, Phase.SHADOW if phase is Phase.LIVE else Phase.LIVE)
        assert await stale.relay().drain(timeout_seconds=10)
        await assert_equal_sides(people_databases)
    finally:
        await cluster.drop_database(backup)


async def backup_of(cluster: Cluster, name: str) -> str:
    """A copy of a database as it is now."""
    await disconnect(cluster, name)
    copy = f"{name}_backup"
    await cluster.create_database(copy, template=name)
    return copy


async def restore(cluster: Cluster, name: str, backup: str) -> None:
    """Make the database what it was then."""
    await disconnect(cluster, name)
    await cluster.drop_database(name)
    await cluster.create_database(name, template=backup)


async def disconnect(cluster: Cluster, name: str) -> None:
    connection = await asyncpg.connect(cluster.url("postgres"))
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
            name,
        )
    finally:
        await connection.close()
