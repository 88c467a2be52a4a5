"""Failures that are outdated when they are written down."""

from __future__ import annotations

import asyncio

import pytest

from backend.shared import Phase
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.state import assert_equal_sides
from tests.support.steps import PauseAt


@pytest.mark.invariant("I8")
async def test_success_of_another_relay_between_refusal_and_record(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    """A refused state is recorded as FAILED after a newer one has been carried: the failure must not stay."""
    pause = PauseAt("before_source_commit")
    slow = await make_manager(retry_attempts=1, hook=pause)
    quick = await make_manager(retry_attempts=1)
    await legacy_sql("INSERT INTO folk (folk_no, mail, cents) VALUES (1, 'x', -5)")
    recording = asyncio.ensure_future(slow.relay().run_once())
    await pause.reached.wait()
    await legacy_sql("UPDATE folk SET cents = 5")
    assert (await quick.relay().run_once()).carried == 1
    pause.resume.set()
    assert (await recording).failed == 1
    assert await quick.list_failures(limit=10) == []
    await assert_equal_sides(people_databases)


@pytest.mark.invariant("I8")
async def test_success_of_an_older_state_is_noted_after_a_newer_one_has_failed(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    """A relay has carried a state and is slow to say so; the next state is refused meanwhile: that failure must stay."""
    pause = PauseAt("after_target_commit")
    slow = await make_manager(retry_attempts=1, hook=pause)
    quick = await make_manager(retry_attempts=1)
    await legacy_sql("INSERT INTO folk (folk_no, mail, cents) VALUES (1, 'x', 5)")
    noting = asyncio.ensure_future(slow.relay().run_once())
    await pause.reached.wait()
    await legacy_sql("UPDATE folk SET cents = -5")
    assert (await quick.relay().run_once()).failed == 1
    pause.resume.set()
    assert (await noting).carried == 1
    assert [failure.key for failure in await quick.list_failures(limit=10)] == ["[1]"]


@pytest.mark.invariant("I8")
async def test_unique_value_is_held_by_a_key_whose_new_row_cannot_go(
    make_manager: MakeManager, new_sql: Sql
) -> None:
    """Person 1 takes over the e-mail of person 2, whose name is too long for legacy: 3 must go on all the same."""
    manager = await make_manager(Phase.RAMPDOWN)
    await new_sql(
        "INSERT INTO people (id, email, name) VALUES (1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', 'three')"
    )
    assert await manager.relay().drain(timeout_seconds=10)
    await new_sql("UPDATE people SET email = 'd', name = repeat('x', 101) WHERE id = 2")
    await new_sql("UPDATE people SET email = 'b' WHERE id = 1")
    await new_sql("UPDATE people SET name = 'carried' WHERE id = 3")
    assert await manager.relay().drain(timeout_seconds=10)
    assert {failure.key for failure in await manager.list_failures(limit=10)} == {"[1]", "[2]"}
