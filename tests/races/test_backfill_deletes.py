"""Rows that are deleted, inserted or get another key beside a backfill. Each test is named for its interleaving.

The names are those of Ghostferry's TLA+ model and of its tests, where it has the same race.
"""

from __future__ import annotations

import asyncio

import pytest

from backend.shared import Phase, Side
from backend.shared.migration.backfill_state import BackfillLimits
from backend.shared.testing.clusters import Databases
from tests.support.backfill_races import (
    PEOPLE,
    backfill,
    filled,
    finish,
    is_blocked,
    paused_at,
)
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import people
from tests.support.state import assert_equal_sides
from tests.support.steps import PauseAt


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
