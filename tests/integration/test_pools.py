"""Pools of connections to a side."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.database import create_side_engine, distrust_pool
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import Sql


async def process_of(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def test_after_a_loss_no_connection_is_lent_again_and_none_is_stranded(
    people_databases: Databases, new_sql: Sql
) -> None:
    engine = create_side_engine(people_databases.new_url, application_name="lender")
    async with engine.connect() as lent:
        async with engine.connect() as idle:
            before = {await process_of(idle), await process_of(lent)}
        distrust_pool(engine)
        async with engine.connect() as fresh:
            assert await process_of(fresh) not in before
        assert await process_of(lent) in before  # whoever has one goes on with it
    async with engine.connect() as one, engine.connect() as two:
        assert not before & {await process_of(one), await process_of(two)}
        kept = {await process_of(one), await process_of(two)}
    async with engine.connect() as one, engine.connect() as two:
        assert kept == {await process_of(one), await process_of(two)}
    await engine.dispose()
    await new_sql.until("SELECT 1 FROM pg_stat_activity WHERE application_name = 'lender'", found=False)
