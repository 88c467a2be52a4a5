"""Reads that are asked of two sides, and what happens between: no false difference, no row that comes back, no wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from backend.shared import Key, Phase, Side, UnitOfWork
from backend.shared.dual_write_config import ReadFallback
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager
from tests.support.people import PeopleManager, people
from tests.support.phases import change
from tests.support.reading import (
    DoAt,
    Plant,
    add_ann,
    compared,
    name_of,
    person,
    reads,
    renamed,
    shadow_reads,
)
from tests.support.steps import PauseAt

COMPARING = pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.LIVE])
NAMES: Iterator[str] = (f"name {number}" for number in count())


async def carry(manager: PeopleManager) -> None:
    """All that is on its way arrives."""
    assert await manager.relay().drain(timeout_seconds=10)


class Stage(DoAt):
    """The steps of one manager, and what can be done at them."""

    manager: PeopleManager
    key: Key

    async def rename(self) -> None:
        """Committed on the authoritative side, and on its way."""
        assert (await self.manager.write("change", renamed(self.key, next(NAMES)))).success

    async def rename_and_carry(self) -> None:
        await self.rename()
        await carry(self.manager)

    async def carry(self) -> None:
        await carry(self.manager)

    async def remove(self) -> None:
        assert (await self.manager.write("remove", lambda work: work.delete("person", self.key))).value

    async def add(self) -> None:
        values = {people.c.id: self.key[0], people.c.email: "again@example.org", people.c.name: "again"}
        assert (await self.manager.write("add", lambda work: work.insert("person", values))).success

    async def add_and_carry(self) -> None:
        await self.add()
        await carry(self.manager)


@pytest.fixture
def plant(people_databases: Databases) -> Plant:
    return Plant(people_databases)


async def staged(make_manager: MakeManager, phase: Phase, **settings: Any) -> Stage:
    """One person on both sides; steps are counted from here on."""
    stage = Stage()
    stage.manager = await make_manager(
        phase, hook=stage, **{"shadow_read_sample_rate": 1.0, "max_lag_seconds": 5.0} | settings
    )
    stage.key = await add_ann(stage.manager)
    return stage


# ---- shadow reads ----


@COMPARING
async def test_update_between_the_two_reads(make_manager: MakeManager, *, phase: Phase) -> None:
    """The other side has it before it is asked: newer than the caller's answer."""
    stage = await staged(make_manager, phase)
    stage.at("shadow_read_begun", stage.rename_and_carry)
    assert await name_of(stage.manager, stage.key) == "Ann"
    assert await compared(stage.manager) == {"equal": 1}


