"""I4, I6: the way over and back beside writers, relays and controllers that are late. Named for their interleavings."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from backend.shared import ConflictError, FencedError, Key, Phase, Side, SideError, Unit
from backend.shared.journal.carrier import TargetUnavailableError
from backend.shared.journal.fence import FENCED
from backend.shared.migration import cutover
from backend.shared.migration.backfill import Backfill
from backend.shared.migration.cutover import ChangeGivenUpError, ChangeOvertakenError
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager, people
from tests.support.phases import SLOW_GATES, change, controller
from tests.support.state import assert_equal_sides, both_sides
from tests.support.steps import Crash, CrashAt, PauseAt

TIMES_UP_AND_BACK = 10


def added(email: str, name: str = "one") -> Unit[Key]:
    return lambda work: work.insert("person", {people.c.email: email, people.c.name: name})


def named(key: Key, name: str) -> Unit[bool]:
    return lambda work: work.update("person", key, {people.c.name: name})


def removed(key: Key) -> Unit[bool]:
    return lambda work: work.delete("person", key)


def looked_at(key: Key) -> Unit[object]:
    return lambda work: work.get("person", key)


async def marks(*sides: Sql) -> list[tuple[str, int]]:
    rows = [(await sql("SELECT state, epoch FROM tandem_people.mark"))[0] for sql in sides]
    return [(row["state"], row["epoch"]) for row in rows]


async def never_two_open(stop: asyncio.Event, databases: Databases) -> int:
    """Look at both marks again and again, legacy first and last; answers how often it looked.

    Two sides open at two times is nothing: so both looks at legacy have to find it open, in one epoch, with new open between.
    """
    legacy = await asyncpg.connect(databases.legacy_url)
    new = await asyncpg.connect(databases.new_url)
    query, looks = "SELECT state, epoch FROM tandem_people.mark", 0
    try:
        while not stop.is_set():
            before, between, after = [
                await connection.fetchrow(query) for connection in (legacy, new, legacy)
            ]
            assert before
            assert between
            assert after
            open_throughout = before == after and before["state"] == "open"
            assert not (open_throughout and between["state"] == "open")
            looks += 1
    finally:
        await legacy.close()
        await new.close()
    return looks


async def write_on(manager: PeopleManager, who: str, stop: asyncio.Event) -> dict[Key, str]:
    """Insert, change and delete until `stop`; every call has to succeed. Answers what has to be there in the end."""
    there: dict[Key, str] = {}
    number = 0
    while not stop.is_set():
        number += 1
        done = await manager.write("add", added(f"{who}-{number}@example.org", f"{number}"))
        assert done.success, done.error
        key = done.unwrap()
        assert key not in there
        there[key] = f"{number}"
        if number % 3 == 0:
            oldest = next(iter(there))
            changed = await manager.write("change", named(oldest, f"changed by {number}"))
            assert changed.unwrap(), oldest
            there[oldest] = f"changed by {number}"
        if number % 5 == 0:
            oldest = next(iter(there))
            assert (await manager.write("remove", removed(oldest))).unwrap()
            del there[oldest]
        seen = await manager.read(looked_at(key))
        assert (seen is not None) is (key in there)  # what was acknowledged is there at once (I1)
        await asyncio.sleep(0)
    return there


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I6")
@pytest.mark.timeout(240)
async def test_i4_i6_two_replicas_under_load_all_the_way_up_and_half_way_back_ten_times(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    operator = await make_manager(Phase.OFF)
    replicas = [await make_manager(Phase.OFF) for _ in range(2)]
    for replica in replicas:
        await replica.start(relay=True)
    stop = asyncio.Event()
    working = [asyncio.ensure_future(write_on(item, f"w{n}", stop)) for n, item in enumerate(replicas)]
    watching = asyncio.ensure_future(never_two_open(stop, people_databases))
    try:
        for _ in range(TIMES_UP_AND_BACK):
            await change(operator, Phase.RAMPDOWN)
            await change(operator, Phase.SHADOW)
        await change(operator, Phase.RAMPDOWN)
    finally:
        stop.set()
        done = await asyncio.gather(*working, watching, return_exceptions=True)
    failed = [item for item in done if isinstance(item, BaseException)]
    assert not failed, failed
    assert await operator.relay().drain(timeout_seconds=20)
    rows = await assert_equal_sides(people_databases)
    expected: dict[Key, str] = {}
    for item in done[:2]:
        assert isinstance(item, dict)
        expected |= item
    assert {(row[0],): row[2] for row in rows} == expected
    assert operator.runtime.control.epoch == 2 * TIMES_UP_AND_BACK + 2


@pytest.mark.invariant("I4")
async def test_i4_replica_that_has_heard_nothing_writes_after_the_cutover(
    make_manager: MakeManager, people_databases: Databases, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await make_manager(Phase.SHADOW)
    deaf = await make_manager(Phase.SHADOW)
    refreshes = deaf.runtime.following.refresh
    heard: list[str] = []

    async def hears_only_when_fenced() -> None:
        heard.append("asked")
        await refreshes()

    async def hears_nothing() -> None:
        return

    monkeypatch.setattr(deaf.runtime.following, "follow", hears_nothing)
    monkeypatch.setattr(deaf.runtime.following, "refresh", hears_only_when_fenced)
    await deaf.runtime.replicas.leave(deaf.runtime.following.replica_id)  # its lease has run out
    await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
    assert deaf.phase is Phase.SHADOW
    done = await deaf.write("add", added("late@example.org"))
    assert done.success
    assert heard
    assert done.authoritative is Side.NEW
    legacy, new = await both_sides(people_databases)
    assert (len(legacy), len(new)) == (0, 1)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.invariant("I4")
async def test_i4_snapshot_older_than_the_cutover_sees_no_old_mark(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql, isolation: str
) -> None:
    """The lock does not make an old snapshot new: above READ COMMITTED the row of the mark itself is locked."""
    operator = await make_manager(Phase.SHADOW)
    await legacy_sql("INSERT INTO folk (mail) VALUES ('x@example.org')")
    await operator.relay().drain(timeout_seconds=10)
    writer = await asyncpg.connect(people_databases.legacy_url)
    try:
        await writer.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        await writer.fetch("SELECT nm FROM folk")  # takes the snapshot
        await writer.execute("SET LOCAL tandem.unit = 'people:late'")
        await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
        with pytest.raises(asyncpg.PostgresError) as refused:
            await writer.execute("UPDATE folk SET nm = 'from an old snapshot'")
    finally:
        await writer.close()
    assert refused.value.sqlstate == "40001"
    (row,) = await assert_equal_sides(people_databases)
    assert row[2] is None


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM notes WHERE note_no = 0", "TRUNCATE folk CASCADE", "UPDATE folk SET nm = 'x' WHERE false"],
)
@pytest.mark.invariant("I4")
async def test_i4_a_unit_that_touches_no_row_of_a_closed_side_is_refused_all_the_same(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql, statement: str
) -> None:
    await make_manager(Phase.LIVE)
    writer = await asyncpg.connect(people_databases.legacy_url)
    try:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("SET LOCAL tandem.unit = 'people:late'")
        with pytest.raises(asyncpg.PostgresError) as refused:
            await writer.execute(statement)
        await transaction.rollback()
    finally:
        await writer.close()
    assert refused.value.sqlstate == FENCED


async def test_a_unit_that_wrote_nothing_is_repeated_where_it_would_have_been_seen(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """It read on the side that was closed meanwhile: what it answers has to be of the side that is open."""
    operator = await make_manager(Phase.SHADOW)
    replica = await make_manager(Phase.SHADOW)
    key = (await operator.write("add", added("x@example.org"))).unwrap()
    read, go_on = asyncio.Event(), asyncio.Event()
    seen: list[Side] = []

    async def unit(work: object) -> object:
        seen.append(work.side)  # type: ignore[attr-defined]
        found = await work.get("person", key)  # type: ignore[attr-defined]
        read.set()
        await go_on.wait()
        return found

    reading = asyncio.ensure_future(replica.write("look", unit))
    await read.wait()
    await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
    go_on.set()
    done = await reading
    assert done.success
    assert seen == [Side.LEGACY, Side.NEW]


@pytest.mark.parametrize(
    "step",
    ["intent_written", "cutover_sequences_moved", "cutover_closed", "cutover_opened", "cutover_entered"],
)
@pytest.mark.invariant("I4")
async def test_i4_late_controller_wakes_after_a_rollback(
    make_manager: MakeManager,
    people_databases: Databases,
    legacy_sql: Sql,
    new_sql: Sql,
    step: str,
) -> None:
    """It sleeps in the middle of its cutover; another finishes that, goes back, and the first one wakes up."""
    late, other, replica = [await make_manager(Phase.SHADOW) for _ in range(3)]
    force = [*SLOW_GATES, "backfill"]
    pause = PauseAt(step)
    sleeping = asyncio.ensure_future(change(late, Phase.LIVE, hook=pause, force=force))
    await pause.reached.wait()
    await controller(other).change(Phase.LIVE, force=force, reason="a test")
    await controller(other).change(Phase.SHADOW, force=force, reason="a test")
    before = await marks(legacy_sql, new_sql)
    pause.resume.set()
    with suppress(ChangeOvertakenError, ChangeGivenUpError):
        await sleeping
    assert await marks(legacy_sql, new_sql) == before == [("open", 3), ("closed", 3)]
    await other.runtime.following.refresh()
    assert other.phase is Phase.SHADOW
    done = await replica.write("add", added("after@example.org"))
    assert done.authoritative is Side.LEGACY
    assert await other.relay().drain(timeout_seconds=10)
    await assert_equal_sides(people_databases)


@pytest.mark.invariant("I4")
async def test_i4_late_controller_wakes_after_another_has_given_up(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    """What is given up stays so: the epoch is used up, so that the one who sleeps cannot close the old side any more."""
    late, other = [await make_manager(Phase.SHADOW) for _ in range(2)]
    force = [*SLOW_GATES, "backfill"]
    pause = PauseAt("cutover_sequences_moved")
    sleeping = asyncio.ensure_future(change(late, Phase.LIVE, hook=pause, force=force))
    await pause.reached.wait()
    await other.runtime.following.refresh()
    await controller(other).finish(towards=Phase.SHADOW)  # takes it back
    pause.resume.set()
    with pytest.raises((ChangeGivenUpError, ChangeOvertakenError)):
        await sleeping
    assert await marks(legacy_sql, new_sql) == [("open", 2), ("closed", 2)]
    assert (await other.write("add", added("x@example.org"))).authoritative is Side.LEGACY
    assert await other.relay().drain(timeout_seconds=10)
    await assert_equal_sides(people_databases)


@pytest.mark.invariant("I6")
async def test_i6_a_gap_in_capture_between_the_gates_and_the_lock(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql
) -> None:
    """A controller dies behind the gates; capture has a gap; another finds the intent, and an empty journal."""
    first, other = [await make_manager(Phase.SHADOW) for _ in range(2)]
    key = (await other.write("add", added("x@example.org", "old"))).unwrap()
    assert await other.relay().drain(timeout_seconds=10)
    with pytest.raises(Crash):
        await change(first, Phase.LIVE, hook=CrashAt("intent_written"), force=[*SLOW_GATES, "backfill"])
    await legacy_sql("ALTER TABLE folk DISABLE TRIGGER tandem_people_folk_update")
    await other.write("change", named(key, "seen by nobody"))
    await legacy_sql("ALTER TABLE folk ENABLE ALWAYS TRIGGER tandem_people_folk_update")
    with pytest.raises(ChangeGivenUpError, match="capture on the legacy side has had a gap"):
        await change(other, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
    assert other.phase is Phase.SHADOW
    await Backfill(other.runtime).run()
    await change(other, Phase.LIVE)
    (row,) = await assert_equal_sides(people_databases)
    assert row[2] == "seen by nobody"


@pytest.mark.invariant("I3")
async def test_i3_giving_up_waits_for_a_chunk_that_is_being_copied(make_manager: MakeManager) -> None:
    """Else the chunk would go on in the old epoch, and its floor hold back no carry of the new one."""
    operator, copying = [await make_manager(Phase.SHADOW) for _ in range(2)]
    await operator.write("add", added("x@example.org"))
    with pytest.raises(Crash):
        await change(operator, Phase.LIVE, hook=CrashAt("intent_written"), force=[*SLOW_GATES, "backfill"])
    pause = PauseAt("backfill_after_snapshot")
    backfill = asyncio.ensure_future(Backfill(copying.runtime, hook=pause).run())
    await pause.reached.wait()
    await operator.runtime.following.refresh()
    taking_back = asyncio.ensure_future(controller(operator).finish(towards=Phase.SHADOW))
    done, _ = await asyncio.wait([taking_back], timeout=0.5)
    assert not done
    pause.resume.set()
    await taking_back
    with suppress(FencedError):  # its epoch is over: whoever calls it again goes on
        await backfill
    assert operator.runtime.control.epoch == 2
    assert operator.runtime.control.intent is None


@pytest.mark.invariant("I8")
async def test_i8_a_retry_that_comes_after_the_cutover_leaves_no_row_on_the_closed_side(
    make_manager: MakeManager, legacy_sql: Sql, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks believes the old side open: a journal row there would be carried by nobody."""
    operator, deaf = [await make_manager(Phase.SHADOW) for _ in range(2)]
    await legacy_sql(
        "INSERT INTO tandem_people.failure (entity, key, direction, attempts, reason, captured_at) "
        "VALUES ('person', '[7]', 'to_new', 3, 'too long', now())"
    )

    async def hears_nothing() -> None:
        return

    monkeypatch.setattr(deaf.runtime.following, "follow", hears_nothing)
    await deaf.runtime.replicas.leave(deaf.runtime.following.replica_id)
    await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill", "failures"])
    with pytest.raises(ConflictError, match="the authority has just been moved"):
        await deaf.retry_failures()
    assert await legacy_sql("SELECT 1 FROM tandem_people.journal") == []


