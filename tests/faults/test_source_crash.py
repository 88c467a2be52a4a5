"""The server of the source dies, and gives transaction numbers out again that a guard has counted (I3, I7)."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from backend.shared.testing.clusters import Cluster, Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.state import assert_equal_sides
from tests.support.steps import PauseAt

LOST_TRANSACTIONS = 200


@pytest.mark.invariant("I3")
async def test_i3_numbers_lost_in_a_crash_of_the_source_do_not_stop_later_changes(
    make_manager: MakeManager, people_databases: Databases, legacy_cluster: Cluster, legacy_sql: Sql
) -> None:
    """Transactions that left nothing on disk stand below the snapshot's xmax; the crash takes their numbers back."""
    pause = PauseAt("after_target_commit")
    manager = await make_manager(hook=pause)
    await legacy_sql("INSERT INTO folk (folk_no, mail, nm) VALUES (1, 'x', 'A')")
    await legacy_sql("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await legacy_sql("SELECT pg_reload_conf()")
    connection = await asyncpg.connect(people_databases.legacy_url)
    for _ in range(LOST_TRANSACTIONS):
        await connection.execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK")
    await connection.close()
    carrying = asyncio.ensure_future(manager.relay().run_once())
    await pause.reached.wait()
    legacy_cluster.kill9()
    legacy_cluster.start()
    pause.resume.set()
    await asyncio.gather(carrying, return_exceptions=True)
    await legacy_sql("ALTER SYSTEM RESET wal_writer_delay")
    await legacy_sql("SELECT pg_reload_conf()")
    await legacy_sql("UPDATE folk SET nm = 'B'")
    fresh = await make_manager()
    assert await fresh.relay().drain(timeout_seconds=20)
    (row,) = await assert_equal_sides(people_databases)
    assert row[2] == "B"
