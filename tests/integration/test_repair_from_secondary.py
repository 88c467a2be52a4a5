"""Repair from the side without authority: its state becomes an ordinary write of the authoritative side."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from backend.shared import (
    DualWriteSettings,
    Phase,
    Side,
)
from backend.shared.domain.phases import Capture
from backend.shared.migration.repair import Repairer
from backend.shared.migration.repair_results import KeyRepair, RepairRequest
from backend.shared.observability.labels import Verdict
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.one_way import OneWayManager
from tests.support.people import PeopleManager
from tests.support.repairs import keep_mismatches, repaired, stocked, verdict
from tests.support.state import assert_equal_sides

SECONDARY = {Phase.DUALWRITE: Side.NEW, Phase.RAMPDOWN: Side.LEGACY}
CORRUPTED = {
    Side.LEGACY: (
        "UPDATE folk SET nm = 'wrong', shoe_size = 36 WHERE folk_no = 3",
        "UPDATE folk SET cents = cents + 1 WHERE folk_no = 4",
        "DELETE FROM folk_extra WHERE folk_no = 5",
        "DELETE FROM folk WHERE folk_no = 6",
        "INSERT INTO folk (folk_no, mail) VALUES (99, 'nobody@x')",
    ),
    Side.NEW: (
        "UPDATE people SET name = 'wrong' WHERE id = 3",
        "UPDATE people SET credit = credit + 0.01 WHERE id = 4",
        "DELETE FROM profiles WHERE person_id = 5",
        "DELETE FROM people WHERE id = 6",
        "INSERT INTO people (id, email) VALUES (99, 'nobody@x')",
    ),
}


@BOTH_AUTHORITIES
@pytest.mark.parametrize("capture", Capture)
async def test_truth_on_the_secondary(
    make_manager: MakeManager,
    legacy_sql: Sql,
    new_sql: Sql,
    people_databases: Databases,
    monkeypatch: pytest.MonkeyPatch,
    *,
    phase: Phase,
    capture: Capture,
) -> None:
    """The authoritative side was damaged behind the journal's back: each kind comes back from the other side."""
    manager = await stocked(make_manager, legacy_sql, new_sql, phase)
    if capture is Capture.UNIT:
        monkeypatch.setattr(PeopleManager, "capture", capture)
        manager = await make_manager(phase, batch_size=1000)
    before = await assert_equal_sides(people_databases)
    secondary = SECONDARY[phase]
    authority = new_sql if secondary is Side.LEGACY else legacy_sql
    for statement in CORRUPTED[secondary.other]:
        await authority(statement)
    await authority("DELETE FROM tandem_people.journal")
    numbers = [("person", n) for n in (3, 4, 5, 6, 99)]
    await keep_mismatches(new_sql, *numbers, ("note", 6))
    told = await repaired(manager, entity=None, source=secondary)
    assert set(told.outcomes.values()) == {"repaired"}, told.keys
    assert told.complete
    assert await assert_equal_sides(people_databases) == before
    assert await verdict(manager) is Verdict.EQUAL
    assert await manager.relay().drain(timeout_seconds=10)
    assert await assert_equal_sides(people_databases) == before
    rows = await new_sql("SELECT DISTINCT from_side, outcome FROM tandem_people.repair")
    assert [tuple(row) for row in rows] == [(secondary.value, "repaired")]
    if secondary is Side.NEW:
        (row,) = await legacy_sql("SELECT shoe_size FROM folk WHERE folk_no = 3")
        assert row["shoe_size"] == 36, "columns that are not mapped are not written"


