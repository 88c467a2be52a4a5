"""A backfill goes through keys of all kinds, each in an order that an index has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from backend.shared import DualWriteSettings, Phase
from backend.shared.migration import backfill as backfill_module
from backend.shared.migration.backfill import Backfill
from backend.shared.migration.range_sql import EntityRanges, ranges_of
from backend.shared.observability.labels import Verdict
from backend.shared.observability.metrics import Metrics
from backend.shared.sync_validator import SyncValidator
from backend.shared.testing.clusters import Databases
from tests.support.backfilling import FOLK, small
from tests.support.fixtures import MakeManager, Sql
from tests.support.keyed import DDL, SLOTS, TAGS, TOKENS, KeyedManager
from tests.support.people import create_tables
from tests.support.state import assert_equal_sides


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
