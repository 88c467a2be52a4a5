"""Repair from the authoritative side: what was planted is gone, what was right is untouched, and it is written down."""

from __future__ import annotations

import pytest

from backend.shared import ConfigurationError, ConflictError, FencedError, Phase, Side, ValidationError
from backend.shared.observability.labels import Verdict
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.repairs import keep_mismatches, repaired, stocked, verdict
from tests.support.state import assert_equal_sides

PLANTED_ON_NEW = {
    "missing": "DELETE FROM people WHERE id = 3",
    "extra": "INSERT INTO people (id, email) VALUES (99, 'nobody@x')",
    "one_field": "UPDATE people SET name = 'wrong' WHERE id = 3",
    "child_row_missing": "DELETE FROM profiles WHERE person_id = 3",
    "one_cent": "UPDATE people SET credit = credit + 0.01 WHERE id = 3",
    "trailing_blank": "UPDATE people SET name = name || ' ' WHERE id = 3",
    "null_against_empty": "UPDATE profiles SET city = NULL WHERE person_id = 3",
}
PLANTED_ON_LEGACY = {
    "missing": "DELETE FROM folk WHERE folk_no = 3",
    "extra": "INSERT INTO folk (folk_no, mail) VALUES (99, 'nobody@x')",
    "one_field": "UPDATE folk SET nm = 'wrong' WHERE folk_no = 3",
    "child_row_missing": "DELETE FROM folk_extra WHERE folk_no = 3",
    "one_cent": "UPDATE folk SET cents = cents + 1 WHERE folk_no = 3",
    "trailing_blank": "UPDATE folk SET nm = nm || ' ' WHERE folk_no = 3",
    "null_against_empty": "UPDATE folk_extra SET city = NULL WHERE folk_no = 3",
}


@BOTH_AUTHORITIES
@pytest.mark.parametrize("corruption", PLANTED_ON_NEW)
async def test_planted_corruption_is_repaired(
    make_manager: MakeManager,
    legacy_sql: Sql,
    new_sql: Sql,
    people_databases: Databases,
    *,
    phase: Phase,
    corruption: str,
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql, phase)
    if corruption == "null_against_empty":
        source = legacy_sql if phase is Phase.DUALWRITE else new_sql
        table, key = ("folk_extra", "folk_no") if phase is Phase.DUALWRITE else ("profiles", "person_id")
        await source(f"UPDATE {table} SET city = '' WHERE {key} = 3")
        await manager.relay().drain(timeout_seconds=10)
    before = await assert_equal_sides(people_databases)
    planted = PLANTED_ON_NEW if phase is Phase.DUALWRITE else PLANTED_ON_LEGACY
    await (new_sql if phase is Phase.DUALWRITE else legacy_sql)(planted[corruption])
    number = 99 if corruption == "extra" else 3
    await keep_mismatches(new_sql, ("person", number), *([("note", 3)] if corruption == "missing" else []))
    assert await verdict(manager) is Verdict.DIFFERENT

    told = await repaired(manager, entity=None)

    assert set(told.outcomes.values()) == {"repaired"}
    assert told.complete
    assert await assert_equal_sides(people_databases) == before
    assert await verdict(manager) is Verdict.EQUAL
    states = await new_sql("SELECT DISTINCT state FROM tandem_people.mismatch")
    assert [row["state"] for row in states] == ["repaired"]


