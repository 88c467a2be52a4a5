"""I3, I4, I6, I8: controllers, relays and operators that come late to a cutover. Named for their interleavings."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from backend.shared import ConflictError, FencedError, Phase, Side, SideError
from backend.shared.journal.carrier import TargetUnavailableError
from backend.shared.migration import cutover
from backend.shared.migration.backfill import Backfill
from backend.shared.migration.cutover import ChangeGivenUpError, ChangeOvertakenError
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.phases import SLOW_GATES, added, change, controller, marks, named
from tests.support.state import assert_equal_sides
from tests.support.steps import Crash, CrashAt, PauseAt


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


@pytest.mark.invariant("I6")
async def test_i6_a_gap_in_capture_at_the_very_end_of_draining(
    make_manager: MakeManager, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty journal proves nothing of what came while it was looked at."""
    manager = await make_manager(Phase.SHADOW)
    journal = manager.runtime.stores[Side.LEGACY].journal
    look = journal.remainder

    async def remainder(connection: Any) -> Any:
        found = await look(connection)
        await legacy_sql("ALTER TABLE folk DISABLE TRIGGER tandem_people_folk_update")
        return found

    monkeypatch.setattr(journal, "remainder", remainder)
    with pytest.raises(ChangeGivenUpError, match="capture on the legacy side has had a gap"):
        await change(manager, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
    assert manager.phase is Phase.SHADOW


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
