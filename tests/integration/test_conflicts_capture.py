"""What foreign programs write to a closed side: kept as conflicts in their own transaction, or refused."""

from __future__ import annotations

import time

import asyncpg
import pytest

from backend.shared import Phase, Side
from backend.shared.journal.fence import FENCED, FOREIGN_REFUSED
from backend.shared.testing.clusters import Databases
from tests.support.conflicts import conflicts_on, seeded
from tests.support.fixtures import MakeManager, Sql


@pytest.mark.invariant("I8")
async def test_i8_each_row_of_a_statement_is_kept_with_its_images_in_the_transaction_that_wrote_it(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, Phase.RAMPDOWN)
    await legacy_sql("UPDATE folk SET nm = 'foreign' WHERE folk_no IN (1, 2, 3)")
    await legacy_sql("INSERT INTO notes (note_no, folk_no, body) VALUES (91, 1, 'a'), (92, 2, 'b')")
    await legacy_sql("DELETE FROM folk_extra WHERE folk_no <= 2")
    found = await conflicts_on(legacy_sql)
    assert [(item.entity, item.key, item.operation) for item in found] == [
        *(("person", f"[{n}]", "update") for n in (1, 2, 3)),
        *(("note", f"[{n}]", "insert") for n in (91, 92)),
        *(("person", f"[{n}]", "delete") for n in (1, 2)),
    ]
    assert [(item.before["nm"], item.after["nm"]) for item in found[:3]] == [
        (f"name {n}", "foreign") for n in (1, 2, 3)
    ]
    assert found[0].before["shoe_size"] == 42, "the image is the whole row"
    assert (found[3].before, found[3].after["body"]) == (None, "a")
    assert (found[5].before, found[5].after) == ({"folk_no": 1, "city": "city 1"}, None)
    with pytest.raises(asyncpg.PostgresError):
        await legacy_sql("DO $$ BEGIN UPDATE folk SET nm = 'x'; RAISE EXCEPTION 'rolled back'; END $$")
    assert len(await conflicts_on(legacy_sql)) == len(found)
    assert await legacy_sql("SELECT 1 FROM tandem_people.journal") == []


async def test_a_changed_key_is_two_conflicts(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, Phase.RAMPDOWN)
    await legacy_sql("UPDATE notes SET note_no = note_no + 100 WHERE note_no = 4")
    lost, got = sorted(await conflicts_on(legacy_sql), key=lambda item: item.key)[::-1]
    assert (lost.key, lost.before["body"], lost.after) == ("[4]", "note 4", None)
    assert (got.key, got.before, got.after["body"]) == ("[104]", None, "note 4")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM folk WHERE folk_no = 4711",
        "UPDATE folk SET nm = 'x' WHERE folk_no = 4711",
        "INSERT INTO notes SELECT 1, 1, 'x' WHERE false",
        "INSERT INTO folk_extra VALUES (1, 'elsewhere') ON CONFLICT DO NOTHING",
        "UPDATE folk SET nm = nm",
        "UPDATE folk SET shoe_size = shoe_size + 1",
    ],
)
async def test_what_changes_nothing_that_the_mapping_knows_is_no_conflict(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, statement: str
) -> None:
    await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, Phase.RAMPDOWN)
    await legacy_sql(statement)
    assert await conflicts_on(legacy_sql) == []


async def test_nulls_and_minus_nothing(make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql) -> None:
    await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, Phase.RAMPDOWN)
    await legacy_sql("UPDATE folk SET nm = NULL WHERE folk_no = 1")
    await legacy_sql("UPDATE folk SET born = NULL, nm = '' WHERE folk_no = 1")
    one, two = await conflicts_on(legacy_sql)
    assert (one.before["nm"], one.after["nm"]) == ("name 1", None)
    assert (two.before["nm"], two.after["nm"], two.after["born"]) == (None, "", None)


async def test_upsert_copy_and_cascade(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, Phase.RAMPDOWN)
    await legacy_sql(
        "INSERT INTO folk_extra VALUES (1, 'Ulm'), (12, 'Bonn') ON CONFLICT (folk_no) DO UPDATE SET city = excluded.city"
    )
    assert {(item.key, item.operation) for item in await conflicts_on(legacy_sql)} == {
        ("[1]", "update"),
        ("[12]", "update"),
    }
    await legacy_sql("DELETE FROM tandem_people.conflict")
    connection = await asyncpg.connect(people_databases.legacy_url)
    try:
        await connection.copy_records_to_table(
            "notes", records=[(71, 1, "x"), (72, 2, "y")], columns=["note_no", "folk_no", "body"]
        )
    finally:
        await connection.close()
    assert {item.key for item in await conflicts_on(legacy_sql)} == {"[71]", "[72]"}
    await legacy_sql("DELETE FROM tandem_people.conflict")
    await legacy_sql("DELETE FROM folk WHERE folk_no = 1")
    assert {(item.entity, item.key, item.source_table) for item in await conflicts_on(legacy_sql)} == {
        ("person", "[1]", "folk"),
        ("person", "[1]", "folk_extra"),
        ("note", "[1]", "notes"),
        ("note", "[71]", "notes"),
    }


