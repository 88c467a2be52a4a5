"""Conflicts are listed and settled either way, by an ordinary carry or an ordinary captured write."""

from __future__ import annotations

import pytest

from backend.shared import ConflictError, NotFoundError, Phase, Side, ValidationError
from backend.shared.observability.labels import Verdict
from backend.shared.testing.clusters import Databases
from tests.support.conflicts import CLOSED, Foreign, conflicts_on, opened, seeded, settled_all
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import people
from tests.support.repairs import verdict
from tests.support.state import assert_equal_sides, both_sides

WRITES = {
    Side.LEGACY: {
        "update": "UPDATE folk SET nm = 'foreign' WHERE folk_no = 3",
        "insert": "INSERT INTO folk (folk_no, mail, nm, cents) VALUES (77, 'new@x', 'foreign', 700)",
        "delete": "DELETE FROM folk WHERE folk_no = 3",
        "second_table": "UPDATE folk_extra SET city = 'foreign' WHERE folk_no = 3",
        "lost_city": "DELETE FROM folk_extra WHERE folk_no = 3",
        "rekeyed": "UPDATE notes SET note_no = 99 WHERE note_no = 3",
        "truncated": "TRUNCATE notes",
        "null": "UPDATE folk SET born = NULL, nm = NULL WHERE folk_no = 3",
    },
    Side.NEW: {
        "update": "UPDATE people SET name = 'foreign' WHERE id = 3",
        "insert": "INSERT INTO people (id, email, name, credit) VALUES (77, 'new@x', 'foreign', 7)",
        "delete": "DELETE FROM people WHERE id = 3",
        "second_table": "UPDATE profiles SET city = 'foreign' WHERE person_id = 3",
        "lost_city": "DELETE FROM profiles WHERE person_id = 3",
        "rekeyed": "UPDATE notes SET id = 99 WHERE id = 3",
        "truncated": "TRUNCATE notes",
        "null": "UPDATE people SET born = NULL, name = NULL WHERE id = 3",
    },
}


@pytest.fixture
def on(legacy_sql: Sql, new_sql: Sql) -> Foreign:
    return {Side.LEGACY: legacy_sql, Side.NEW: new_sql}


@BOTH_AUTHORITIES
@pytest.mark.parametrize("keep_foreign", [False, True], ids=["authority", "foreign"])
@pytest.mark.parametrize("kind", list(WRITES[Side.NEW]))
@pytest.mark.invariant("I8")
async def test_i8_a_foreign_write_is_kept_until_it_is_settled_either_way(
    make_manager: MakeManager,
    on: Foreign,
    people_databases: Databases,
    *,
    phase: Phase,
    kind: str,
    keep_foreign: bool,
) -> None:
    manager = await seeded(make_manager, on, phase)
    closed = CLOSED[phase]
    before = await assert_equal_sides(people_databases)
    await on[closed](WRITES[closed][kind])
    legacy, new = await both_sides(people_databases)
    foreign = legacy if closed is Side.LEGACY else new
    assert foreign != before
    found = await manager.list_conflicts(limit=100)
    assert found
    assert all(item.side is closed and item.id.startswith(f"people-{closed.value}-") for item in found)
    assert (await manager.overview()).conflicts_open == len(found)
    done = await settled_all(manager, closed if keep_foreign else closed.other)
    assert {item.outcome for item in done} == {"settled"}, done
    assert await manager.relay().drain(timeout_seconds=10)
    assert await assert_equal_sides(people_databases) == (foreign if keep_foreign else before)
    assert await manager.list_conflicts(limit=100) == []
    assert await verdict(manager) is Verdict.EQUAL
    kept = await conflicts_on(on[closed])
    assert {(item.state, item.kept, item.settled_by) for item in kept} == {
        ("settled", (closed if keep_foreign else closed.other).value, "ada")
    }


@BOTH_AUTHORITIES
async def test_only_what_the_foreign_statement_changed_is_written(
    make_manager: MakeManager, on: Foreign, people_databases: Databases, *, phase: Phase
) -> None:
    """The authoritative side has moved on in other fields, and the secondary has not heard of it, and bears other errors."""
    manager = await seeded(make_manager, on, phase)
    closed, authority = CLOSED[phase], CLOSED[phase].other
    await on[closed](WRITES[closed]["update"])
    await on[closed](WRITES[closed]["second_table"])
    await on[authority](
        "UPDATE people SET email = 'newer@x', credit = 9.25 WHERE id = 3"
        if authority is Side.NEW
        else "UPDATE folk SET mail = 'newer@x', cents = 925, shoe_size = 36 WHERE folk_no = 3"
    )
    first = (await manager.list_conflicts(limit=10))[0]
    assert [item.field.rpartition(".")[2] for item in first.fields] == [
        "name" if closed is Side.NEW else "nm"
    ]
    done = await manager.settle_conflict(first.id, keep=closed, by="ada")
    assert done.settled
    assert await manager.relay().drain(timeout_seconds=10)
    row = (await assert_equal_sides(people_databases))[2]
    assert (row[1], row[2], str(row[3]), row[5]) == ("newer@x", "foreign", "9.25", "city 3")
    # The other one was overwritten by that carry: its images still say it.
    (second,) = await manager.list_conflicts(limit=10)
    assert (await manager.settle_conflict(second.id, keep=closed, by="ada")).settled
    assert await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[2][5] == "foreign"
    if authority is Side.LEGACY:
        (kept,) = await on[authority]("SELECT shoe_size FROM folk WHERE folk_no = 3")
        assert kept["shoe_size"] == 36


