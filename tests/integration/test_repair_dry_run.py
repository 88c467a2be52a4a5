"""The dry run: it says what would be done, in SQL that does it, and does nothing."""

from __future__ import annotations

import pytest

from backend.shared import Phase, Side
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.repairs import Told, keep_mismatches, repaired, stocked
from tests.support.state import assert_equal_sides

DAMAGE = {
    Side.NEW: (
        "UPDATE people SET name = 'it''s\nwrong', born = NULL WHERE id = 3",
        "DELETE FROM profiles WHERE person_id = 4",
        "DELETE FROM people WHERE id = 5",
        "INSERT INTO people (id, email) VALUES (99, 'nobody@x')",
    ),
    Side.LEGACY: (
        "UPDATE folk SET nm = 'it''s\nwrong', born = NULL WHERE folk_no = 3",
        "DELETE FROM folk_extra WHERE folk_no = 4",
        "DELETE FROM folk WHERE folk_no = 5",
        "INSERT INTO folk (folk_no, mail) VALUES (99, 'nobody@x')",
    ),
}
SECONDARY = {Phase.DUALWRITE: Side.NEW, Phase.RAMPDOWN: Side.LEGACY}
DAMAGED = [("person", 3), ("person", 4), ("person", 5), ("person", 99), ("person", 7), ("note", 5)]


async def everything(sql: Sql) -> list[object]:
    """All rows of all tables of a side, the engine's own among them, but for the leases that processes renew."""
    tables = await sql(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.relkind = 'r' AND (n.nspname = 'public' OR n.nspname LIKE 'tandem%') "
        "AND c.relname <> 'replica' ORDER BY 1"
    )
    assert len(tables) > 10
    return [(row["name"], await sql(f"SELECT * FROM {row['name']} AS t ORDER BY t::text")) for row in tables]


def script(told: Told) -> str:
    return "\n".join(statement for item in told.keys for statement in item.sql)


@BOTH_AUTHORITIES
@pytest.mark.parametrize("back", [False, True])
async def test_dry_run_changes_nothing_and_its_sql_is_what_the_repair_does(
    make_manager: MakeManager,
    legacy_sql: Sql,
    new_sql: Sql,
    people_databases: Databases,
    monkeypatch: pytest.MonkeyPatch,
    *,
    phase: Phase,
    back: bool,
) -> None:
    monkeypatch.setattr("backend.shared.migration.repair_plan.HIDDEN", "5.00")  # to be able to run the SQL
    manager = await stocked(make_manager, legacy_sql, new_sql, phase)
    secondary = SECONDARY[phase]
    sides = {Side.NEW: new_sql, Side.LEGACY: legacy_sql}
    if secondary is Side.LEGACY or back:
        monkeypatch.setattr(
            "backend.shared.migration.repair_plan.HIDDEN",
            "500" if (secondary is Side.LEGACY) is not back else "5.00",
        )
    damaged = secondary.other if back else secondary
    before = await assert_equal_sides(people_databases)
    for statement in DAMAGE[damaged]:
        await sides[damaged](statement)
    await sides[secondary.other]("DELETE FROM tandem_people.journal")
    await keep_mismatches(new_sql, *DAMAGED)
    state = [await everything(sql) for sql in sides.values()]

    told = await repaired(manager, entity=None, source=damaged.other, dry_run=True)

    assert told.complete
    assert told.report is not None
    assert told.report.dry_run
    planned = {item.identity for item in told.keys if item.outcome.value == "planned"}
    assert planned == {(entity, f"[{n}]") for entity, n in DAMAGED} - {("person", "[7]")}
    assert told.of("[7]").outcome.value == "equal already"
    assert [await everything(sql) for sql in sides.values()] == state

    for statement in script(told).split(";\n"):
        await sides[damaged](statement)
    assert await assert_equal_sides(people_databases) == before


async def test_what_it_prints(make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    for statement in DAMAGE[Side.NEW]:
        await new_sql(statement)
    await new_sql("UPDATE people SET credit = 4711.42 WHERE id = 3")
    told = await repaired(manager, keys=["3", "4", "5", "99"], dry_run=True)
    assert [(item.field, item.before, item.after) for item in told.of("[3]").fields] == [
        ("people.name", "'it''s\nwrong'", "'name 3'"),
        ("people.credit", "'***'", "'***'"),
        ("people.born", "NULL", "'2001-02-03'"),
    ]
    assert told.of("[3]").sql == (
        "UPDATE people SET name = 'name 3', credit = '***', born = '2001-02-03' WHERE id = 3;",
    )
    assert told.of("[4]").sql == ("INSERT INTO profiles (person_id, city) VALUES (4, 'city 4');",)
    assert [(item.field, item.before) for item in told.of("[4]").fields] == [
        ("profiles.person_id", "(no row)"),
        ("profiles.city", "(no row)"),
    ]
    assert told.of("[5]").sql == (
        "INSERT INTO people (id, email, name, credit, born) VALUES (5, '5@x', 'name 5', '***', '2001-02-03');",
        "INSERT INTO profiles (person_id, city) VALUES (5, 'city 5');",
    )
    assert told.of("[99]").sql == ("DELETE FROM people WHERE id = 99;",)


async def test_children_are_deleted_before_their_parent(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await legacy_sql("DELETE FROM folk WHERE folk_no = 3")
    await legacy_sql("DELETE FROM tandem_people.journal")
    told = await repaired(manager, keys=["3"], dry_run=True)
    assert told.of("[3]").sql == (
        "DELETE FROM profiles WHERE person_id = 3;",
        "DELETE FROM people WHERE id = 3;",
    )


async def test_what_could_not_be_repaired_is_said_before(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await legacy_sql("UPDATE folk SET born = 'no date' WHERE folk_no = 3")
    await legacy_sql("DELETE FROM tandem_people.journal")
    told = await repaired(manager, keys=["3"], dry_run=True)
    assert told.outcomes == {"[3]": "refused"}
    assert "cannot be read" in told.of("[3]").detail
    assert not told.complete


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("source", Side)
async def test_secret_values_are_never_told(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, *, dry_run: bool, source: Side
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await new_sql("UPDATE people SET credit = 4711.42, name = 'wrong' WHERE id = 3")
    await new_sql("DELETE FROM people WHERE id = 5")
    await legacy_sql("UPDATE folk SET cents = 471142 WHERE folk_no = 5")
    await legacy_sql("DELETE FROM tandem_people.journal")
    told = await repaired(manager, keys=["3", "5"], source=source, dry_run=dry_run, show_values=True)
    said = repr([item.to_dict() for item in told.keys])
    assert "4711" not in said
    assert "'***'" in said
    assert "wrong" in said
    kept = [dict(row) for row in await new_sql("SELECT * FROM tandem_people.repair")]
    assert "4711" not in repr(kept)
    assert "wrong" not in repr(kept)
