"""Synchronous writes do not wait for each other's connections, and carry no half of an entity."""

from __future__ import annotations

import asyncio

from backend.shared import SecondWrite, Unit
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import people
from tests.support.state import assert_equal_sides, both_sides


def add(number: int) -> Unit[object]:
    return lambda work: work.insert("person", {people.c.email: f"{number}@example.org"})


async def test_three_times_as_many_writers_as_connections(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """A unit that needs a second connection of a pool whose others wait for the same would stand still."""
    manager = await make_manager(async_legacy=False)
    results = await asyncio.gather(*(manager.write("add", add(number)) for number in range(30)))
    assert [result.second_write for result in results] == [SecondWrite.APPLIED] * 30
    assert (await manager.status()).journal_rows == 0
    assert len(await assert_equal_sides(people_databases)) == 30


async def test_row_beside_an_entity_that_has_no_root_is_not_carried(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    manager = await make_manager()
    await legacy_sql("ALTER TABLE folk_extra DROP CONSTRAINT folk_extra_folk_no_fkey")
    await legacy_sql("INSERT INTO folk_extra VALUES (7, 'Ulm')")
    assert await manager.relay().drain(timeout_seconds=10)
    assert await both_sides(people_databases) == ([], [])
    await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (7, 'x')")
    assert await manager.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert row[5] == "Ulm"
    view = await manager.validate_key("7", entity="person")
    assert view.verdict == "equal"
    await legacy_sql("DELETE FROM folk")
    assert await manager.relay().drain(timeout_seconds=10)
    assert await both_sides(people_databases) == ([], [])
    view = await manager.validate_key("7", entity="person")
    assert view.verdict == "equal", "a lone row beside no entity is no difference"
