"""Starting the service, and its migrations."""

from __future__ import annotations

import asyncio
import sys

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from backend.product_service.app.models import METADATA
from backend.product_service.app.schema_version import check_schema_version
from backend.shared import InstallationError, Phase
from backend.shared.database import create_side_engine
from backend.shared.testing.clusters import Cluster, Databases
from backend.shared.testing.ports import free_port
from tests.conftest import MakeDatabase
from tests.integration.product_service.conftest import ALEMBIC_INI, ROOT, MakeShop
from tests.integration.product_service.support import run_sql

SECRET = "s3cr3t"


async def run(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run a Python module to its end; answers exit code and stderr."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        env={"PATH": "", **variables},
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(40):
        _, complaint = await child.communicate()
    return child.returncode or 0, complaint.decode()


async def serve(**variables: str) -> tuple[int, str]:
    factory = "backend.product_service.app.main:create_app"
    return await run("uvicorn", "--factory", factory, "--port", str(free_port()), **variables)


async def alembic(*arguments: str, **variables: str) -> tuple[int, str]:
    return await run("alembic", "-c", str(ALEMBIC_INI), *arguments, **variables)


async def test_what_keeps_the_service_from_starting_is_one_line(databases: Databases) -> None:
    urls = {"LEGACY_DATABASE_URL": databases.legacy_url, "PRODUCT_DATABASE_URL": databases.new_url}
    closed = f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/gone"
    cases: list[tuple[dict[str, str], str]] = [
        ({}, "DATABASE_URL"),
        (urls | {"PRODUCT_DATABASE_URL": f"mysql://me:{SECRET}@x/y"}, "DATABASE_URL"),
        (urls | {"LEGACY_DATABASE_URL": closed}, "LEGACY_DATABASE_URL"),
        (urls | {"PRODUCT_DATABASE_URL": closed}, "DATABASE_URL"),
        (urls | {"PRODUCT_DUAL_WRITE_PHASE": "sideways"}, "PRODUCT_DUAL_WRITE_PHASE"),
        (urls | {"PRODUCT_DUAL_WRITE_FASE": "off"}, "PRODUCT_DUAL_WRITE_FASE"),
        (urls | {"DUAL_WRITE_SYNC_INTERVAL": "-1"}, "DUAL_WRITE_SYNC_INTERVAL"),
        (urls | {"PRODUCT_RUN_RELAY": "perhaps"}, "PRODUCT_RUN_RELAY"),
        (urls | {"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        (urls | {"AUTH_PUBLIC_KEY_FILE": "/nowhere/key.pem"}, "/nowhere/key.pem"),
        (urls, "not installed"),
    ]
    for variables, told in cases:
        code, complaint = await serve(**variables)
        assert code == 2, (variables, complaint)
        assert told in complaint, (variables, complaint)
        assert complaint.count("\n") == 1, complaint
        assert SECRET not in complaint


async def test_a_missing_migration_keeps_the_service_from_starting(make_shop: MakeShop) -> None:
    shop = await make_shop(Phase.DUALWRITE)
    await check_schema_version(shop.manager.new_engine)
    await shop.new("UPDATE alembic_version SET version_num = '9999_from_the_future'")
    await check_schema_version(shop.manager.new_engine)
    await shop.new("DELETE FROM alembic_version")
    with pytest.raises(InstallationError, match=r"PRODUCT_DATABASE_URL: .*needs 0\d{3}_"):
        await check_schema_version(shop.manager.new_engine)


async def test_migrations_go_up_and_down_and_up(
    services_cluster: Cluster, make_database: MakeDatabase
) -> None:
    url = await make_database(services_cluster)
    for step in (("upgrade", "+1"), ("downgrade", "-1"), ("upgrade", "head"), ("upgrade", "head")):
        code, complaint = await alembic(*step, PRODUCT_DATABASE_URL=url)
        assert code == 0, complaint


async def test_migrated_tables_are_the_declared_ones(databases: Databases) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {
            "compare_type": True,
            # The comparison does not see collations; what this index is like is looked at below.
            "include_object": lambda _item, name, *_: name != "products_name_id_idx",
        }
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, METADATA))

    engine = create_side_engine(databases.new_url, application_name="test")
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
        assert found == [], "\n".join(map(repr, found))
    await engine.dispose()
    constraints = await run_sql(
        databases.new_url,
        "SELECT conname::text FROM pg_constraint WHERE condeferrable AND NOT condeferred ORDER BY 1",
    )
    assert [name for (name,) in constraints] == [
        "categories_parent_id_fkey",
        "categories_parent_id_name_key",
        "products_category_id_fkey",
        "products_sku_key",
    ]
    (index,) = await run_sql(
        databases.new_url, "SELECT indexdef FROM pg_indexes WHERE indexname = 'products_name_id_idx'"
    )
    assert index[0].endswith("""(COALESCE(name, ''::text) COLLATE "C", id)""")
    assert await run_sql(
        databases.new_url,
        "SELECT attname::text, attidentity FROM pg_attribute WHERE attidentity <> '' ORDER BY attrelid::regclass::text",
    ) == [("id", b"d"), ("id", b"d")]


async def test_a_migration_that_cannot_run_says_why(databases: Databases) -> None:
    closed = f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/gone"
    for variables, told in (({}, "PRODUCT_DATABASE_URL"), ({"DATABASE_URL": closed}, "DATABASE_URL")):
        code, complaint = await alembic("upgrade", "head", **variables)
        assert code == 2, complaint
        assert told in complaint
        assert complaint.count("\n") == 1
        assert SECRET not in complaint


async def test_a_migration_does_not_wait_for_its_lock_for_long(databases: Databases) -> None:
    busy = await asyncpg.connect(databases.new_url)
    async with busy.transaction():
        await busy.execute("LOCK TABLE products IN ACCESS SHARE MODE")
        code, complaint = await alembic("downgrade", "base", PRODUCT_DATABASE_URL=databases.new_url)
    await busy.close()
    assert code == 2, complaint
    assert "lock timeout" in complaint
    assert await run_sql(databases.new_url, "SELECT count(*) FROM products") == [(0,)]
