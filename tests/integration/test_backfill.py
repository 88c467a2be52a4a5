"""What a backfill makes of rows that are refused, and when it may not begin or does not count."""

from __future__ import annotations

import pytest

from backend.shared import Phase
from backend.shared.domain.errors import ConflictError, FencedError, InstallationError
from backend.shared.migration.backfill import Backfill
from backend.shared.testing.clusters import Databases
from tests.support.backfilling import FOLK, progress_of, small
from tests.support.fixtures import MakeManager, Sql
from tests.support.state import assert_equal_sides


async def test_rows_that_the_target_refuses_fail_alone(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql, new_sql: Sql
) -> None:
    """A check, a text that is no date, and a unique index that only the target has: each named, the rest copied."""
    await new_sql("CREATE UNIQUE INDEX people_email_any_case ON people (lower(email))")
    await legacy_sql(FOLK.format(rows=3000))
    await legacy_sql("UPDATE folk SET cents = -5 WHERE folk_no = 100")
    await legacy_sql("UPDATE folk SET born = 'soon' WHERE folk_no = 2000")
    await legacy_sql("UPDATE folk SET mail = 'P30' WHERE folk_no = 2500")
    await legacy_sql("INSERT INTO notes (folk_no, body) SELECT folk_no, 'x' FROM folk WHERE folk_no <= 200")
    manager = await make_manager()
    await legacy_sql("DELETE FROM tandem_people.journal")
    found = await Backfill(manager.runtime, first_chunk_rows=3000).run()
    assert [item.summary for item in found.entities] == ["complete with 3 failures", "complete"]
    failures = {failure.key: failure.error for failure in await manager.list_failures(limit=10)}
    assert failures.keys() == {"[100]", "[2000]", "[2500]"}
    assert "people_credit_check" in failures["[100]"]
    assert "people_email_any_case" in failures["[2500]"]
    assert (await new_sql("SELECT count(*) FROM people"))[0][0] == 2997
    assert progress_of(found, "note").keys_waiting == 1, "the note of a person who is not there waits for her"
    await legacy_sql("UPDATE folk SET cents = 5, born = '2001-02-03', mail = 'p' || folk_no")
    await manager.relay().drain(timeout_seconds=20)
    await assert_equal_sides(people_databases)
    assert await manager.list_failures(limit=10) == []


async def test_a_copy_closes_the_failures_of_the_rows_it_copies(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    await legacy_sql("INSERT INTO folk (folk_no, mail, cents) VALUES (1, 'p1', -5), (2, 'p2', -5)")
    manager = await make_manager()
    found = await small(manager).run()
    assert found.failures_open == 2
    await new_sql("ALTER TABLE people DROP CONSTRAINT people_credit_check")
    found = await small(manager).run()
    assert found.failures_open == 0
    assert (await new_sql("SELECT count(*) FROM people WHERE credit < 0"))[0][0] == 2


async def test_a_gap_in_capture_voids_what_was_copied(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    await legacy_sql(FOLK.format(rows=10))
    manager = await make_manager()
    assert (await small(manager).run()).is_complete
    await legacy_sql("DROP TRIGGER tandem_people_folk_update ON folk")
    await legacy_sql("UPDATE folk SET nm = 'unseen'")
    with pytest.raises(InstallationError, match="capture on the legacy side"):
        await small(manager).run()
    assert not (await small(manager).status()).is_complete
    await manager.install()
    found = await small(manager).status()
    assert not found.is_complete
    assert found.entities[0].summary.startswith("void: capture")
    assert (await small(manager).run()).is_complete
    assert {row[2] for row in await assert_equal_sides(people_databases)} == {"unseen"}


async def test_an_open_target_is_not_written(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    await legacy_sql(FOLK.format(rows=10))
    manager = await make_manager()
    await new_sql("UPDATE tandem_people.mark SET state = 'open', epoch = 2")
    with pytest.raises(FencedError):
        await small(manager).run()
    assert await new_sql("SELECT 1 FROM people") == []


async def test_a_phase_without_capture_has_no_backfill(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.OFF)
    with pytest.raises(ConflictError, match="captures no changes"):
        Backfill(manager.runtime)


async def test_a_table_that_is_missing_is_said_at_once(make_manager: MakeManager, new_sql: Sql) -> None:
    manager = await make_manager()
    await new_sql("DROP TABLE profiles")
    with pytest.raises(Exception, match="table missing"):
        await small(manager).run()