@COMPARING
async def test_update_before_the_read_carried_after_the_first_look(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    stage = await staged(make_manager, phase)
    stage.at("shadow_read_looked", stage.carry, passing=2)
    await stage.rename()
    await name_of(stage.manager, stage.key)
    assert await compared(stage.manager) == {"equal": 1}
    assert stage.passed["shadow_read_looked"] == 2


@COMPARING
async def test_update_carried_between_the_answers_of_one_look(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    """The journal is empty before and after, and yet the answers differ: one such look proves nothing."""
    stage = await staged(make_manager, phase)
    stage.at("shadow_read_begun", stage.rename_and_carry)
    stage.at("shadow_read_between", stage.rename_and_carry, passing=1)
    stage.at("shadow_read_between", stage.rename_and_carry, passing=2)
    await name_of(stage.manager, stage.key)
    assert await compared(stage.manager) == {"equal": 1}
    assert stage.passed["shadow_read_between"] == 3


@COMPARING
async def test_updates_at_every_look_never_come_to_rest(make_manager: MakeManager, *, phase: Phase) -> None:
    stage = await staged(make_manager, phase)
    stage.at("shadow_read_begun", stage.rename_and_carry)
    for passing in range(1, 10):
        stage.at("shadow_read_between", stage.rename_and_carry, passing=passing)
    await name_of(stage.manager, stage.key)
    assert await compared(stage.manager) == {"unsettled": 1}


@COMPARING
async def test_update_that_is_not_carried(make_manager: MakeManager, *, phase: Phase) -> None:
    """It differs in the same way whenever it is looked at, since it has not arrived."""
    stage = await staged(make_manager, phase)
    await stage.rename()
    await name_of(stage.manager, stage.key)
    assert await compared(stage.manager) == {"unsettled": 1}


@COMPARING
async def test_update_there_and_back_after_the_journal_was_looked_at(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    """Both looks see an empty journal first, and the same difference then: only the journal afterwards tells."""
    stage = await staged(make_manager, phase)

    async def rename(name: str) -> None:
        assert (await stage.manager.write("change", renamed(stage.key, name))).success

    async def back() -> None:
        await stage.carry()
        await rename("here")
        await stage.carry()

    stage.at("shadow_read_begun", stage.rename_and_carry)
    stage.at("shadow_read_again", back)
    stage.at("shadow_read_looked", lambda: rename("there"))
    stage.at("shadow_read_again", back, passing=2)
    stage.at("shadow_read_looked", lambda: rename("there"), passing=2)
    stage.at("shadow_read_again", stage.carry, passing=3)
    await name_of(stage.manager, stage.key)
    assert await compared(stage.manager) == {"equal": 1}
    assert stage.passed["shadow_read_looked"] == 3


@COMPARING
async def test_update_there_and_back_carried_before_the_journal_is_looked_at_again(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    """The other way round: only the journal beforehand tells."""
    stage = await staged(make_manager, phase)

    async def rename(name: str) -> None:
        assert (await stage.manager.write("change", renamed(stage.key, name))).success

    async def there() -> None:
        await rename("here")
        await stage.carry()
        await rename("there")

    stage.at("shadow_read_begun", stage.rename_and_carry)
    for passing in (1, 2):
        stage.at("shadow_read_again", there, passing=passing)
        stage.at("shadow_read_asked", stage.carry, passing=passing)
    await name_of(stage.manager, stage.key)
    assert await compared(stage.manager) == {"equal": 1}
    assert stage.passed["shadow_read_again"] == 3


@COMPARING
async def test_a_difference_that_stays_is_found_among_updates_of_other_keys(
    make_manager: MakeManager, plant: Plant, *, phase: Phase
) -> None:
    stage = await staged(make_manager, phase)
    await plant.name(phase.policy.authoritative.other, stage.key, "planted")
    other = {people.c.email: "other@example.org"}
    await stage.manager.write("add", lambda work: work.insert("person", other))  # not carried
    with capture_logs() as logs:
        await name_of(stage.manager, stage.key)
        assert await compared(stage.manager) == {"mismatch": 1}
        await stage.manager.read(person(stage.key), entity="person")  # it might be any person
        assert await compared(stage.manager) == {"mismatch": 1, "unsettled": 1}
    (line,) = [line for line in logs if line["event"] == "shadow_read_differs"]
    assert (line["entity"], line["key"], line["fields"]) == ("person", f"[{stage.key[0]}]", ["name"])


async def test_cutover_between_the_two_reads(
    make_manager: MakeManager, plant: Plant, people_databases: Databases
) -> None:
    """What differs then belongs to neither phase."""
    hook = PauseAt("shadow_read_begun")
    manager = await make_manager(Phase.DUALWRITE, hook=hook, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await change(manager, Phase.SHADOW)
    await plant.name(Side.NEW, key, "planted")
    await name_of(manager, key)
    await hook.reached.wait()
    await change(manager, Phase.LIVE, force=("lag", "validation", "shadow-reads", "conflicts"))
    hook.resume.set()
    assert await compared(manager) == {"unsettled": 1}


async def test_rollback_and_up_again_between_the_two_reads(make_manager: MakeManager, plant: Plant) -> None:
    """The phase is the same again, but not the same one."""
    hook = PauseAt("shadow_read_begun")
    manager = await make_manager(Phase.DUALWRITE, hook=hook, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await change(manager, Phase.SHADOW)
    await plant.name(Side.NEW, key, "planted")
    await name_of(manager, key)
    await hook.reached.wait()
    await change(manager, Phase.DUALWRITE)
    await change(manager, Phase.SHADOW)
    await plant.name(Side.NEW, key, "planted")
    hook.resume.set()
    assert await compared(manager) == {"unsettled": 1}


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Nobody can read `table` meanwhile."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


@COMPARING
async def test_a_slow_secondary_slows_nobody_and_the_bound_holds(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    manager = await make_manager(phase, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    other = phase.policy.authoritative.other
    url, table = {
        Side.LEGACY: (people_databases.legacy_url, "folk"),
        Side.NEW: (people_databases.new_url, "people"),
    }[other]
    pool: Any = manager.runtime.engines[other].pool
    async with locked(url, table):
        for _ in range(12):
            assert await name_of(manager, key) == "Ann"
        # Nobody has waited for any of them: they all wait for the lock, which is given up after three seconds.
        assert len(manager._reads._shadow._tasks) == 5
        assert pool.checkedout() <= 6  # and the one that the process needs for itself
        assert shadow_reads(manager) == {"dropped": 7}
    assert await compared(manager) == {"dropped": 7, "equal": 5}


async def test_closing_does_not_wait_for_a_slow_secondary(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    async with locked(people_databases.new_url, "people"):
        await name_of(manager, key)
        await manager._reads.finish()
        assert shadow_reads(manager) == {"dropped": 1}  # given up before the lock was
    assert not manager._reads._shadow._tasks


async def test_where_requests_need_all_connections_nothing_is_compared(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    engine = manager.runtime.engines[Side.NEW]
    held = [await engine.connect() for _ in range(9)]
    try:
        await name_of(manager, key)
        assert await compared(manager) == {"dropped": 1}
    finally:
        for connection in held:
            await connection.close()
    await name_of(manager, key)
    assert await compared(manager) == {"dropped": 1, "equal": 1}


async def test_a_caller_who_goes_away_takes_nothing_along(make_manager: MakeManager) -> None:
    hook = PauseAt("shadow_read_begun")
    manager = await make_manager(Phase.SHADOW, hook=hook, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    caller = asyncio.ensure_future(name_of(manager, key))
    await hook.reached.wait()
    assert caller.done()
    caller.cancel()
    hook.resume.set()
    assert await compared(manager) == {"equal": 1}


# ---- what is missing on the authoritative side ----


@BOTH_AUTHORITIES
async def test_delete_before_the_read_carried_after_the_other_side_was_asked(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    """Whoever looked at the journal only then would find it empty, and bring the deleted row back: it is not asked at all."""
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove()
    stage.at("read_missing_asked", stage.carry)
    assert await name_of(stage.manager, stage.key) is None
    assert "read_missing_asked" not in stage.passed


@BOTH_AUTHORITIES
async def test_delete_carried_between_the_read_and_the_look_at_the_journal(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove()
    stage.at("read_missing", stage.carry)
    assert await name_of(stage.manager, stage.key) is None


@BOTH_AUTHORITIES
async def test_insert_and_carry_after_the_read(make_manager: MakeManager, *, phase: Phase) -> None:
    """It is there by now: then it is the authoritative side's answer that counts."""
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove()
    await stage.carry()
    stage.at("read_missing_looked", stage.add_and_carry)
    stage.at("read_missing_asked", stage.rename)
    found = await name_of(stage.manager, stage.key)
    assert str(found).startswith("name ")
    assert reads(stage.manager) == {phase.policy.authoritative.value: {"authoritative": 1}}


@BOTH_AUTHORITIES
async def test_insert_carry_and_delete_after_the_look_at_the_journal(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    """The other side has a row that was deleted since, and has not heard of that."""
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove()
    await stage.carry()
    stage.at("read_missing_looked", stage.add_and_carry)
    stage.at("read_missing_asked", stage.remove)
    assert await name_of(stage.manager, stage.key) is None


@BOTH_AUTHORITIES
async def test_insert_carry_delete_and_carry_after_the_look_at_the_journal(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    """The journal is empty at both looks, and the authoritative side has nothing: so the other one is asked once more."""
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove()
    await stage.carry()

    async def remove_and_carry() -> None:
        await stage.remove()
        await stage.carry()

    stage.at("read_missing_looked", stage.add_and_carry)
    stage.at("read_missing_asked", remove_and_carry)
    assert await name_of(stage.manager, stage.key) is None


async def test_cutover_while_the_other_side_is_asked(make_manager: MakeManager, plant: Plant) -> None:
    """The authority moves to where the row is: the read is repeated there, and finds it."""
    hook = PauseAt("read_missing_asked")
    manager = await make_manager(
        Phase.DUALWRITE, hook=hook, dual_read_fallback=ReadFallback.MISSING, shadow_read_sample_rate=0.0
    )
    await change(manager, Phase.SHADOW)
    await plant.person(Side.NEW, (77,), "there")
    caller = asyncio.ensure_future(name_of(manager, (77,)))
    await hook.reached.wait()
    await change(manager, Phase.LIVE, force=("lag", "validation", "shadow-reads", "conflicts"))
    hook.resume.set()
    assert await caller == "there"
    assert reads(manager) == {"new": {"authoritative": 1}}


# ---- the ramp ----


async def test_write_while_a_ramped_read_is_under_way(make_manager: MakeManager) -> None:
    """It may see either; the next one sees it."""
    stage = await staged(make_manager, Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    stage.at("read_ramp_looked", stage.rename)
    assert await name_of(stage.manager, stage.key) == "Ann"
    assert str(await name_of(stage.manager, stage.key)).startswith("name ")
    assert reads(stage.manager) == {"new": {"ramped": 1}, "legacy": {"ramp_pending": 1}}
    assert stage.passed["read_ramp_looked"] == 1  # the new side was not asked in vain


async def test_own_write_that_is_carried_while_the_new_side_is_asked(make_manager: MakeManager) -> None:
    """Whoever looked at the journal only after the answer would find it empty, and miss what the caller has written."""
    hook = PauseAt("after_claim")
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    carrier = await make_manager(Phase.SHADOW, hook=hook)
    await manager.write("change", renamed(key, "own"))
    relay = asyncio.ensure_future(carrier.relay().run_once())
    await hook.reached.wait()

    async def unit(work: UnitOfWork) -> object:
        found = await work.get("person", key)
        hook.resume.set()
        await relay
        return found and found["name"]

    assert await manager.read(unit, entity="person", key=key) == "own"


async def test_rows_that_a_relay_holds_are_open(make_manager: MakeManager) -> None:
    hook = PauseAt("after_claim")
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    carrier = await make_manager(Phase.SHADOW, hook=hook)
    await manager.write("change", renamed(key, "own"))
    relay = asyncio.ensure_future(carrier.relay().run_once())
    await hook.reached.wait()
    assert await name_of(manager, key) == "own"
    hook.resume.set()
    await relay
    assert await name_of(manager, key) == "own"
    assert reads(manager) == {"legacy": {"ramp_pending": 1}, "new": {"ramped": 1}}


@pytest.mark.parametrize("to", [Phase.LIVE, Phase.DUALWRITE])
async def test_phase_change_during_a_ramped_read(make_manager: MakeManager, to: Phase) -> None:
    hook = PauseAt("read_ramp_looked")
    manager = await make_manager(Phase.DUALWRITE, hook=hook, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    await change(manager, Phase.SHADOW)
    caller = asyncio.ensure_future(name_of(manager, key))
    await hook.reached.wait()
    await change(manager, to)
    await manager.write("change", renamed(key, "later"))
    hook.resume.set()
    assert await caller in ("Ann", "later")
    assert await name_of(manager, key) == "later"
