"""How processes learn of a change: at once where LISTEN works, within a second where it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import asyncpg
import pytest

from backend.shared import Phase, Side
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.phases import SLOW_GATES, controller

FORCE = [*SLOW_GATES, "backfill", "replicas"]


async def seconds_until(true: Callable[[], bool], *, most: float) -> float:
    began = time.monotonic()
    async with asyncio.timeout(most):
        while not true():  # noqa: ASYNC110 - what is measured is when it becomes true
            await asyncio.sleep(0.005)
    return time.monotonic() - began


async def test_where_listen_works_a_change_is_heard_of_at_once(
    make_manager: MakeManager, new_sql: Sql, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the reading each second, so that only the notice can have told."""
    monkeypatch.setattr("backend.shared.runtime.REFRESH_SECONDS", 3600.0)
    operator, replica = await make_manager(Phase.DUALWRITE), await make_manager(Phase.DUALWRITE)
    await seconds_until(lambda: replica.runtime.following.control.version > 0, most=5)
    listening = (
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND application_name LIKE 'tandem_people%'"
    )
    await new_sql.until(f"SELECT 1 FROM ({listening}) AS heard HAVING count(*) >= 2")  # both processes
    await controller(operator).change(Phase.SHADOW, force=FORCE, reason="a test")
    await seconds_until(lambda: replica.phase is Phase.SHADOW, most=5)
    await operator.change_config({"batch_size": 7})
    await seconds_until(lambda: replica.settings.batch_size == 7, most=5)


async def test_through_pgbouncer_a_change_is_heard_of_within_about_a_second(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    through = {Side.NEW: people_databases.new_url + "?pgbouncer=true"}
    operator = await make_manager(Phase.DUALWRITE)
    replica = await make_manager(Phase.DUALWRITE, url=through)
    await operator.change_config({"batch_size": 7})
    assert await seconds_until(lambda: replica.settings.batch_size == 7, most=10) < 5
    await controller(operator).change(Phase.SHADOW, force=FORCE, reason="a test")
    await seconds_until(lambda: replica.phase is Phase.SHADOW, most=10)


async def test_a_process_that_ends_is_waited_for_by_nobody(make_manager: MakeManager, new_sql: Sql) -> None:
    operator, replica = await make_manager(Phase.DUALWRITE), await make_manager(Phase.DUALWRITE)
    live = await operator.runtime.replicas.live()
    assert {item.id for item in live} == {
        manager.runtime.following.replica_id for manager in (operator, replica)
    }
    await replica.close()
    assert len(await operator.runtime.replicas.live()) == 1
    # One that was killed says nothing: its lease runs out.
    await new_sql("UPDATE tandem_people.replica SET seen_at = seen_at - interval '6 s'")
    await operator.runtime.following.follow()
    assert [item.id for item in await operator.runtime.replicas.live()] == [
        operator.runtime.following.replica_id
    ]


async def test_a_reading_under_way_ends_with_the_process(make_manager: MakeManager, new_sql: Sql) -> None:
    """Its connection would come back to a pool that is gone, and stay open for as long as nobody collects it."""
    replica = await make_manager(Phase.DUALWRITE)
    connected = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'tandem%people%'"
    holder = await asyncpg.connect(new_sql.url)
    try:
        async with holder.transaction():
            await holder.execute(f"LOCK TABLE {replica.runtime.names.schema}.control")
            asker = asyncio.ensure_future(replica.runtime.following.refresh())
            await new_sql.until(connected + " AND wait_event_type = 'Lock'")
            asker.cancel()
            closing = asyncio.ensure_future(replica.close())
            await new_sql.until(connected, found=False)
            await closing
    finally:
        await holder.close()
