"""Starting the service, and its migrations."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import alembic.command
import asyncpg
import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from backend.product_service.app.core.settings import ProductSettings
from backend.product_service.app.main import make_app
from backend.product_service.app.models import METADATA
from backend.shared import ConfigurationError, InstallationError, Phase
from backend.shared.database import create_side_engine
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from backend.shared.testing.ports import free_port
from tests.conftest import MakeDatabase
from tests.integration.product_service.conftest import ALEMBIC_INI, MakeShop
from tests.integration.product_service.support import Api, assert_problem, run_sql

SECRET = "s3cr3t"


async def run(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run a Python module to its end, in a folder where no stack has left its variables; answers exit code and stderr."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        env={"PATH": "", **variables},
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(50):
            _, complaint = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, complaint.decode()


def assert_one_line(ended: tuple[int, str], told: str) -> None:
    """Exit code 2 and one line that names `told`, and no password."""
    code, complaint = ended
    assert code == 2, complaint
    assert told in complaint
    assert complaint.count("\n") == 1, complaint
    assert SECRET not in complaint


async def test_what_keeps_the_service_from_starting_is_one_line(databases: Databases, tmp_path: Path) -> None:
    """A setting that is missing, a database that is down, an installation that is missing."""
    urls = {"LEGACY_DATABASE_URL": databases.legacy_url, "PRODUCT_DATABASE_URL": databases.new_url}
    closed = f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/gone"
    cases: list[tuple[dict[str, str], str]] = [
        ({}, "DATABASE_URL"),
        (urls | {"LEGACY_DATABASE_URL": closed}, "LEGACY_DATABASE_URL"),
        (urls, "not installed"),
    ]
    serve = (
        "uvicorn",
        "--factory",
        "backend.product_service.app.main:create_app",
        "--port",
        str(free_port()),
    )
    ended = await asyncio.gather(*(run(tmp_path, *serve, **variables) for variables, _ in cases))
    for end, (_, told) in zip(ended, cases, strict=True):
        assert_one_line(end, told)


def test_wrong_settings_name_their_variable() -> None:
    for variable, value in (("PRODUCT_RUN_RELAY", "perhaps"), ("PRODUCT_RUN_RELAY", "2")):
        with pytest.raises(ConfigurationError, match=variable):
            ProductSettings.from_env({variable: value})
    assert ProductSettings.from_env({}) == ProductSettings()
    given = ProductSettings.from_env({"AUTH_JWKS_URL": " http://auth/keys ", "PRODUCT_RUN_RELAY": "False"})
    assert given == ProductSettings(jwks_url="http://auth/keys", run_relay=False)


async def test_without_a_key_what_needs_a_token_is_refused(make_shop: MakeShop) -> None:
    shop = await make_shop(Phase.DUALWRITE)
    app = make_app(manager=shop.manager, metrics=Metrics(CollectorRegistry()), verifier=None, run_relay=False)
    async with LifespanManager(app) as running:
        transport = httpx.ASGITransport(app=running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://product") as client:
            header = {"Authorization": "Bearer anything"}
            assert_problem(await client.post("/products", json={}, headers=header), 503)
            assert_problem(await client.get("/dual-write/status", headers=header), 503)
            assert (await client.get("/products")).status_code == 200
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200
            assert "dualwrite_" in (await client.get("/metrics")).text


async def test_a_missing_migration_keeps_the_service_from_starting(make_shop: MakeShop) -> None:
    shop = await make_shop(Phase.DUALWRITE)
    await shop.manager.check_schema()
    await shop.new("UPDATE alembic_version SET version_num = '9999_from_the_future'")
    await shop.manager.check_schema()
    await shop.new("DELETE FROM alembic_version")
    with pytest.raises(InstallationError, match=r"PRODUCT_DATABASE_URL: .*needs 0\d{3}_"):
        await shop.manager.check_schema()


async def test_migrations_go_up_and_down_and_up(
    services_cluster: Cluster, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await make_database(services_cluster)
    monkeypatch.setenv("PRODUCT_DATABASE_URL", url)
    config = Config(ALEMBIC_INI)
    revisions = [item.revision for item in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    for revision in revisions:
        for go, target in (
            (alembic.command.upgrade, revision),
            (alembic.command.downgrade, "-1"),
            (alembic.command.upgrade, revision),
        ):
            await asyncio.to_thread(go, config, target)
    assert await run_sql(url, "SELECT version_num FROM alembic_version") == [(revisions[-1],)]


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


async def test_a_migration_that_cannot_run_says_why(tmp_path: Path) -> None:
    closed = f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/gone"
    upgrade = ("alembic", "-c", str(ALEMBIC_INI), "upgrade", "head")
    ended = await asyncio.gather(run(tmp_path, *upgrade), run(tmp_path, *upgrade, DATABASE_URL=closed))
    assert_one_line(ended[0], "PRODUCT_DATABASE_URL")
    assert_one_line(ended[1], "DATABASE_URL")


async def test_a_migration_does_not_wait_for_its_lock_for_long(databases: Databases, tmp_path: Path) -> None:
    busy = await asyncpg.connect(databases.new_url)
    async with busy.transaction():
        await busy.execute("LOCK TABLE products IN ACCESS SHARE MODE")
        downgrade = ("alembic", "-c", str(ALEMBIC_INI), "downgrade", "base")
        assert_one_line(
            await run(tmp_path, *downgrade, PRODUCT_DATABASE_URL=databases.new_url), "lock timeout"
        )
    await busy.close()
    assert await run_sql(databases.new_url, "SELECT count(*) FROM products") == [(0,)]


@pytest.mark.parametrize("phase", [Phase.DUALWRITE])
async def test_operators_are_refused_what_cannot_be(api: Api, phase: Phase) -> None:
    assert_problem(await api.admin.get("/dual-write/failures", params={"entity": "cart"}), 404)
    assert (await api.admin.patch("/dual-write/config", json={"to_new": False})).status_code == 200
    answer = assert_problem(await api.admin.post("/dual-write/phase", json={"to": "shadow"}), 409)
    assert "PRODUCT_DUAL_WRITE_TO_NEW" in answer["detail"]
    assert (await api.admin.get("/dual-write/status")).json()["phase"] == "dualwrite"