async def test_it_is_written_down_by_whom_and_why(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await new_sql("UPDATE people SET name = 'wrong', credit = 7.77 WHERE id = 3")
    told = await repaired(manager, keys=["3", "[4]"], reason="ticket 12")
    assert told.outcomes == {"[3]": "repaired", "[4]": "equal already"}
    (row,) = await new_sql("SELECT * FROM tandem_people.repair")
    assert (row["entity"], row["key"], row["from_side"], row["outcome"]) == (
        "person",
        "[3]",
        "legacy",
        "repaired",
    )
    assert (row["repaired_by"], row["reason"]) == ("tester", "ticket 12")
    assert sorted(row["fields"]) == ["people.credit", "people.name"]
    assert row["finished_at"] > row["repaired_at"]
    assert [item.shown for item in told.of("[3]").fields] == [False, False]


async def test_mismatch_that_is_equal_by_now_is_gone_and_nothing_is_written(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await keep_mismatches(new_sql, ("person", 5))
    guard = await new_sql("SELECT * FROM tandem_people.guard ORDER BY entity, key")
    told = await repaired(manager)
    assert told.outcomes == {"[5]": "equal already"}
    assert told.complete
    (row,) = await new_sql("SELECT state, ended_at FROM tandem_people.mismatch")
    assert row["state"] == "gone"
    assert row["ended_at"] is not None
    assert await new_sql("SELECT * FROM tandem_people.guard ORDER BY entity, key") == guard
    assert await new_sql("SELECT * FROM tandem_people.repair") == []


async def test_key_on_its_way_is_left_alone_and_said(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await legacy_sql("UPDATE folk SET nm = 'on its way' WHERE folk_no = 3")
    await new_sql("UPDATE people SET name = 'wrong' WHERE id = 4")
    await keep_mismatches(new_sql, ("person", 3), ("person", 4))
    told = await repaired(manager, patience_seconds=0.1)
    assert told.outcomes == {"[3]": "moving", "[4]": "repaired"}
    assert not told.complete
    rows = await new_sql("SELECT key, state FROM tandem_people.mismatch ORDER BY key")
    assert [tuple(row) for row in rows] == [("[3]", "open"), ("[4]", "repaired")]


async def test_unique_values_swapped_between_two_corrupted_keys(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    before = await assert_equal_sides(people_databases)
    await new_sql("UPDATE people SET email = '~' WHERE id = 3")
    await new_sql("UPDATE people SET email = '3@x' WHERE id = 4")
    await new_sql("UPDATE people SET email = '4@x' WHERE id = 3")
    await keep_mismatches(new_sql, ("person", 3), ("person", 4))
    assert (await repaired(manager)).outcomes == {"[3]": "repaired", "[4]": "repaired"}
    assert await assert_equal_sides(people_databases) == before


async def test_unique_value_that_only_the_named_key_may_have(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    """The key that holds it was not named: it is repaired with the one that was, and journalled for the relay."""
    manager = await stocked(make_manager, legacy_sql, new_sql)
    before = await assert_equal_sides(people_databases)
    await new_sql("UPDATE people SET email = '~' WHERE id = 3")
    await new_sql("UPDATE people SET email = '3@x' WHERE id = 4")
    assert (await repaired(manager, keys=["3"])).outcomes == {"[3]": "repaired"}
    assert await assert_equal_sides(people_databases) == before
    assert [row["key"] for row in await legacy_sql("SELECT key FROM tandem_people.journal")] == ["[4]"]


async def test_refused_keys_are_told_with_the_reason_and_hold_up_nobody(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await legacy_sql("UPDATE folk SET cents = -1 WHERE folk_no = 3")
    await legacy_sql("UPDATE folk SET born = 'no date' WHERE folk_no = 5")
    await legacy_sql("DELETE FROM tandem_people.journal")
    await new_sql("UPDATE people SET name = 'wrong' WHERE id = 4")
    await keep_mismatches(new_sql, ("person", 3), ("person", 4), ("person", 5))
    told = await repaired(manager)
    assert told.outcomes == {"[3]": "refused", "[4]": "repaired", "[5]": "refused"}
    assert "check refused by people_credit_check" in told.of("[3]").detail
    assert "-1" not in told.of("[3]").detail
    assert "SQLSTATE 22" in told.of("[5]").detail
    assert not told.complete
    (row,) = await new_sql("SELECT detail FROM tandem_people.repair WHERE key = '[3]'")
    assert "people_credit_check" in row["detail"]
    rows = await new_sql("SELECT key, state FROM tandem_people.mismatch ORDER BY key")
    assert [row["state"] for row in rows] == ["open", "repaired", "open"]


async def test_success_closes_a_failure_and_refusal_leaves_it(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql, retry_attempts=1)
    await legacy_sql("UPDATE folk SET cents = -1 WHERE folk_no IN (3, 4)")
    await manager.relay().drain(timeout_seconds=10)
    assert len(await manager.list_failures(limit=10)) == 2
    await legacy_sql("UPDATE folk SET cents = 5 WHERE folk_no = 3")
    await legacy_sql("DELETE FROM tandem_people.journal")
    told = await repaired(manager, keys=["3", "4"])
    assert told.outcomes == {"[3]": "repaired", "[4]": "refused"}
    assert [failure.key for failure in await manager.list_failures(limit=10)] == ["[4]"]
    (row,) = await legacy_sql("SELECT closed_by FROM tandem_people.failure WHERE state = 'closed'")
    assert row["closed_by"] == "repair"


async def test_parent_that_goes_after_its_children_is_tried_again(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    """Extra rows on the secondary whose foreign keys do not cascade, one key a batch."""
    manager = await stocked(make_manager, legacy_sql, new_sql)
    before = await assert_equal_sides(people_databases)
    await new_sql(
        "ALTER TABLE notes DROP CONSTRAINT notes_person_id_fkey, ADD FOREIGN KEY (person_id) REFERENCES people"
    )
    await new_sql("INSERT INTO people (id, email) VALUES (99, 'nobody@x')")
    await new_sql("INSERT INTO notes (id, person_id, body) VALUES (99, 99, 'extra')")
    await keep_mismatches(new_sql, ("person", 99), ("note", 99))
    told = await repaired(manager, entity=None, batch_keys=1)
    assert [(item.entity, item.outcome.value) for item in told.keys] == [
        ("note", "repaired"),
        ("person", "repaired"),
    ]
    assert await assert_equal_sides(people_databases) == before


async def test_child_brings_its_missing_parent(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    before = await assert_equal_sides(people_databases)
    await new_sql("DELETE FROM people WHERE id = 3")
    assert (await repaired(manager, entity="note", keys=["3"])).outcomes == {"[3]": "repaired"}
    assert await assert_equal_sides(people_databases) == before
    rows = await legacy_sql("SELECT entity, key FROM tandem_people.journal")
    assert [tuple(row) for row in rows] == [("person", "[3]")], "the relay sees to what was not asked for"


async def test_child_whose_parent_cannot_come_is_refused(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await new_sql("DELETE FROM people WHERE id = 3")
    await legacy_sql("UPDATE folk SET cents = -1 WHERE folk_no = 3")
    await legacy_sql("DELETE FROM tandem_people.journal")
    told = await repaired(manager, entity="note", keys=["3"])
    assert told.outcomes == {"[3]": "refused"}
    assert "foreign key refused" in told.of("[3]").detail


@BOTH_AUTHORITIES
async def test_fenced_target_is_not_written(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, *, phase: Phase
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql, phase)
    target = new_sql if phase is Phase.DUALWRITE else legacy_sql
    table = ("people", "name", "id") if phase is Phase.DUALWRITE else ("folk", "nm", "folk_no")
    await target("UPDATE {} SET {} = 'wrong' WHERE {} = 3".format(*table))
    for change in ("epoch = 2", "epoch = 1, state = 'open'"):
        await target(f"UPDATE tandem_people.mark SET {change}")
        for source in Side:
            with pytest.raises(FencedError):
                await repaired(manager, keys=["3"], source=source)
    (row,) = await target("SELECT {1} AS found FROM {0} WHERE {2} = 3".format(*table))
    assert row["found"] == "wrong"
    assert await new_sql("SELECT * FROM tandem_people.repair") == []


@pytest.mark.parametrize("phase", [Phase.OFF, Phase.COMPLETE])
async def test_phase_without_a_secondary(make_manager: MakeManager, *, phase: Phase) -> None:
    manager = await make_manager(phase)
    with pytest.raises(ConflictError, match=f"phase {phase.value} has no secondary side"):
        await repaired(manager, keys=["3"])


async def test_bad_requests(make_manager: MakeManager, new_sql: Sql) -> None:
    manager = await make_manager()
    with pytest.raises(ConflictError, match="run `tandem validate people` first"):
        await repaired(manager, entity=None)
    with pytest.raises(ValidationError, match="say which entity: person, note"):
        await repaired(manager, entity=None, keys=["3"])
    with pytest.raises(ConfigurationError, match="unknown entity 'nobody'"):
        await repaired(manager, entity="nobody")
    with pytest.raises(ValidationError, match="id of person is a whole number"):
        await repaired(manager, keys=["3", "three"])
    off = await make_manager(enabled=False)
    with pytest.raises(ConfigurationError, match="writes to the new side are switched off"):
        await repaired(off, keys=["3"])


async def test_nothing_to_repair_after_a_validation_is_no_error(
    make_manager: MakeManager, new_sql: Sql
) -> None:
    manager = await make_manager()
    await new_sql(
        "INSERT INTO tandem_people.validation_run (kind, state, direction, epoch, capture, run_by) "
        "VALUES ('full', 'finished', 'to_new', 1, '', 'tester')"
    )
    await new_sql(
        "INSERT INTO tandem_people.validation_entity (run_id, entity, major, minor, finished_at) "
        "SELECT id, 'person', 1, 0, now() FROM tandem_people.validation_run"
    )
    told = await repaired(manager)
    assert told.complete
    assert told.report is not None
    assert "left no mismatch open" in told.report.note
    with pytest.raises(ConflictError):
        await repaired(manager, entity="note")


async def test_what_a_validation_kept_is_repaired_and_the_next_one_is_equal(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await new_sql("UPDATE people SET credit = credit + 0.01 WHERE id = 3")
    await new_sql("DELETE FROM notes WHERE id = 4")
    assert await verdict(manager) is Verdict.DIFFERENT
    told = await repaired(manager, entity=None)
    assert told.outcomes == {"[3]": "repaired", "[4]": "repaired"}
    assert told.report is not None
    assert (told.complete, told.report.note) == (True, "")
    assert await verdict(manager) is Verdict.EQUAL
    again = await repaired(manager, entity=None)
    assert again.complete
    assert again.keys == []


async def test_more_mismatches_than_are_kept_is_said(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await new_sql("UPDATE people SET credit = credit + 0.01")
    assert await verdict(manager) is Verdict.DIFFERENT
    await new_sql("UPDATE tandem_people.validation_entity SET overflowed = true WHERE entity = 'person'")
    told = await repaired(manager, entity=None)
    assert told.report is not None
    assert told.report.note == "more keys of person differ than the last validation kept: validate again"
    assert set(told.outcomes.values()) == {"repaired"}
    assert not told.complete


async def test_limit_and_batches(make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await new_sql("UPDATE people SET name = 'wrong'")
    await keep_mismatches(new_sql, *[("person", n) for n in range(1, 13)])
    assert len((await repaired(manager, limit=5, batch_keys=2)).keys) == 5
    told = await repaired(manager, batch_keys=2)
    assert len(told.keys) == 7
    assert told.complete
    assert await verdict(manager) is Verdict.EQUAL


async def test_trigger_on_the_target_that_changes_what_is_written(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await stocked(make_manager, legacy_sql, new_sql)
    await new_sql(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := 'spoilt'; RETURN NEW; END $$"
    )
    await new_sql(
        "CREATE TRIGGER spoil BEFORE INSERT OR UPDATE ON people FOR EACH ROW EXECUTE FUNCTION spoil()"
    )
    await new_sql("UPDATE people SET born = NULL WHERE id = 3")
    told = await repaired(manager, keys=["3"])
    assert told.outcomes == {"[3]": "refused"}
    assert "still different after it was carried" in told.of("[3]").detail