@pytest.mark.parametrize("step", ["after_claim", "after_read"])
@pytest.mark.invariant("I3")
async def test_i3_late_relay_of_the_old_epoch(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql, step: str
) -> None:
    """It loses its claim; the cutover comes, the key changes on the new side; the relay wakes up.

    One that has not read yet then reads the old side at a position that no guard holds back: there only the mark does.
    """
    operator = await make_manager(Phase.SHADOW)
    pause = PauseAt(step)
    late = await make_manager(Phase.SHADOW, hook=pause)
    key = (await operator.write("add", added("x@example.org", "old"))).unwrap()
    sleeping = asyncio.ensure_future(late.relay().run_once())
    await pause.reached.wait()
    await legacy_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'tandem-people' AND state = 'idle in transaction'"
    )
    await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
    assert (await operator.write("change", named(key, "newer"))).authoritative is Side.NEW
    pause.resume.set()
    with pytest.raises((FencedError, TargetUnavailableError)):
        await sleeping
    assert await operator.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert row[2] == "newer"


async def test_without_the_sequence_step_keys_clash(
    make_manager: MakeManager, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the step is for: carried rows bring their own keys, so the sequence of the side that takes them stands still."""

    async def moves_nothing(*_: object) -> list[object]:
        return []

    monkeypatch.setattr(cutover, "move_sequences", moves_nothing)
    operator = await make_manager(Phase.SHADOW)
    await operator.write("add", added("x@example.org"))
    await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
    clash = await operator.write("add", added("y@example.org"))
    assert not clash.success
    assert isinstance(clash.error, SideError)
    assert clash.error.sqlstate == "23505"


async def test_a_second_step_waits_for_replicas_to_follow_and_is_refused_if_they_do_not(
    make_manager: MakeManager, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await make_manager(Phase.DUALWRITE)
    slow = await make_manager(Phase.DUALWRITE)
    runtime = slow.runtime
    first = runtime.control

    async def beats_without_reading() -> None:
        await runtime.replicas.beat(runtime.following.replica_id, first, runtime._measured())

    monkeypatch.setattr(runtime.following, "refresh", beats_without_reading)
    monkeypatch.setattr("backend.shared.migration.phase_controller.FOLLOW_SECONDS", 0.5)
    force = [*SLOW_GATES, "backfill"]
    (step,) = await controller(operator).change(Phase.SHADOW, force=force, reason="a test")
    assert [replica.id for replica in step.behind] == [runtime.following.replica_id]
    with pytest.raises(Exception, match=r"replicas: 1 of 2 have not followed .* goes by phase dualwrite"):
        await controller(operator).change(Phase.LIVE, force=force, reason="a test")
    assert operator.phase is Phase.SHADOW
