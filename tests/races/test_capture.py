"""R1: what is captured, what is not, and that nothing else decides it."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from backend.shared import InstallationError, Phase, UnitOfWork
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import people
from tests.support.state import both_sides

JOURNAL = "SELECT entity, key FROM tandem_people.journal ORDER BY 1, 2"


async def journal_after(databases: Databases, statement: str, *, carry: str | None) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(databases.legacy_url)
    try:
        async with connection.transaction():
            if carry:
                await connection.execute("SELECT set_config('tandem.carry', $1, true)", carry)
            await connection.execute(statement)
        return [tuple(row) for row in await connection.fetch(JOURNAL)]
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("carry", "captured"),
    [
        (None, True),
        ("people:to_legacy:1", False),
        ("people:to_new:1", True),
        ("people2:to_legacy:1", True),
        ("other:to_legacy:1", True),
    ],
)
async def test_only_own_carries_to_this_side_are_not_captured(
    make_manager: MakeManager, people_databases: Databases, *, carry: str | None, captured: bool
) -> None:
    await make_manager()
    rows = await journal_after(
        people_databases, "INSERT INTO folk (folk_no, mail) VALUES (5, 'x')", carry=carry
    )
    assert rows == ([("person", "[5]")] if captured else [])


async def test_replication_role_does_not_switch_capture_off(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    await make_manager()
    rows = await journal_after(
        people_databases,
        "SET LOCAL session_replication_role = replica; INSERT INTO folk (folk_no, mail) VALUES (5, 'x')",
        carry=None,
    )
    assert rows == [("person", "[5]")]


async def test_one_statement_journals_each_key_once_and_a_rollback_none(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql
) -> None:
    await make_manager()
    rows = await journal_after(
        people_databases,
        "INSERT INTO folk (folk_no, mail) SELECT n, n::text FROM generate_series(1, 3) AS n",
        carry=None,
    )
    assert rows == [("person", f"[{n}]") for n in (1, 2, 3)]
    with pytest.raises(asyncpg.UniqueViolationError):
        await legacy_sql("UPDATE folk SET mail = 'same'")
    assert len(await legacy_sql(JOURNAL)) == 3


async def test_program_without_rights_on_the_journal_is_captured(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql
) -> None:
    await make_manager()
    await legacy_sql("DO $$ BEGIN CREATE ROLE old_program; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    await legacy_sql("GRANT ALL ON folk, folk_folk_no_seq TO old_program")
    rows = await journal_after(
        people_databases,
        "SET LOCAL ROLE old_program; INSERT INTO folk (folk_no, mail) VALUES (9, 'x')",
        carry=None,
    )
    assert rows == [("person", "[9]")]


async def test_missing_trigger_is_noticed_at_start(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    manager = await make_manager()
    await manager.close()
    for damage in (
        "ALTER TABLE folk DISABLE TRIGGER tandem_people_folk_update",
        "DROP TRIGGER tandem_people_folk_update ON folk",
    ):
        await legacy_sql(damage)
        with pytest.raises(InstallationError, match="tandem install people"):
            await manager.start()
    await manager.install()
    await manager.start()


@BOTH_AUTHORITIES
async def test_unit_that_swallows_an_error_is_not_told_success(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    """PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, and that is no error."""
    manager = await make_manager(phase)

    async def unit(work: UnitOfWork) -> None:
        await work.insert("person", {people.c.email: "ann@example.org"})
        try:
            await work.session.execute(text("SELECT 1 / 0"))
        except DBAPIError:
            return

    result = await manager.write("add", unit)
    assert not result.success
    assert await both_sides(people_databases) == ([], [])