async def test_values_are_shown_when_asked_for_and_never_secret_ones(
    make_manager: MakeManager, on: Foreign
) -> None:
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY]("UPDATE folk SET nm = 'foreign', cents = 1, shoe_size = 1 WHERE folk_no = 3")
    (bare,) = await manager.list_conflicts(limit=10)
    assert [(item.field, item.before, item.after) for item in bare.fields] == [
        ("folk.nm", None, None),
        ("folk.cents", None, None),
    ]
    (shown,) = await manager.list_conflicts(limit=10, show_values=True)
    assert [(item.field, item.before, item.after) for item in shown.fields] == [
        ("folk.nm", "name 3", "foreign"),
        ("folk.cents", "***", "***"),
    ]
    plan = await manager.settle_conflict(bare.id, keep=Side.LEGACY, dry_run=True, show_values=True)
    assert (plan.outcome, plan.settled) == ("planned", False)
    assert [(item.field, item.before, item.after) for item in plan.fields] == [
        ("people.name", "name 3", "foreign"),
        ("people.credit", "***", "***"),
    ]
    plan = await manager.settle_conflict(bare.id, keep=Side.NEW, dry_run=True)
    assert [item.field for item in plan.fields] == ["folk.nm", "folk.cents"]
    assert await on[Side.NEW]("SELECT 1 FROM people WHERE name = 'foreign'") == []
    assert await on[Side.NEW]("SELECT 1 FROM tandem_people.journal") == []


async def test_what_the_authority_refuses_stays_open_with_its_reason(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    legacy = on[Side.LEGACY]
    await legacy("UPDATE folk SET cents = -5 WHERE folk_no = 3")
    await legacy("UPDATE folk SET born = 'never' WHERE folk_no = 4")
    await legacy(
        "INSERT INTO notes (note_no, folk_no, body) SELECT 88, folk_no, 'x' FROM folk WHERE folk_no = 5"
    )
    await on[Side.NEW]("DELETE FROM people WHERE id = 5")
    await on[Side.NEW]("UPDATE people SET email = 'taken@x' WHERE id = 7")
    await legacy("UPDATE folk SET mail = 'taken@x' WHERE folk_no = 6")
    assert (await manager.relay().run_once()).carried
    done = {item.key: item for item in await settled_all(manager, Side.LEGACY)}
    assert {item.outcome for item in done.values()} == {"refused"}
    assert "check refused by people_credit_check" in done["[3]"].detail
    assert "legacy side" in done["[4]"].detail
    assert "foreign key refused" in done["[88]"].detail
    assert "unique value refused" in done["[6]"].detail
    listed = await manager.list_conflicts(limit=10)
    assert len(listed) == 4
    assert all(item.detail for item in listed)
    # The other way is open still.
    done = {item.key: item for item in await settled_all(manager, Side.NEW)}
    assert {item.outcome for item in done.values()} == {"settled"}, done
    await assert_equal_sides(people_databases)


async def test_settled_again_is_said_and_the_other_way_is_refused(
    make_manager: MakeManager, on: Foreign
) -> None:
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY](WRITES[Side.LEGACY]["update"])
    (conflict,) = await manager.list_conflicts(limit=10)
    assert (await manager.settle_conflict(conflict.id, keep=Side.LEGACY, by="ada")).settled
    await on[Side.NEW]("UPDATE people SET name = 'newer' WHERE id = 3")
    again = await manager.settle_conflict(conflict.id, keep=Side.LEGACY, by="bob")
    assert (again.outcome, again.detail) == ("settled already", "by ada")
    with pytest.raises(ConflictError, match="was settled by ada: kept legacy"):
        await manager.settle_conflict(conflict.id, keep=Side.NEW, by="bob")
    assert (await on[Side.NEW]("SELECT name FROM people WHERE id = 3"))[0]["name"] == "newer"
    for wrong in ("people-legacy-4711", "cart-legacy-1"):
        with pytest.raises(NotFoundError, match=f"there is no conflict {wrong}"):
            await manager.settle_conflict(wrong, keep=Side.NEW)
    with pytest.raises(ValidationError, match="no conflict's id"):
        await manager.settle_conflict("12", keep=Side.NEW)


