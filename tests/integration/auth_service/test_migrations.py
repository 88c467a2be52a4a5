"""The service's own schema: made, unmade, and the same as the tables that the code speaks of."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from backend.auth_service.app.core.dual_write_manager import AuthDualWriteManager
from backend.auth_service.app.models import METADATA
from backend.shared import InstallationError
from backend.shared.database import create_side_engine
from backend.shared.schema_version import check_schema_version
from backend.shared.testing.clusters import Cluster
from tests.conftest import MakeDatabase
from tests.integration.auth_service.support import ALEMBIC_INI, NO_STACK, alembic_config, migrate, run_sql

TABLES = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"


@pytest.fixture
async def url(services_cluster: Cluster, make_database: MakeDatabase) -> str:
    return await make_database(services_cluster)


async def test_every_step_up_can_be_taken_down_and_up_again(url: str) -> None:
    config = alembic_config(url)
    steps = list(reversed([step.revision for step in ScriptDirectory.from_config(config).walk_revisions()]))
    for number, step in enumerate(steps):
        await asyncio.to_thread(command.upgrade, config, step)
        below = steps[number - 1] if number else "base"
        await asyncio.to_thread(command.downgrade, config, below)
        await asyncio.to_thread(command.upgrade, config, step)
    await asyncio.to_thread(command.downgrade, config, "base")
    assert [row["table_name"] for row in await run_sql(url, TABLES)] == ["alembic_version"]


async def test_the_migrated_schema_is_the_declared_one(url: str) -> None:
    await migrate(url)

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, METADATA))

    engine = create_side_engine(url, application_name="test")
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
    constraints = await run_sql(
        url,
        "SELECT conname::text, condeferrable FROM pg_constraint WHERE contype IN ('u', 'c') "
        "AND connamespace = 'public'::regnamespace ORDER BY 1",
    )
    assert [tuple(row.values()) for row in constraints] == [
        ("outbox_lease_ck", False),
        ("refresh_tokens_token_hash_key", False),
        ("users_email_key", True),
        ("users_role_check", False),
    ]


async def test_a_missing_migration_is_told_and_a_newer_one_will_do(url: str) -> None:
    engine = create_side_engine(url, application_name="test")
    with pytest.raises(InstallationError, match=r"AUTH_DATABASE_URL.*at migration none.*alembic"):
        await check_schema_version(engine, service="auth", migrations=AuthDualWriteManager.migrations)
    await migrate(url)
    await check_schema_version(engine, service="auth", migrations=AuthDualWriteManager.migrations)
    await run_sql(url, "UPDATE alembic_version SET version_num = '9999_of_next_year'")
    await check_schema_version(engine, service="auth", migrations=AuthDualWriteManager.migrations)
    await engine.dispose()


async def test_the_command_line_migrates_what_the_environment_names(url: str) -> None:
    environment = {**os.environ, "AUTH_DATABASE_URL": url}
    assert await _alembic(environment) == (0, "")
    assert len(await run_sql(url, TABLES)) == 9
    assert await _alembic(environment) == (0, "")


@pytest.mark.parametrize(
    ("database", "said"),
    [
        ("mysql://root:hunter2@localhost/x", "AUTH_DATABASE_URL: 'mysql' is no kind of database"),
        ("postgresql://root:hunter2@127.0.0.1:1/x", "AUTH_DATABASE_URL: not reachable"),
    ],
)
async def test_a_wrong_url_is_one_line_without_password(database: str, said: str) -> None:
    environment = {**os.environ, "AUTH_DATABASE_URL": database, "DATABASE_URL": ""}
    code, errors = await _alembic(environment)
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert said in errors
    assert "hunter2" not in errors


async def test_a_migration_does_not_wait_for_its_lock_for_long(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(url)
    holder = await asyncpg.connect(url)
    async with asyncio.timeout(30), holder.transaction():
        await holder.execute("LOCK TABLE users IN ACCESS SHARE MODE")
        with pytest.raises(Exception, match="lock timeout"):
            await asyncio.to_thread(command.downgrade, alembic_config(url), "base")
    await holder.close()
    assert len(await run_sql(url, TABLES)) == 4


async def _alembic(environment: dict[str, str]) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", "-c", str(ALEMBIC_INI), "upgrade", "head"),
        cwd=NO_STACK,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await child.communicate()
    assert child.returncode is not None
    return child.returncode, errors.decode()
