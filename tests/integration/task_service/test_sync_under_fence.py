"""What a relay tells the rows of the side that a cutover is closing."""

from __future__ import annotations

import asyncio

import asyncpg

from backend.shared import Direction, Phase
from tests.integration.task_service.conftest import MakePair


async def test_rows_are_told_while_a_cutover_holds_the_fence_lock(make_pair: MakePair) -> None:
    """It waits for the journal to be empty: whoever ends the rows must not wait for it."""
    pair = await make_pair(Phase.LIVE)
    await pair.sql(
        "INSERT INTO users (mongo_id, email_id) VALUES ('00000000000000000000000a', 'ann@example.org')"
    )
    names = pair.manager.runtime.names
    holder = await asyncpg.connect(pair.sql.url)
    try:
        async with holder.transaction():
            await holder.execute(f"SELECT pg_advisory_xact_lock({names.fence_lock})")
            done = await asyncio.wait_for(pair.manager.runtime.relays[Direction.TO_LEGACY].run_once(), 2)
            assert done.carried == 1
            assert await holder.fetchval(f"SELECT count(*) FROM {names.journal}") == 0
    finally:
        await holder.close()
    (row,) = await pair.sql("SELECT sync_status FROM users")
    assert row["sync_status"] == "SYNCED"
