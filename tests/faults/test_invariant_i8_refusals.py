"""I8 and R5: what cannot be carried is kept, counted and shown; good rows are never blocked by a bad one."""

from __future__ import annotations

import pytest

from backend.shared import Direction, Phase, Side, UnitOfWork
from backend.shared.database import create_side_engine
from backend.shared.journal.carrier import TargetUnavailableError
from backend.shared.journal.relay import Relay, RelaySettings
from backend.shared.stores.postgres.side import PostgresSide
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import PeopleManager, people
from tests.support.state import assert_equal_sides

MANY = "INSERT INTO folk (folk_no, mail, cents) SELECT n, n || '@example.org', 1 FROM generate_series(1, 1000) AS n"


@pytest.mark.invariant("I8")
@pytest.mark.parametrize(
    ("damage", "sqlstate"),
    [
        ("cents = -1", "23514"),
        ("born = '2021-02-30'", "22008"),
        ("cents = 2147483647, mail = ' 7@example.org'", None),
    ],
)
async def test_i8_bad_row_amid_a_thousand_good_ones(
    make_manager: MakeManager,
    legacy_sql: Sql,
    people_databases: Databases,
    *,
    damage: str,
    sqlstate: str | None,
) -> None:
    manager = await make_manager(batch_size=500, retry_attempts=2)
    await legacy_sql(MANY)
    await legacy_sql(f"UPDATE folk SET {damage} WHERE folk_no = 500")
    assert await manager.relay().drain(timeout_seconds=20)
    failures = await manager.list_failures(limit=10)
    legacy, new = await _counts(people_databases)
    if sqlstate is None:
        assert failures == []
        assert legacy == new == 1000
        return
    (failure,) = failures
    assert (failure.entity, failure.key, failure.attempts) == ("person", "[500]", 2)
    assert sqlstate in failure.error
    assert "2021-02-30" not in failure.error
    assert (legacy, new) == (1000, 999)
    status = await manager.status()
    assert (status.failures_open, status.journal_rows) == (1, 0)


@pytest.mark.invariant("I8")
async def test_i8_failed_is_retried_by_hand_in_bulk_and_by_the_next_change(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, people_databases: Databases
) -> None:
    manager = await make_manager(retry_attempts=1)
    await new_sql("ALTER TABLE people ADD CONSTRAINT no_a CHECK (email NOT LIKE 'a%')")
    await legacy_sql("INSERT INTO folk (mail) VALUES ('a1'), ('a2'), ('a3'), ('b')")
    assert await manager.relay().drain(timeout_seconds=10)
    one, two, three = await manager.list_failures(limit=10)
    assert await _counts(people_databases) == (4, 1)

    await manager.retry_failure(one.id)
    assert await manager.relay().drain(timeout_seconds=10)
    assert len(await manager.list_failures(limit=10)) == 3, "still refused, and still one failure a key"
    await legacy_sql("UPDATE folk SET mail = 'c3' WHERE mail = 'a3'")
    assert await manager.relay().drain(timeout_seconds=10)
    assert [f.id for f in await manager.list_failures(limit=10)] == [one.id, two.id]

    await new_sql("ALTER TABLE people DROP CONSTRAINT no_a")
    assert await manager.retry_failures() == 2
    assert await manager.relay().drain(timeout_seconds=10)
    assert await manager.list_failures(limit=10) == []
    assert len(await assert_equal_sides(people_databases)) == 4
    assert three.id not in (one.id, two.id)


@pytest.mark.invariant("I1")
@BOTH_AUTHORITIES
@pytest.mark.parametrize("batch_size", [100, 1])
async def test_swap_of_two_unique_values(
    make_manager: MakeManager,
    legacy_sql: Sql,
    new_sql: Sql,
    people_databases: Databases,
    *,
    phase: Phase,
    batch_size: int,
) -> None:
    """With batches of one the two keys of a swap never meet by chance."""
    manager = await make_manager(phase, batch_size=batch_size)

    async def add_three(work: UnitOfWork) -> None:
        for name in ("a", "b", "c"):
            await work.insert("person", {people.c.email: f"{name}@example.org"})

    await manager.write("add", add_three)
    assert await manager.relay().drain(timeout_seconds=10)
    sql, table, column = (
        (legacy_sql, "folk", "mail") if phase is Phase.DUALWRITE else (new_sql, "people", "email")
    )
    await sql(f"UPDATE {table} SET {column} = {column} || '~'")
    await sql(f"UPDATE {table} SET {column} = translate(left({column}, 1), 'abc', 'bca') || '@example.org'")
    assert await manager.relay().drain(timeout_seconds=20)
    rows = await assert_equal_sides(people_databases)
    assert sorted(str(row[1])[0] for row in rows) == ["a", "b", "c"]
    assert await manager.list_failures(limit=10) == []