@pytest.mark.parametrize("phase", [Phase.DUALWRITE, Phase.RAMPDOWN])
async def test_truncate_of_a_closed_side(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases, *, phase: Phase
) -> None:
    manager = await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, phase)
    closed = legacy_sql if phase is Phase.RAMPDOWN else new_sql
    root = "folk" if phase is Phase.RAMPDOWN else "people"
    await closed(f"TRUNCATE {root} CASCADE")
    found = await conflicts_on(closed)
    assert {item.operation for item in found} == {"truncate"}
    assert len(found) == 36, "a person, a city and a note each"
    assert all(item.before and item.after is None for item in found)
    await manager.change_config({"foreign_writes": "reject"})
    with pytest.raises(asyncpg.PostgresError) as refused:
        await closed(f"TRUNCATE {root} CASCADE")
    assert refused.value.sqlstate == FOREIGN_REFUSED
    assert len(await conflicts_on(closed)) == 36


async def test_a_foreign_transaction_that_becomes_a_unit_is_refused_as_a_unit(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, Phase.RAMPDOWN)
    connection = await asyncpg.connect(people_databases.legacy_url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE folk SET nm = 'foreign' WHERE folk_no = 1")
        await connection.execute("SET LOCAL tandem.unit = 'people:late'")
        with pytest.raises(asyncpg.PostgresError) as refused:
            await connection.execute("UPDATE folk SET nm = 'unit' WHERE folk_no = 2")
        assert refused.value.sqlstate == FENCED
        await transaction.rollback()
        assert await conflicts_on(legacy_sql) == []
        # And what a savepoint takes back is taken back.
        await connection.execute(
            "BEGIN; SAVEPOINT s; UPDATE folk SET nm = 'no' WHERE folk_no = 1; ROLLBACK TO s; "
            "UPDATE folk SET nm = 'yes' WHERE folk_no = 2; COMMIT"
        )
        (kept,) = await conflicts_on(legacy_sql)
        assert kept.key == "[2]"
    finally:
        await connection.close()


async def test_repeatable_read_writers_with_an_old_snapshot_see_no_old_setting(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    manager = await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, Phase.RAMPDOWN)
    connection = await asyncpg.connect(people_databases.legacy_url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute("UPDATE folk SET nm = 'foreign' WHERE folk_no = 1")
        assert len(await conflicts_on(legacy_sql)) == 1
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        await connection.fetch("SELECT 1 FROM folk")
        await manager.change_config({"foreign_writes": "reject"})
        with pytest.raises(asyncpg.SerializationError):
            await connection.execute("UPDATE folk SET nm = 'foreign' WHERE folk_no = 2")
        await transaction.rollback()
    finally:
        await connection.close()


async def test_foreign_program_needs_no_rights_on_the_conflicts_and_is_named(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, Phase.RAMPDOWN)
    await legacy_sql("DO $$ BEGIN CREATE ROLE old_program; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    await legacy_sql("GRANT ALL ON folk TO old_program")
    connection = await asyncpg.connect(
        people_databases.legacy_url, server_settings={"application_name": "month-end"}
    )
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL ROLE old_program")
            await connection.execute("UPDATE folk SET nm = 'foreign' WHERE folk_no = 1")
    finally:
        await connection.close()
    (row,) = await legacy_sql("SELECT application, written_by FROM tandem_people.conflict")
    assert row["application"] == "month-end"
    assert row["written_by"]


async def test_renamed_column_does_not_stop_a_foreign_program(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    await seeded(make_manager, {Side.LEGACY: legacy_sql, Side.NEW: new_sql}, Phase.RAMPDOWN)
    await legacy_sql("ALTER TABLE folk RENAME nm TO fullname")
    await legacy_sql("UPDATE folk SET mail = 'other@x' WHERE folk_no = 1")
    assert len(await conflicts_on(legacy_sql)) == 1


async def test_a_large_statement_takes_seconds(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    await make_manager(Phase.RAMPDOWN)
    await legacy_sql(
        "INSERT INTO folk (folk_no, mail, nm) SELECT n, n || '@x', 'name' FROM generate_series(1, 100000) AS n"
    )
    started = time.perf_counter()
    await legacy_sql("UPDATE folk SET nm = 'foreign'")
    seconds = time.perf_counter() - started
    (row,) = await legacy_sql("SELECT count(*) AS n FROM tandem_people.conflict")
    assert row["n"] == 200_000
    assert seconds < 20
