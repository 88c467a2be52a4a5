"""A cutover whose target is slow, or that is slow itself: writers wait for a fraction of a second, whatever happens."""

from __future__ import annotations

import asyncio

import pytest

from backend.shared import Phase, Side
from backend.shared.journal import marks as marks_module
from backend.shared.migration.cutover import ChangeGivenUpError, Cutover
from backend.shared.stores.side import Connection
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.phases import SLOW_GATES, added, change
from tests.support.state import assert_equal_sides

HELD_ALONE = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"


@pytest.mark.invariant("I6")
async def test_i6_a_slow_carry_under_the_lock_does_not_keep_writers_waiting(
    make_manager: MakeManager, people_databases: Databases, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is let go of, and the carry goes on without it; a later try finds it done."""
    locked, release, carrying = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(step: str) -> None:
        if step == "after_claim" and locked.is_set():
            carrying.set()
            await release.wait()

    async def when_locked(step: str) -> None:
        if step == "cutover_locked":
            locked.set()

    async def not_at_all(self: Cutover, deadline: float) -> None:
        """As if nothing had been left, when there was one row more."""

    monkeypatch.setattr(Cutover, "_almost_drained", not_at_all)
    monkeypatch.setattr(marks_module, "MOST_SILENT_MS", 60_000)  # so that nobody cuts it off
    operator = await make_manager(Phase.SHADOW, hook=slow)
    writer = await make_manager(Phase.SHADOW)
    assert (await writer.write("add", added("one@example.org"))).success
    changing = asyncio.ensure_future(
        change(operator, Phase.LIVE, hook=when_locked, force=[*SLOW_GATES, "backfill"])
    )
    await carrying.wait()
    done = await asyncio.wait_for(writer.write("add", added("two@example.org")), 5)
    assert done.success
    assert done.authoritative is Side.LEGACY
    release.set()
    await changing
    assert operator.phase is Phase.LIVE
    assert len(await assert_equal_sides(people_databases)) == 2


@pytest.mark.invariant("I7")
async def test_i7_a_try_that_the_server_cut_off_is_made_again(
    make_manager: MakeManager,
    people_databases: Databases,
    legacy_sql: Sql,
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever falls silent while it holds the lock alone is cut off; nothing is decided by then."""
    monkeypatch.setattr(marks_module, "MOST_SILENT_MS", 100)
    operator = await make_manager(Phase.SHADOW)
    assert (await operator.write("add", added("one@example.org"))).success
    tries = 0

    async def silent_once(step: str) -> None:
        nonlocal tries
        if step == "cutover_locked":
            tries += 1
            if tries == 1:
                await legacy_sql.until(HELD_ALONE, found=False)

    await change(operator, Phase.LIVE, hook=silent_once, force=[*SLOW_GATES, "backfill"])
    assert tries == 2
    assert operator.phase is Phase.LIVE
    assert len(await assert_equal_sides(people_databases)) == 1


@pytest.mark.invariant("I7")
async def test_i7_a_cut_off_that_is_noticed_only_at_the_rollback_is_tried_again_too(
    make_manager: MakeManager,
    people_databases: Databases,
    legacy_sql: Sql,
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something was left to carry, so the try ends; only then it turns out that the lock was gone before."""
    monkeypatch.setattr(marks_module, "MOST_SILENT_MS", 100)
    drained, tries = Cutover._drained, 0

    async def left_over_once(self: Cutover, connection: Connection) -> str:
        nonlocal tries
        tries += 1
        if tries > 1:
            return await drained(self, connection)
        await legacy_sql.until(HELD_ALONE, found=False)
        return "something is left"

    monkeypatch.setattr(Cutover, "_drained", left_over_once)
    operator = await make_manager(Phase.SHADOW)
    assert (await operator.write("add", added("one@example.org"))).success
    await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
    assert tries == 2
    assert operator.phase is Phase.LIVE
    assert len(await assert_equal_sides(people_databases)) == 1


async def test_nothing_goes_on_behind_a_cutover_that_was_given_up(make_manager: MakeManager) -> None:
    """A carry that hangs, on a target that says nothing, ends with the tries."""
    ended = False

    async def hang(step: str) -> None:
        nonlocal ended
        if step == "after_claim":
            try:
                await asyncio.Event().wait()
            finally:
                ended = True

    operator = await make_manager(Phase.SHADOW, hook=hang)
    writer = await make_manager(Phase.SHADOW)
    assert (await writer.write("add", added("one@example.org"))).success
    cutover = change(operator, Phase.LIVE, give_up_seconds=1.0, force=[*SLOW_GATES, "backfill"])
    with pytest.raises(ChangeGivenUpError, match="could not be closed within 1 s"):
        await asyncio.wait_for(cutover, 20)
    assert ended
    assert (await writer.write("add", added("two@example.org"))).success


async def test_a_target_that_is_always_slow_is_given_more_time_with_each_try(
    make_manager: MakeManager, people_databases: Databases, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traffic leaves something to carry whenever the lock is had, and no pass is shorter than 300 ms."""
    locked = False

    async def slow(step: str) -> None:
        if step == "after_claim" and locked:
            await asyncio.sleep(0.3)

    async def when_locked(step: str) -> None:
        nonlocal locked
        locked = True

    operator = await make_manager(Phase.SHADOW, hook=slow)
    writer = await make_manager(Phase.SHADOW)
    written = 0

    async def traffic(self: Cutover, deadline: float) -> None:
        nonlocal written
        written += 1
        assert (await writer.write("add", added(f"{written}@example.org"))).success

    monkeypatch.setattr(Cutover, "_almost_drained", traffic)
    await change(operator, Phase.LIVE, hook=when_locked, force=[*SLOW_GATES, "backfill"])
    assert operator.phase is Phase.LIVE
    assert 1 < written == len(await assert_equal_sides(people_databases))
