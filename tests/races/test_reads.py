"""Reads that are compared in the background, and what happens between: no false difference, no wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from structlog.testing import capture_logs

from backend.shared import Phase, Side
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import COMPARING, MakeManager
from tests.support.people import people
from tests.support.phases import change
from tests.support.read_stage import staged
from tests.support.reading import (
    Plant,
    add_ann,
    compared,
    name_of,
    person,
    renamed,
    shadow_reads,
)
from tests.support.steps import PauseAt


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