async def test_without_a_relay_that_gets_through_it_is_on_its_way(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are equal as soon as it is written; a failure closes only when the relay has carried the key."""
    manager = await stocked(make_manager, legacy_sql, new_sql, retry_attempts=1)
    await legacy_sql("UPDATE folk SET cents = -1 WHERE folk_no = 3")
    await manager.relay().drain(timeout_seconds=5)

    async def nothing(*_: object) -> bool:
        return False

    monkeypatch.setattr("backend.shared.migration.repair_authority.help_relay", nothing)
    told = await repaired(manager, keys=["3"], source=Side.NEW, patience_seconds=0.1)
    assert told.outcomes == {"[3]": "moving"}
    assert told.of("[3]").detail == "written on the legacy side; on its way to the new side"
    (row,) = await legacy_sql("SELECT cents FROM folk WHERE folk_no = 3")
    assert row["cents"] == 300
    await manager.relay().drain(timeout_seconds=5)
    assert await verdict(manager) is Verdict.EQUAL


async def test_row_that_cannot_be_read_is_replaced_and_its_failure_closes(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql, retry_attempts=1)
    await legacy_sql("UPDATE folk SET born = 'no date' WHERE folk_no = 3")
    await legacy_sql("UPDATE folk SET cents = -1 WHERE folk_no = 4")
    await manager.relay().drain(timeout_seconds=5)
    assert len(await manager.list_failures(limit=10)) == 2
    told = await repaired(manager, keys=["3", "4"], source=Side.NEW)
    assert told.outcomes == {"[3]": "repaired", "[4]": "repaired"}
    (row,) = await legacy_sql("SELECT born FROM folk WHERE folk_no = 3")
    assert row["born"] == "2001-02-03"
    assert await manager.list_failures(limit=10) == []
    assert await verdict(manager) is Verdict.EQUAL


async def test_failure_of_rows_that_are_equal_closes(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql, retry_attempts=1)
    await legacy_sql("UPDATE folk SET cents = -1 WHERE folk_no = 4")
    await manager.relay().drain(timeout_seconds=5)
    await legacy_sql("UPDATE folk SET cents = 400 WHERE folk_no = 4")
    await legacy_sql("DELETE FROM tandem_people.journal")
    told = await repaired(manager, keys=["4"], source=Side.NEW)
    assert told.outcomes == {"[4]": "repaired"}
    assert await manager.list_failures(limit=10) == []


async def test_refusal_of_the_authoritative_side(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await new_sql("UPDATE people SET email = repeat('x', 101) WHERE id = 3")
    await new_sql("UPDATE people SET name = 'right' WHERE id = 4")
    told = await repaired(manager, keys=["3", "4"], source=Side.NEW)
    assert told.outcomes == {"[3]": "refused", "[4]": "repaired"}
    assert "text too long" in told.of("[3]").detail
    (row,) = await new_sql("SELECT length(email) AS n FROM people WHERE id = 3")
    assert row["n"] == 101, "the truth is still there"


async def test_row_locked_by_somebody_is_refused_and_others_go_on(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await new_sql("UPDATE people SET name = 'right' WHERE id IN (3, 4)")
    holder = await asyncpg.connect(legacy_sql.url)
    try:
        async with holder.transaction():
            await holder.execute("SELECT 1 FROM folk WHERE folk_no = 3 FOR UPDATE")
            told = await repaired(manager, keys=["3", "4"], source=Side.NEW)
    finally:
        await holder.close()
    assert told.outcomes == {"[3]": "refused", "[4]": "repaired"}
    assert "lock not available" in told.of("[3]").detail


@pytest.fixture
async def one_way(databases: Databases) -> AsyncIterator[OneWayManager]:
    for url in (databases.legacy_url, databases.new_url):
        await Sql(url)("CREATE TABLE ow (no integer PRIMARY KEY, a text, b text)")
    manager = OneWayManager(
        settings=DualWriteSettings(
            service="oneway",
            legacy_database_url=databases.legacy_url,
            database_url=databases.new_url,
            phase=Phase.DUALWRITE,
        ),
        metrics=Metrics(CollectorRegistry()),
    )
    await manager.install()
    await manager.start()
    yield manager
    await manager.close()


@pytest.mark.parametrize("fields", ["b = 'TRUTH'", "a = 'truth', b = 'TRUTH'"])
async def test_field_without_a_way_back_is_refused_rather_than_undone(
    one_way: OneWayManager, databases: Databases, fields: str
) -> None:
    """Written back without `b`, the row would be carried on with the authoritative side's `b`: the truth would be gone."""
    legacy, new = Sql(databases.legacy_url), Sql(databases.new_url)
    await legacy("INSERT INTO ow VALUES (1, 'a', 'b')")
    assert await one_way.relay().drain(timeout_seconds=5)
    await new(f"UPDATE ow SET {fields}")
    done: list[KeyRepair] = []
    report = await Repairer(one_way.runtime, patience_seconds=0.2).run(
        RepairRequest(by="tester", keys=["1"], source=Side.NEW), on_key=done.append
    )
    assert not report.complete
    assert [(item.outcome.value, item.detail) for item in done] == [
        ("refused", "the mapping to the legacy side cannot say it: ow.b")
    ]
    (row,) = await new("SELECT b FROM ow")
    assert row["b"] == "TRUTH"
    (row,) = await legacy("SELECT a, b FROM ow")
    assert tuple(row) == ("a", "b")
