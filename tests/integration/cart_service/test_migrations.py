"""The migrations lead to the declared tables, up and down again."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from backend.cart_service.app.models import METADATA
from backend.shared.database import create_side_engine
from backend.shared.domain.errors import ConfigurationError
from backend.shared.testing.clusters import Cluster
from tests.conftest import MakeDatabase
from tests.integration.cart_service.conftest import alembic_config, migrate
from tests.integration.cart_service.support import run_sql


async def test_each_step_goes_up_and_down_and_up(
    services_cluster: Cluster, make_database: MakeDatabase
) -> None:
    url = await make_database(services_cluster)
    config = alembic_config(url)
    for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
        await asyncio.to_thread(command.upgrade, config, script.revision)
        await asyncio.to_thread(command.downgrade, config, str(script.down_revision or "base"))
        await asyncio.to_thread(command.upgrade, config, script.revision)


async def test_the_migrated_tables_are_the_declared_ones(
    services_cluster: Cluster, make_database: MakeDatabase, new_template: str
) -> None:
    url = await make_database(services_cluster, template=new_template)
    engine = create_side_engine(url, application_name="test")
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()
    (index,) = await run_sql(url, "SELECT indexdef FROM pg_indexes WHERE indexname = 'carts_open_user_key'")
    assert index[0].endswith("(user_id) WHERE (status = 'open'::text)")
    deferrable = "SELECT condeferrable FROM pg_constraint WHERE conname = 'wish_items_user_id_product_id_key'"
    assert await run_sql(url, deferrable) == [(True,)]


def _differences(connection: Connection) -> list[object]:
    return list(
        compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA)
    )


async def test_the_new_side_refuses_what_must_not_be(
    services_cluster: Cluster, make_database: MakeDatabase, new_template: str
) -> None:
    url = await make_database(services_cluster, template=new_template)
    insert = "INSERT INTO carts (user_id, status, created_at) VALUES ($1, $2, now())"
    await run_sql(url, insert, "ann", "open")
    await run_sql(url, insert, "ann", "closed")
    await run_sql(url, insert, None, "open")
    await run_sql(url, insert, None, "open")
    with pytest.raises(asyncpg.UniqueViolationError):
        await run_sql(url, insert, "ann", "open")
    with pytest.raises(asyncpg.CheckViolationError):
        await run_sql(url, insert, "bob", "lost")


async def test_a_migration_does_not_wait_for_a_lock_for_long(
    services_cluster: Cluster, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await make_database(services_cluster)
    await migrate(url)
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE carts")
            with pytest.raises(ConfigurationError, match="lock timeout"):
                async with asyncio.timeout(20):
                    await asyncio.to_thread(command.downgrade, alembic_config(url), "base")
    finally:
        await connection.close()
    assert await run_sql(url, "SELECT version_num FROM alembic_version") == [("0001_initial",)]