@pytest.mark.invariant("I8")
async def test_two_keys_with_one_value_that_the_target_wants_unique_is_a_failure(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    manager = await make_manager(retry_attempts=2)
    await legacy_sql("ALTER TABLE folk DROP CONSTRAINT folk_mail_key")
    await legacy_sql("INSERT INTO folk (mail) VALUES ('same'), ('same'), ('other')")
    assert await manager.relay().drain(timeout_seconds=10)
    (failure,) = await manager.list_failures(limit=10)
    assert "people_email_key" in failure.error
    assert await _counts(people_databases) == (3, 2)


async def test_missing_parent_waits_and_counts_no_attempt(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    """The parent is refused, so the child has nothing to wait for but somebody's decision; it does not fail itself."""
    manager = await make_manager(retry_attempts=1)
    await legacy_sql("INSERT INTO folk (folk_no, mail, cents) VALUES (1, 'a', -1)")
    assert (await manager.relay().run_once()).failed == 1
    await legacy_sql("INSERT INTO notes (folk_no, body) VALUES (1, 'child')")
    done = await manager.relay().run_once()
    assert (done.waiting, done.failed) == (1, 0)
    await legacy_sql("UPDATE folk SET cents = 1")
    assert await manager.relay().drain(timeout_seconds=20)
    await assert_equal_sides(people_databases)
    assert await manager.list_failures(limit=10) == []


async def test_child_of_a_parent_that_is_nowhere_is_refused_and_goes_once_there_is_one(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    manager = await make_manager(retry_attempts=1)
    await legacy_sql("ALTER TABLE notes DROP CONSTRAINT notes_folk_no_fkey")
    await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (1, 'a')")
    await legacy_sql("INSERT INTO notes (folk_no, body) VALUES (99, 'orphan'), (1, 'child')")
    done = await manager.relay().run_once()
    assert (done.waiting, done.failed) == (0, 1)
    (failure,) = await manager.list_failures(limit=10)
    assert "the legacy side has none either: person [99]" in failure.error
    await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (99, 'b')")
    await manager.retry_failures()
    assert await manager.relay().drain(timeout_seconds=20)
    await assert_equal_sides(people_databases)
    assert await manager.list_failures(limit=10) == []


async def test_child_brings_the_parents_that_history_has_not_brought_yet(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    """No journal row speaks of the parents: they were there before capture was, and no backfill has copied them yet."""
    await legacy_sql("INSERT INTO folk (folk_no, mail) SELECT n, 'p' || n FROM generate_series(1, 9) AS n")
    manager = await make_manager(retry_attempts=1)
    await legacy_sql("INSERT INTO notes (folk_no, body) SELECT n, 'child' FROM generate_series(1, 9) AS n")
    done = await manager.relay().run_once()
    assert (done.carried, done.waiting, done.failed) == (18, 0, 0)
    assert len(await assert_equal_sides(people_databases)) == 9


async def test_child_of_another_batch_goes_after_its_parent_and_is_deleted_before_it(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    manager = await make_manager(batch_size=1)
    await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (1, 'a')")
    await legacy_sql("INSERT INTO notes (note_no, folk_no, body) VALUES (1, 1, 'child')")
    assert await manager.relay().drain(timeout_seconds=20)
    assert len(await assert_equal_sides(people_databases)) == 1
    await legacy_sql("DELETE FROM folk")
    assert await manager.relay().drain(timeout_seconds=20)
    assert await assert_equal_sides(people_databases) == []


@pytest.mark.invariant("I8")
async def test_secondary_down_for_an_hour_makes_nothing_failed(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    """An hour by the clock of the test: the journal's rows are made an hour old, a hundred passes find nobody there."""
    manager = await make_manager(retry_attempts=1, url={Side.NEW: people_databases.new_url})
    await legacy_sql("INSERT INTO folk (mail) SELECT n || '@example.org' FROM generate_series(1, 20) AS n")
    await legacy_sql("UPDATE tandem_people.journal SET captured_at = captured_at - interval '1 hour'")
    away = relay_to_nowhere(manager)
    for _ in range(100):
        with pytest.raises(TargetUnavailableError):
            await away.run_once()
    status = await manager.status()
    assert (status.failures_open, status.journal_rows) == (0, 20)
    assert 3600 <= status.lag_seconds < 3700
    assert await manager.relay().drain(timeout_seconds=20)
    assert len(await assert_equal_sides(people_databases)) == 20


def relay_to_nowhere(manager: PeopleManager) -> Relay:
    """A relay whose target does not answer: nothing listens at port 1."""
    runtime = manager.runtime
    nowhere = create_side_engine("postgresql://nobody:x@127.0.0.1:1/nothing", application_name="test")
    return Relay(
        source=runtime.stores[Side.LEGACY],
        target=PostgresSide(nowhere, Side.NEW, names=runtime.names, catalog=runtime.catalog),
        service=runtime.service,
        catalog=runtime.catalog,
        direction=Direction.TO_NEW,
        settings=lambda: RelaySettings(retry_attempts=1),
    )


async def _counts(databases: Databases) -> tuple[int, int]:
    legacy, new = Sql(databases.legacy_url), Sql(databases.new_url)
    return len(await legacy("SELECT FROM folk")), len(await new("SELECT FROM people"))
