"""Where no trigger can be installed the unit of work writes the journal row, in its own transaction (R1)."""

from __future__ import annotations

import pytest

from backend.shared import Phase, Side
from backend.shared.domain.phases import Capture
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import PeopleManager, people
from tests.support.proxy import cuttable_wire
from tests.support.state import assert_equal_sides

ANN = {people.c.email: "ann@example.org"}


@pytest.fixture(autouse=True)
def without_triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PeopleManager, "capture", Capture.UNIT)


@BOTH_AUTHORITIES
@pytest.mark.parametrize("async_legacy", [True, False])
async def test_units_are_carried_without_any_trigger(
    make_manager: MakeManager,
    people_databases: Databases,
    legacy_sql: Sql,
    new_sql: Sql,
    *,
    phase: Phase,
    async_legacy: bool,
) -> None:
    manager = await make_manager(phase, async_legacy=async_legacy)
    for sql in (legacy_sql, new_sql):
        assert await sql("SELECT 1 FROM pg_trigger WHERE tgname LIKE 'tandem%'") == []
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    await manager.relay().drain(timeout_seconds=10)
    await manager.write("change", lambda work: work.update("person", key, {people.c.name: "Bea"}))
    await manager.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert row[2] == "Bea"
    await manager.write("remove", lambda work: work.delete("person", key))
    await manager.relay().drain(timeout_seconds=10)
    assert await assert_equal_sides(people_databases) == []


async def test_answer_of_commit_lost_without_triggers(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    async with cuttable_wire(people_databases.legacy_url) as wire:
        manager = await make_manager(url={Side.LEGACY: wire.url})
        wire.cut = "after"
        assert (await manager.write("add", lambda work: work.insert("person", ANN))).success
        assert wire.cuts == 1
        await manager.relay().drain(timeout_seconds=10)
        await manager.close()
    assert len(await assert_equal_sides(people_databases)) == 1
