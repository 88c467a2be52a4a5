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

from backend.shared.database import create_side_engine
from backend.shared.testing.clusters import Cluster
from backend.task_service.app.models import METADATA
from tests.conftest import MakeDatabase
from tests.integration.task_service.conftest import alembic_config

_CONSTRAINTS = (
    "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace AND contype <> 'n' "
    "AND conrelid <> coalesce(to_regclass('alembic_version'), 0) ORDER BY 1"
)
_INDEXES = (
    "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public' "
    "AND tablename <> 'alembic_version' ORDER BY 1"
)


async def _fetch(url: str, statement: str, *arguments: object) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *arguments)]
    finally:
        await connection.close()


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
    migrated = await make_database(services_cluster, template=new_template)
    engine = create_side_engine(migrated, application_name="test")
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()
    declared = await make_database(services_cluster)
    engine = create_side_engine(declared, application_name="test")
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    await engine.dispose()
    for statement in (_CONSTRAINTS, _INDEXES):
        assert await _fetch(migrated, statement) == await _fetch(declared, statement)


def _differences(connection: Connection) -> list[object]:
    return list(
        compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA)
    )


async def test_the_new_side_refuses_what_must_not_be(
    services_cluster: Cluster, make_database: MakeDatabase, new_template: str
) -> None:
    url = await make_database(services_cluster, template=new_template)
    user = "INSERT INTO users (mongo_id, email_id) VALUES ($1, $2)"
    await _fetch(url, user, "a" * 24, "ann@example.com")
    assert await _fetch(url, "SELECT sync_status, extra FROM users") == [("SYNCED", "{}")]
    for mongo_id, email in (("A" * 24, "b"), ("a" * 23, "b"), ("b" * 24, "x" * 2001)):
        with pytest.raises(asyncpg.CheckViolationError):
            await _fetch(url, user, mongo_id, email)
    with pytest.raises(asyncpg.UniqueViolationError):
        await _fetch(url, user, "b" * 24, "ann@example.com")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await _fetch(url, "INSERT INTO watchlists (mongo_id, name, user_id) VALUES ($1, '', $1)", "c" * 24)