async def test_without_second_writes_nothing_can_be_carried_but_a_foreign_write_can_be_kept(
    make_manager: MakeManager, on: Foreign
) -> None:
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY](WRITES[Side.LEGACY]["update"])
    (conflict,) = await manager.list_conflicts(limit=10)
    await manager.change_config({"enabled": False})
    refused = await manager.settle_conflict(conflict.id, keep=Side.NEW)
    assert (refused.outcome, refused.detail) == ("refused", "writes to the legacy side are switched off")
    assert (await manager.settle_conflict(conflict.id, keep=Side.LEGACY)).settled


async def test_what_was_reported_is_settled_though_it_would_be_rejected_now(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    """The trial on the closed side is no foreign write."""
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY](WRITES[Side.LEGACY]["update"])
    await manager.change_config({"foreign_writes": "reject"})
    (done,) = await settled_all(manager, Side.LEGACY)
    assert done.outcome == "settled", done
    assert await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[2][2] == "foreign"


async def test_a_carry_of_a_key_with_a_conflict_goes_on_and_the_images_stay(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY](WRITES[Side.LEGACY]["update"])
    await on[Side.NEW]("UPDATE people SET credit = 5 WHERE id = 3")
    assert await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[2][2] == "name 3"
    (kept,) = await conflicts_on(on[Side.LEGACY], state="open")
    assert (kept.before["nm"], kept.after["nm"]) == ("name 3", "foreign")
    assert (await manager.settle_conflict(f"people-legacy-{kept.id}", keep=Side.LEGACY)).settled
    assert await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[2][2] == "foreign"


async def test_deleted_by_the_authority_since_comes_back_if_the_foreign_write_is_kept(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY](WRITES[Side.LEGACY]["update"])
    await on[Side.NEW]("DELETE FROM people WHERE id = 3")
    assert await manager.relay().drain(timeout_seconds=10)
    (conflict,) = await manager.list_conflicts(limit=10)
    assert (await manager.settle_conflict(conflict.id, keep=Side.LEGACY)).settled
    assert await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[2][:3] == (3, "3@x", "foreign")


@pytest.mark.parametrize("keep", list(Side))
@pytest.mark.parametrize("kind", ["update", "insert", "delete", "second_table"])
async def test_the_side_of_the_foreign_write_has_become_authoritative_since(
    make_manager: MakeManager, on: Foreign, people_databases: Databases, *, kind: str, keep: Side
) -> None:
    """Forced through a cutover: the foreign write is part of the authority now, and both ways end equal."""
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    before = await assert_equal_sides(people_databases)
    await on[Side.LEGACY](WRITES[Side.LEGACY][kind])
    foreign, _ = await both_sides(people_databases)
    await opened(manager, Phase.SHADOW)
    done = await settled_all(manager, keep)
    assert {item.outcome for item in done} == {"settled"}, done
    assert "has become authoritative" in done[0].detail
    assert await manager.relay().drain(timeout_seconds=10)
    assert await assert_equal_sides(people_databases) == (foreign if keep is Side.LEGACY else before)
    assert await verdict(manager) is Verdict.EQUAL


async def test_taken_back_only_where_nobody_has_written_since(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY](WRITES[Side.LEGACY]["update"])
    await opened(manager, Phase.SHADOW)
    await manager.write("change", lambda work: work.update("person", (3,), {people.c.name: "newer"}))
    (conflict,) = await manager.list_conflicts(limit=10)
    done = await manager.settle_conflict(conflict.id, keep=Side.NEW)
    assert (done.outcome, done.detail) == (
        "refused",
        "the row has been written again since: that write stands",
    )
    assert (await manager.settle_conflict(conflict.id, keep=Side.LEGACY)).settled


@pytest.mark.parametrize("keep", list(Side))
async def test_in_complete_nothing_is_carried_any_more(
    make_manager: MakeManager, on: Foreign, *, keep: Side
) -> None:
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY](WRITES[Side.LEGACY]["update"])
    await opened(manager, Phase.COMPLETE)
    (conflict,) = await manager.list_conflicts(limit=10)
    done = await manager.settle_conflict(conflict.id, keep=keep)
    assert (done.settled, done.detail) == (True, "nothing is carried in phase complete")
    (row,) = await on[Side.NEW]("SELECT name FROM people WHERE id = 3")
    assert row["name"] == ("foreign" if keep is Side.LEGACY else "name 3")
