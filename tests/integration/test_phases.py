"""The way through the six phases and back, without load: what each phase means, and what stands between two."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from backend.shared import ConfigurationError, ConflictError, Key, Phase, Side, Unit, ValidationError
from backend.shared.migration.cutover import ChangeGivenUpError
from backend.shared.migration.gates import GateName
from backend.shared.migration.phase_controller import GateShutError
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager, people
from tests.support.phases import SLOW_GATES, change, controller
from tests.support.state import assert_equal_sides, both_sides

ANN = {people.c.email: "ann@example.org", people.c.name: "one"}
UP = list(Phase)


def added(email: str) -> Unit[Key]:
    return lambda work: work.insert("person", {people.c.email: email})


def named(key: Key, name: str) -> Unit[bool]:
    return lambda work: work.update("person", key, {people.c.name: name})


async def names_on(databases: Databases, side: Side) -> list[object]:
    legacy, new = await both_sides(databases)
    return [row[2] for row in (legacy if side is Side.LEGACY else new)]


@pytest.mark.parametrize("phase", list(Phase))
async def test_each_phase_writes_and_reads_where_the_table_says(
    make_manager: MakeManager, people_databases: Databases, phase: Phase
) -> None:
    manager = await make_manager(Phase.OFF)
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    await change(manager, phase)
    done = await manager.write("change", named(key, "two"))
    policy = phase.policy
    assert done.success
    assert done.authoritative is policy.authoritative
    assert await names_on(people_databases, policy.authoritative) == ["two"]
    assert (await manager.read(lambda work: work.get("person", key)))["name"] == "two"  # type: ignore[index]
    if policy.dual:
        assert await manager.relay().drain(timeout_seconds=10)
        await assert_equal_sides(people_databases)
    else:
        before = {Phase.OFF: [], Phase.COMPLETE: ["one"]}[phase]
        assert await names_on(people_databases, policy.authoritative.other) == before


async def test_all_the_way_up_and_back_to_off_and_up_again(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    manager = await make_manager(Phase.OFF)
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    for number, to in enumerate((Phase.RAMPDOWN, Phase.OFF, Phase.COMPLETE)):
        await change(manager, to)
        assert manager.phase is to
        assert (await manager.write("change", named(key, f"in {number}"))).success
        done = await manager.write("add", added(f"{number}@example.org"))
        assert done.success, done.error
    history = await manager.phase_history()
    assert [item.to_phase for item in reversed(history)] == [*UP[1:5], *reversed(UP[:4]), *UP[1:]]
    assert {item.outcome for item in history} == {"done"}
    assert all(item.changed_by == "test" and item.reason == "a test" for item in history)
    assert [item.stall_ms is not None for item in history].count(True) == 3


async def test_complete_is_left_by_no_way(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.COMPLETE)
    with pytest.raises(ConflictError, match="cannot be left"):
        await controller(manager).change(Phase.OFF)
    with pytest.raises(ConflictError, match="cannot be left"):
        await controller(manager).change(Phase.RAMPDOWN)


async def test_complete_drops_capture_and_carries_the_rest(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await make_manager(Phase.RAMPDOWN)
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    (step,) = await change(manager, Phase.COMPLETE)
    await assert_equal_sides(people_databases)
    captures = (
        "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'tandem_people%' AND tgname NOT LIKE '%fence%'"
    )
    assert await legacy_sql(captures) == []
    assert await new_sql(captures) == []
    fences = await legacy_sql("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'tandem_people%fence%'")
    assert len(fences) == 12
    assert any("folk_extra" in note for note in step.notes)
    assert await legacy_sql("SELECT 1 FROM folk") != []  # nothing was deleted
    await manager.write("change", named(key, "after"))
    assert await new_sql("SELECT 1 FROM tandem_people.journal") == []


async def test_off_and_back_voids_the_backfill(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql
) -> None:
    """What is written in `off` is captured by nobody: what was copied before does not count any more."""
    manager = await make_manager(Phase.OFF)
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    await change(manager, Phase.SHADOW)
    await change(manager, Phase.OFF)
    await manager.write("change", named(key, "unseen"))
    await controller(manager).change(Phase.DUALWRITE)
    assert await legacy_sql("SELECT 1 FROM tandem_people.journal") == []
    with pytest.raises(GateShutError, match=r"backfill: .*gap"):
        await controller(manager).change(Phase.SHADOW, force=SLOW_GATES, reason="a test")
    assert manager.phase is Phase.DUALWRITE
    await change(manager, Phase.SHADOW)
    assert await manager.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert row[2] == "unseen"


async def test_a_dry_run_says_gates_and_steps_and_changes_nothing(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.DUALWRITE)
    before = manager.runtime.control
    view = await manager.change_phase(Phase.LIVE, dry_run=True)
    await manager.runtime.following.refresh()
    assert manager.runtime.control == before
    assert not view.changed
    shut = {gate.name: gate for gate in view.gates if not gate.is_open}
    assert shut["backfill"].figure == "not begun: person, note"
    assert "tandem backfill people" in shut["backfill"].remedy
    assert "set the phase row from dualwrite to shadow" in view.steps
    assert "close the legacy side in the next epoch" in view.steps


async def test_a_gate_is_forced_by_its_name_with_a_reason_and_that_is_kept(
    make_manager: MakeManager,
) -> None:
    manager = await make_manager(Phase.DUALWRITE, lag_window_seconds=0)
    with pytest.raises(ValidationError, match="there is no gate 'backfil'; the gates are"):
        await controller(manager).change(Phase.SHADOW, force=["backfil"], reason="x")
    with pytest.raises(ValidationError, match="needs a reason"):
        await controller(manager).change(Phase.SHADOW, force=["backfill"])
    await controller(manager).change(
        Phase.SHADOW, force=["backfill", GateName.CONFLICTS.value], reason="no rows there yet"
    )
    (change_made,) = await manager.phase_history()
    assert change_made.forced == ("backfill",)  # the other was open
    assert change_made.reason == "no rows there yet"


async def test_a_cutover_gives_up_before_a_long_transaction_and_says_who(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    manager = await make_manager(Phase.OFF)
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    await change(manager, Phase.SHADOW)
    long = await asyncpg.connect(
        people_databases.legacy_url, server_settings={"application_name": "month-end"}
    )
    try:
        transaction = long.transaction()
        await transaction.start()
        await long.execute("UPDATE folk SET nm = 'month-end'")
        working = asyncio.ensure_future(change(manager, Phase.LIVE, give_up_seconds=1.0))
        written = 0
        while not working.done():
            done = await manager.write("add", added(f"{written}@example.org"))
            assert done.success, done.error
            written += 1
        with pytest.raises(
            ChangeGivenUpError, match=r"process \d+ \(month-end\) has held a transaction .* s"
        ):
            await working
        await transaction.rollback()
    finally:
        await long.close()
    assert written > 5
    assert manager.phase is Phase.SHADOW
    assert manager.runtime.control.intent is None
    assert (await manager.phase_history())[0].outcome == "given_up"
    # What was copied and compared counts still, and nothing is in the way of another try.
    await change(manager, Phase.LIVE)
    assert (await manager.write("change", named(key, "two"))).authoritative is Side.NEW
    assert await manager.relay().drain(timeout_seconds=10)
    await assert_equal_sides(people_databases)


async def test_sequences_of_the_opened_side_are_ahead_in_both_directions(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql
) -> None:
    manager = await make_manager(Phase.OFF)
    for number in range(5):
        await manager.write("add", added(f"a{number}@example.org"))
    await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (900, 'by-hand@example.org')")
    for number, to in enumerate((Phase.LIVE, Phase.SHADOW, Phase.LIVE)):
        await change(manager, to)
        done = await manager.write("add", added(f"b{number}@example.org"))
        assert done.success, done.error
        assert await manager.relay().drain(timeout_seconds=10)
    rows = await assert_equal_sides(people_databases)
    assert len({row[0] for row in rows}) == 9


async def test_in_complete_a_service_starts_and_works_without_legacy(
    make_manager: MakeManager, people_databases: Databases, new_sql: Sql
) -> None:
    """The database that was let go may be switched off, and its URL forgotten."""
    manager = await make_manager(Phase.COMPLETE)
    await manager.close()
    settings = replace(manager.settings, legacy_database_url="")
    alone = PeopleManager(settings=settings, metrics=Metrics(CollectorRegistry()))
    try:
        done = await alone.write("add", added("x@example.org"))
        assert done.success, done.error
        assert (await alone.overview()).phase is Phase.COMPLETE
        assert (await alone.health()).ok
        assert await alone.read(lambda work: work.get("person", done.unwrap()))
    finally:
        await alone.close()
    await new_sql("UPDATE tandem_people.control SET phase = 'rampdown'")
    with pytest.raises(ConfigurationError, match="LEGACY_DATABASE_URL: is not set"):
        await alone.start()
    await alone.close()


@pytest.mark.parametrize("phase", [Phase.LIVE, Phase.RAMPDOWN])
async def test_where_legacy_is_secondary_a_service_starts_without_it(
    make_manager: MakeManager, legacy_cluster: Cluster, people_databases: Databases, phase: Phase
) -> None:
    manager = await make_manager(phase)
    await manager.close()
    legacy_cluster.stop()
    try:
        await manager.start(relay=True)
        done = await manager.write("add", added("x@example.org"))
        assert done.success, done.error
    finally:
        legacy_cluster.start()
    async with asyncio.timeout(20):
        while (await manager.runtime.measure()).rows:  # noqa: ASYNC110 - another server's affair
            await asyncio.sleep(0.1)
    await assert_equal_sides(people_databases)


async def test_a_side_without_numbers_left_shuts_the_gate(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await make_manager(Phase.OFF)
    await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (2147483646, 'last@example.org')")
    await change(manager, Phase.SHADOW)
    assert await manager.relay().drain(timeout_seconds=10)
    with pytest.raises(GateShutError, match=r"sequences: public.people_id_seq has no number left") as shut:
        await change(manager, Phase.LIVE)
    (gate,) = [gate for gate in shut.value.gates if not gate.is_open and not gate.forced]
    assert gate.remedy == "give people.id a wider type"
    assert manager.phase is Phase.SHADOW
