"""What a backfill does with keys, values and limits of all kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import ARRAY, Boolean, Column, DateTime, Integer, MetaData, Table, Text, select
from sqlalchemy.types import TypeEngine

from backend.shared import (
    DualWriteManager,
    DualWriteSettings,
    EntityMapping,
    Key,
    KeyPart,
    Phase,
    Projection,
    Source,
    UnitOfWork,
)
from backend.shared.domain.errors import ConfigurationError, ConflictError, FencedError, InstallationError
from backend.shared.migration import backfill as backfill_module
from backend.shared.migration.backfill import Backfill, BackfillStatus
from backend.shared.migration.backfill_state import BackfillLimits, EntityProgress
from backend.shared.migration.chunk_copy import _pieces, _unless_lost
from backend.shared.migration.range_sql import EntityRanges, ranges_of
from backend.shared.observability.labels import Verdict
from backend.shared.observability.metrics import Metrics
from backend.shared.sync_validator import SyncValidator
from backend.shared.testing.clusters import Databases
from tests.integration.test_carry_fidelity import SAMPLES, ThingManager, sides
from tests.integration.test_validator_functions import Sides as CodedSides
from tests.integration.test_validator_functions import coded
from tests.support.fixtures import MakeManager, Sql
from tests.support.keyed import DDL, SLOTS, TAGS, TOKENS, KeyedManager
from tests.support.people import create_tables
from tests.support.state import assert_equal_sides

__all__ = ["coded", "sides"]  # fixtures

FOLK = "INSERT INTO folk (folk_no, mail, cents) SELECT n, 'p' || n, n FROM generate_series(1, {rows}) AS n"


def small(manager: DualWriteManager) -> Backfill:
    return Backfill(manager.runtime, chunk_seconds=0.01, first_chunk_rows=16)


def progress_of(work_status: BackfillStatus, entity: str) -> EntityProgress:
    return next(item.progress for item in work_status.entities if item.progress.entity == entity)


@pytest.fixture
async def keyed(databases: Databases) -> AsyncIterator[KeyedManager]:
    await create_tables(databases.legacy_url, DDL["legacy"])
    await create_tables(databases.new_url, DDL["new"])
    manager = KeyedManager(
        databases.new_url,
        databases.legacy_url,
        DualWriteSettings(service="keyed", phase=Phase.DUALWRITE),
        metrics=Metrics(CollectorRegistry()),
    )
    await manager.install()
    await manager.start()
    yield manager
    await manager.close()


@pytest.fixture
def old(databases: Databases) -> Sql:
    return Sql(databases.legacy_url)


@pytest.fixture
def new(databases: Databases) -> Sql:
    return Sql(databases.new_url)


async def test_keys_of_all_kinds_page_by_their_own_order(keyed: KeyedManager, old: Sql, new: Sql) -> None:
    for fill in (TAGS, TOKENS, SLOTS):
        await old(fill.format(rows=500))
    await old("DELETE FROM tandem_keyed.journal")
    found = await small(keyed).run()
    assert found.is_complete
    assert [item.progress.rows_copied for item in found.entities] == [500, 500, 500]
    for table in ("tags", "tokens", "slots"):
        assert await new(f"SELECT * FROM {table} ORDER BY n") == await old(
            f"SELECT * FROM {table}_old ORDER BY n"
        )


async def test_text_that_servers_sort_in_their_own_ways_is_paged_by_the_sources_index(
    keyed: KeyedManager,
) -> None:
    runtime = keyed.runtime
    plans: dict[str, tuple[bool, str]] = {}
    for entity in runtime.catalog.ordered:
        direction = Backfill(runtime).direction
        async with (
            runtime.engines[direction.source].connect() as source,
            runtime.engines[direction.target].connect() as target,
        ):
            ranges = await ranges_of(source, target, entity, direction)
            await source.exec_driver_sql("SET enable_seqscan = off")
            await source.exec_driver_sql("SET enable_sort = off")
            key = {"tag": '["B7"]', "token": '["00000000-0000-0000-0000-000000000001"]', "slot": '[3, "c4"]'}
            rows = await source.exec_driver_sql("EXPLAIN " + ranges.bound(lower=True), (10, key[entity.name]))
            plans[entity.name] = (ranges.exact, "\n".join(row[0] for row in rows))
    assert {name: exact for name, (exact, _) in plans.items()} == {"tag": False, "token": True, "slot": True}
    for name, (_, plan) in plans.items():
        assert "Index Cond" in plan, f"{name} is paged without its index:\n{plan}"
        assert "Sort" not in plan, plan


async def test_run_again_removes_what_the_source_no_longer_has(
    keyed: KeyedManager, old: Sql, new: Sql
) -> None:
    for fill in (TAGS, TOKENS, SLOTS):
        await old(fill.format(rows=100))
    await old("DELETE FROM tandem_keyed.journal")
    await small(keyed).run()
    await new("INSERT INTO tags VALUES ('zombie', 0)")
    await new("INSERT INTO tokens VALUES (gen_random_uuid(), 0)")
    await new("INSERT INTO slots VALUES (3, 'zombie', 0)")
    await new("UPDATE slots SET n = -1 WHERE code = 'c50'")
    found = await small(keyed).run()
    assert found.is_complete
    assert [item.progress.keys_removed for item in found.entities] == [1, 1, 1]
    assert (await SyncValidator(keyed.runtime).run()).verdict is Verdict.EQUAL


async def test_every_type_is_copied_to_the_byte(
    sides: tuple[asyncpg.Connection, asyncpg.Connection, ThingManager],
) -> None:
    left, right, manager = sides
    for number, sample in enumerate(SAMPLES):
        await left.execute(f"INSERT INTO things (id) VALUES ({number})")
        await left.execute(f"UPDATE things SET {sample} WHERE id = {number}")
    for _ in range(2):  # straight, and merged with what is there
        assert (await small(manager).run()).is_complete
        images = [
            [row[0] for row in await connection.fetch(f"SELECT {table}::text FROM {table} ORDER BY id")]
            for connection, table in ((left, "things"), (right, "items"))
        ]
        assert images[1] == images[0]
        await right.execute("UPDATE items SET t = 'wrong', f8 = 1, jb = NULL")


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


async def test_rows_that_python_makes(coded: CodedSides) -> None:
    """Keys are carried as the relay does it, in the same chunks."""
    manager, left, right = coded
    await left.execute("INSERT INTO coded SELECT n, 'l' || n || '|' || n FROM generate_series(401, 440) AS n")
    await left.execute("INSERT INTO coded VALUES (441)")
    await left.execute("DELETE FROM tandem_coded.journal")
    await right.execute("INSERT INTO decoded VALUES (999, 'zombie', 1)")
    found = await small(manager).run()
    assert found.is_complete
    assert found.entities[0].progress.keys_removed == 1
    assert (await SyncValidator(manager.runtime).run()).verdict is Verdict.EQUAL


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


@pytest.mark.parametrize(
    "limits",
    [
        {"max_rows_per_second": -1.0},
        {"max_lag_seconds": -1.0},
        {"max_connection_share": 1.5},
        {"workers": 0},
        {"workers": 65},
    ],
)
def test_limits_that_cannot_be(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        BackfillLimits().changed(limits)


async def test_lag_connections_and_pause_hold_it_and_it_says_so(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    """One after the other, each told while it runs."""
    await legacy_sql(FOLK.format(rows=50))
    manager = await make_manager()
    await legacy_sql(
        "INSERT INTO tandem_people.journal (entity, key, captured_at) VALUES ('person', '[1]', now() - interval '1 minute')"
    )
    work = small(manager)
    await work.tell(limits=BackfillLimits(max_lag_seconds=10))
    running = asyncio.create_task(work.run())

    async def held_by(word: str) -> None:
        async with asyncio.timeout(20):
            while word not in ((await work.status()).control.held_by or ""):
                assert not running.done()
                await asyncio.sleep(0.02)

    await held_by("relay lag")
    await work.tell(limits=BackfillLimits(max_lag_seconds=None, max_connection_share=0.001))
    await held_by("connections")
    await work.tell(paused=True, limits=BackfillLimits())
    await held_by("paused")
    assert progress_of(await work.status(), "person").rows_copied == 0
    await manager.relay().drain(timeout_seconds=10)
    await work.tell(paused=False)
    assert (await asyncio.wait_for(running, 20)).is_complete
    await assert_equal_sides(people_databases)


async def test_an_outage_holds_it_and_does_not_end_it(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases, new_sql: Sql
) -> None:
    await legacy_sql(FOLK.format(rows=50))
    manager = await make_manager()
    cut = False

    async def hook(step: str) -> None:
        nonlocal cut
        if step == "backfill_before_commit" and not cut:
            cut = True
            await new_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    work = Backfill(manager.runtime, first_chunk_rows=16, hook=hook)
    assert (await asyncio.wait_for(work.run(), 30)).is_complete
    assert cut
    await assert_equal_sides(people_databases)


async def test_further_tables_lose_what_the_source_no_longer_has_where_ranges_mean_nothing(
    make_manager: MakeManager,
    legacy_sql: Sql,
    people_databases: Databases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def inexact(*arguments: Any) -> EntityRanges:
        return replace(await ranges_of(*arguments), exact=False)

    monkeypatch.setattr(backfill_module, "ranges_of", inexact)
    await legacy_sql(FOLK.format(rows=20))
    await legacy_sql("INSERT INTO folk_extra SELECT n, 'Ulm' FROM generate_series(1, 20) AS n")
    manager = await make_manager()
    assert (await small(manager).run()).is_complete
    await legacy_sql("DELETE FROM folk_extra WHERE folk_no < 5; ")
    await legacy_sql("DELETE FROM folk WHERE folk_no = 20")
    await legacy_sql("DELETE FROM tandem_people.journal")
    assert (await small(manager).run()).is_complete
    await assert_equal_sides(people_databases)


async def test_values_whose_text_in_copy_is_not_that_of_a_carry_go_by_keys(databases: Databases) -> None:
    """A flag, a time and an array become text on the other side: as JSON has them, whoever carries."""
    manager = as_text_manager(databases)
    await create_tables(
        databases.legacy_url,
        "CREATE TABLE typed (id integer PRIMARY KEY, flag boolean, at timestamptz, list integer[]);"
        "INSERT INTO typed VALUES (1, true, '2024-01-01 10:00:00+00', '{1,2}'), (2, NULL, NULL, NULL)",
    )
    await create_tables(
        databases.new_url, "CREATE TABLE texts (id integer PRIMARY KEY, flag text, at text, list text)"
    )
    try:
        await manager.install()
        await manager.start()
        assert (await small(manager).run()).is_complete
        new = Sql(databases.new_url)
        copied = await new("SELECT * FROM texts ORDER BY id")
        await Sql(databases.legacy_url)("UPDATE typed SET id = id")
        await manager.relay().drain(timeout_seconds=10)
        assert await new("SELECT * FROM texts ORDER BY id") == copied
        assert copied[0]["flag"] == "true"
    finally:
        await manager.close()


def as_text_manager(databases: Databases) -> DualWriteManager:
    def table(name: str, *types: TypeEngine[Any]) -> Table:
        columns = [Column(column, kind) for column, kind in zip(("flag", "at", "list"), types, strict=True)]
        return Table(name, MetaData(), Column("id", Integer, primary_key=True), *columns)

    typed = table("typed", Boolean(), DateTime(timezone=True), ARRAY(Integer()))
    texts = table("texts", Text(), Text(), Text())
    entity = EntityMapping(
        name="typed",
        key=(KeyPart(name="id", type=Integer()),),
        to_new=(Projection(table=texts, key=("id",), query=select(*typed.c)),),
        to_legacy=(Projection(table=typed, key=("id",), query=select(*texts.c)),),
        legacy_sources=(Source(table=typed, keys=("id",)),),
        new_sources=(Source(table=texts, keys=("id",)),),
    )

    class TextManager(DualWriteManager):
        service = "as_text"

        @classmethod
        def entities(cls) -> Sequence[EntityMapping]:
            return (entity,)

        async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
            raise NotImplementedError

    return TextManager(
        databases.new_url,
        databases.legacy_url,
        DualWriteSettings(service="as_text", phase=Phase.DUALWRITE),
        metrics=Metrics(CollectorRegistry()),
    )


async def test_a_consumer_that_leaves_ends_the_stream() -> None:
    """The queue is full when the target is the slower one: ending must not wait for room in it."""

    class Endless:
        async def copy_from_query(self, _query: str, *, output: Any, **_: Any) -> None:
            while True:
                await output(b"piece")

    async with asyncio.timeout(5):
        async with _pieces(Endless(), "SELECT", "binary") as pieces:
            await anext(pieces)
            await asyncio.sleep(0)  # the reader fills the queue meanwhile


async def test_a_lost_connection_ends_the_copy_into_it() -> None:
    class Lost:
        def add_termination_listener(self, note: Any) -> None:
            asyncio.get_running_loop().call_soon(note, self)

        def remove_termination_listener(self, note: Any) -> None:
            pass

    async def stuck() -> str:
        await asyncio.Event().wait()
        return "COPY 0"

    async with asyncio.timeout(5):
        with pytest.raises(ConnectionResetError):
            await _unless_lost(Lost(), stuck())
