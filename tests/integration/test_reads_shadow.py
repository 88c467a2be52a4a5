"""Reads that the other side is asked too, after the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from backend.shared import Phase, Side, UnitOfWork
from backend.shared.migration.gates import GateName, Gates
from backend.shared.replicas import ShadowReads
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import COMPARING, MakeManager, Sql
from tests.support.people import PeopleManager, people
from tests.support.phases import change
from tests.support.reading import (
    Plant,
    add_ann,
    compared,
    known_person,
    name_of,
    person,
    reads,
    renamed,
    shadow_reads,
)


async def written_down(manager: PeopleManager) -> ShadowReads:
    """What all processes have counted in the present phase."""
    await manager.runtime.refresh()
    return await manager.runtime.replicas.shadow_reads(manager.runtime.control, since_seconds=60)


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("phase", list(Phase))
async def test_in_the_phases_that_compare(make_manager: MakeManager, phase: Phase, rate: float) -> None:
    manager = await make_manager(phase, shadow_read_sample_rate=rate)
    made = await manager.write("add", lambda work: work.insert("person", {people.c.email: "a@example.org"}))
    if phase.policy.dual:
        assert await manager.relay().drain(timeout_seconds=10)
    for _ in range(3):
        await name_of(manager, made.unwrap())
        await compared(manager)
    count = 3 if phase in (Phase.SHADOW, Phase.LIVE) and rate else 0
    assert shadow_reads(manager) == ({"equal": count} if count else {})
    assert await written_down(manager) == ShadowReads(compared=count)


async def test_a_share_of_the_reads(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=0.3)
    key = await add_ann(manager)
    for _ in range(200):
        await name_of(manager, key)
        await compared(manager)
    assert 30 <= shadow_reads(manager)["equal"] <= 90


@COMPARING
async def test_a_planted_difference_is_found_counted_and_logged_by_names(
    make_manager: MakeManager, plant: Plant, *, phase: Phase
) -> None:
    manager = await make_manager(phase, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await plant.name(phase.policy.authoritative.other, key, "Planted")
    with capture_logs() as logs:
        answer = await manager.read(person(key), entity="person", key=key, operation="find")
        assert answer is not None
        assert answer["name"] == "Ann"
        assert await compared(manager) == {"mismatch": 1}
    (line,) = [line for line in logs if line["event"] == "shadow_read_differs"]
    assert line == {
        "event": "shadow_read_differs",
        "log_level": "warning",
        "service": "people",
        "operation": "find",
        "entity": "person",
        "key": f"[{key[0]}]",
        "fields": ["name"],
        "left_out": 0,
    }
    assert "Ann" not in str(logs)
    assert "Planted" not in str(logs)
    assert await written_down(manager) == ShadowReads(compared=1, mismatches=1)


@COMPARING
@pytest.mark.parametrize("side", list(Side))
async def test_a_row_that_one_side_has_alone(
    make_manager: MakeManager, plant: Plant, people_databases: Databases, side: Side, *, phase: Phase
) -> None:
    manager = await make_manager(phase, shadow_read_sample_rate=1.0)
    await plant.person(side, (7,), "alone")
    for at in (people_databases.legacy_url, people_databases.new_url):
        await Sql(at)("DELETE FROM tandem_people.journal")
    await name_of(manager, (7,))
    assert await compared(manager) == {"mismatch": 1}
    try:
        await manager.read(known_person((7,)), entity="person", key=(7,))
    except Exception:  # noqa: BLE001 - as it may be
        assert side is phase.policy.authoritative.other
    assert await compared(manager) == {"mismatch": 2}


async def test_the_log_is_sampled(make_manager: MakeManager, plant: Plant) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await plant.name(Side.NEW, key, "Planted")
    with capture_logs() as logs:
        for _ in range(5):
            await name_of(manager, key)
        assert await compared(manager) == {"mismatch": 5}
    assert len([line for line in logs if line["event"] == "shadow_read_differs"]) == 1


async def test_a_key_that_could_not_be_carried_differs(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0, retry_attempts=1)
    key = await add_ann(manager)
    await legacy_sql("UPDATE folk SET nm = 'refused', cents = -1")
    await manager.relay().run_once()
    await name_of(manager, key)
    assert await compared(manager) == {"mismatch": 1}


async def test_what_the_unit_cannot_make_of_the_other_sides_rows_differs(
    make_manager: MakeManager, plant: Plant
) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await plant.name(Side.NEW, key, "12")

    async def unit(work: UnitOfWork) -> int:
        found = await work.get("person", key)
        assert found is not None
        return {"Ann": 1}[found["name"]]

    assert await manager.read(unit, entity="person", key=key) == 1
    assert await compared(manager) == {"mismatch": 1}


@COMPARING
async def test_a_failure_of_the_other_side_is_counted_and_not_seen(
    make_manager: MakeManager, plant: Plant, *, phase: Phase
) -> None:
    manager = await make_manager(phase, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await plant.breakage(phase.policy.authoritative.other)
    with capture_logs() as logs:
        assert await name_of(manager, key) == "Ann"
        assert await compared(manager) == {"failed": 1}
    assert [line["event"] for line in logs] == ["shadow_read_failed"]
    assert await written_down(manager) == ShadowReads(failed=1)


async def test_a_key_on_its_way_is_neither_equal_nor_different(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await manager.write("change", renamed(key, "later"))
    for subject in ({"entity": "person", "key": key}, {"entity": "person"}, {"key": "ann"}, {}):
        await manager.read(person(key), **subject)
    assert await compared(manager) == {"unsettled": 4}
    assert await written_down(manager) == ShadowReads()


async def test_what_the_caller_does_with_her_answer_is_her_own_affair(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)

    async def unit(work: UnitOfWork) -> list[dict[str, Any]]:
        return await work.rows(work.shape(people).select())

    answer = await manager.read(unit, entity="person")
    answer[0]["name"] = "hers"
    answer.append({})
    assert await compared(manager) == {"equal": 1}
    assert key


async def test_a_ramped_answer_is_held_against_the_authoritative_side(
    make_manager: MakeManager, plant: Plant
) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0, new_read_share=1.0)
    key = await add_ann(manager)
    await plant.name(Side.NEW, key, "Planted")
    assert await name_of(manager, key) == "Planted"
    assert await compared(manager) == {"mismatch": 1}
    assert reads(manager) == {"new": {"ramped": 1}}


async def test_the_gate_sees_them(make_manager: MakeManager, plant: Plant) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0, min_shadow_reads=3)
    key = await add_ann(manager)
    gates = Gates(manager.runtime, check_schema=manager.check_schema)

    async def gate() -> tuple[bool, str]:
        await compared(manager)
        await manager.runtime.refresh()
        found = {gate.name: gate for gate in await gates.look(Phase.SHADOW, Phase.LIVE)}
        return found[GateName.SHADOW_READS].is_open, found[GateName.SHADOW_READS].figure

    await name_of(manager, key)
    is_open, figure = await gate()
    assert not is_open
    assert figure.startswith("1 reads compared, 0 differed")
    for _ in range(2):
        await name_of(manager, key)
    assert (await gate())[0]
    await plant.name(Side.NEW, key, "Planted")
    await name_of(manager, key)
    is_open, figure = await gate()
    assert not is_open
    assert figure.startswith("4 reads compared, 1 differed")


async def test_they_count_for_the_phase_that_they_were_read_in(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.DUALWRITE, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await change(manager, Phase.SHADOW)
    await name_of(manager, key)
    await compared(manager)
    runtime, before = manager.runtime, manager.runtime.control
    tally = runtime.shadow_tally
    counted, tally._counted = tally._counted, {}
    await change(manager, Phase.LIVE)
    tally._counted |= counted
    assert await written_down(manager) == ShadowReads()
    assert await runtime.replicas.shadow_reads(before, since_seconds=60) == ShadowReads(compared=1)


async def test_what_could_not_be_written_down_is_not_lost(make_manager: MakeManager, new_sql: Sql) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await name_of(manager, key)
    await compared(manager)
    await new_sql("ALTER TABLE tandem_people.shadow_read RENAME TO away")
    with pytest.raises(Exception, match="shadow_read"):
        await manager.runtime.refresh()
    await new_sql("ALTER TABLE tandem_people.away RENAME TO shadow_read")
    assert await written_down(manager) == ShadowReads(compared=1)


async def test_closing_writes_down_what_was_compared(make_manager: MakeManager, new_sql: Sql) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=1.0)
    key = await add_ann(manager)
    await name_of(manager, key)
    await manager.close()
    assert [row[0] for row in await new_sql("SELECT compared FROM tandem_people.shadow_read")] == [1]


async def test_settings_change_while_it_runs(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.SHADOW, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    await name_of(manager, key)
    await manager.change_config({"shadow_read_sample_rate": 1.0, "new_read_share": 1.0})
    await name_of(manager, key)
    await asyncio.sleep(0)
    assert await compared(manager) == {"equal": 1}
    assert reads(manager) == {"legacy": {"authoritative": 1}, "new": {"ramped": 1}}
