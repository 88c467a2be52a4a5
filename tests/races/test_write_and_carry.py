"""The thinnest path: write on the authoritative side, carried to the other, whichever that is."""

from __future__ import annotations

from decimal import Decimal

import pytest

from backend.shared import Phase, SecondWrite, UnitOfWork, ValidationError
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import notes, people, profiles
from tests.support.state import assert_equal_sides


async def add_person(work: UnitOfWork, *, email: str = "ann@example.org", city: str | None = "Ulm") -> int:
    values = {people.c.email: email, people.c.name: "Änn  ", people.c.credit: Decimal("12.34")}
    (key,) = await work.insert("person", values | {profiles.c.city: city})
    await work.insert("note", {notes.c.person_id: key, notes.c.body: "first"})
    return int(key)


@BOTH_AUTHORITIES
@pytest.mark.parametrize("async_legacy", [True, False])
async def test_insert_update_delete_are_carried(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase, async_legacy: bool
) -> None:
    manager = await make_manager(phase, async_legacy=async_legacy)
    result = await manager.write("add", add_person)
    assert result.success, result.to_dict()
    assert result.second_write is (SecondWrite.PENDING if async_legacy else SecondWrite.APPLIED)
    assert await manager.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert row[1:6] == ("ann@example.org", "Änn  ", Decimal("12.34"), None, "Ulm")
    key = (result.unwrap(),)

    await manager.write("change", lambda work: work.update("person", key, {people.c.credit: Decimal("0.01")}))
    await manager.write("move", lambda work: work.update("person", key, {profiles.c.city: "Bonn"}))
    assert await manager.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert row[3] == Decimal("0.01")
    assert row[5] == "Bonn"

    assert (await manager.write("remove", lambda work: work.delete("person", key))).value is True
    assert await manager.relay().drain(timeout_seconds=10)
    assert await assert_equal_sides(people_databases) == []
    assert (await manager.write("remove", lambda work: work.delete("person", key))).value is False


async def test_unmapped_columns_are_left_alone(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    manager = await make_manager(Phase.RAMPDOWN)
    key = ((await manager.write("add", add_person)).unwrap(),)
    await manager.relay().drain(timeout_seconds=10)
    await legacy_sql("UPDATE folk SET shoe_size = 44")
    await manager.write("change", lambda work: work.update("person", key, {people.c.name: "Bea"}))
    await manager.relay().drain(timeout_seconds=10)
    assert [tuple(row) for row in await legacy_sql("SELECT nm, shoe_size FROM folk")] == [("Bea", 44)]
    await assert_equal_sides(people_databases)


@BOTH_AUTHORITIES
async def test_bad_input_keeps_nothing(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    manager = await make_manager(phase)

    async def unit(work: UnitOfWork) -> None:
        await add_person(work)
        raise ValidationError("no")

    with pytest.raises(ValidationError):
        await manager.write("add", unit)
    assert await assert_equal_sides(people_databases) == []
    assert (await manager.status()).journal_rows == 0


async def test_write_by_another_program_in_a_legacy_table_arrives(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    manager = await make_manager()
    await legacy_sql(
        "INSERT INTO folk (mail, nm, cents, born) VALUES ('old@example.org', 'Old', 5, '1970-02-28')"
    )
    await manager.relay().drain(timeout_seconds=10)
    await legacy_sql("UPDATE folk SET folk_no = 77, cents = 6, mail = 'moved@example.org'")
    await manager.relay().drain(timeout_seconds=10)
    (row,) = await assert_equal_sides(people_databases)
    assert row[0] == 77
    await legacy_sql("TRUNCATE folk CASCADE")
    await manager.relay().drain(timeout_seconds=10)
    assert await assert_equal_sides(people_databases) == []


@BOTH_AUTHORITIES
async def test_batch_is_one_transaction(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    manager = await make_manager(phase)
    units = [("add", lambda work, n=n: add_person(work, email=f"{n}@example.org")) for n in range(5)]
    result = await manager.batch(units)
    assert len(set(result.unwrap())) == 5
    result = await manager.batch([*units[:1], units[0]])
    assert not result.success
    assert result.error is not None
    assert result.error.sqlstate == "23505"  # type: ignore[attr-defined]  # a SideError
    await manager.relay().drain(timeout_seconds=10)
    assert len(await assert_equal_sides(people_databases)) == 5


async def test_legacy_columns_keep_their_form_where_the_value_is_the_same(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    """1970-2-3 and 1970-02-03 are one date: changing a name must not rewrite the other column."""
    manager = await make_manager()
    await legacy_sql("INSERT INTO folk (folk_no, mail, born) VALUES (1, 'x@example.org', '1970-2-3')")
    await manager.write("change", lambda work: work.update("person", (1,), {people.c.name: "Bea"}))
    assert [tuple(row) for row in await legacy_sql("SELECT nm, born FROM folk")] == [("Bea", "1970-2-3")]
