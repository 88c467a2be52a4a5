from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import MetaData

from backend.demo.errors import StepError
from backend.demo.history import copy_history
from backend.legacy_shop import ShopSize, create_schema, load_generated
from backend.shared.cli.services import manager_class
from backend.shared.domain.phases import Side
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.observability.labels import Verdict
from backend.shared.sync_validator import SyncValidator
from backend.shared.testing.clusters import Databases

SIZE = ShopSize(products=60, categories=15, users=80, carts=100, lines=400, wishes=40)


@asynccontextmanager
async def shop(
    databases: Databases, service: str, *, phase: str = "dualwrite"
) -> AsyncIterator[tuple[DualWriteManager, dict[str, str]]]:
    """A loaded legacy side, an empty new side, both installed; nothing runs."""
    await create_schema(databases.legacy_url)
    await load_generated(databases.legacy_url, seed=3, size=SIZE)
    env = {
        "LEGACY_DATABASE_URL": databases.legacy_url,
        f"{service.upper()}_DATABASE_URL": databases.new_url,
        f"{service.upper()}_DUAL_WRITE_PHASE": phase,
    }
    manager = manager_class(service)(settings=DualWriteSettings.from_env(service, env))
    metadata: MetaData = importlib.import_module(f"backend.{service}_service.app.models").METADATA
    async with manager.new_engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await manager.install()
    yield manager, {**os.environ, **env}
    await manager.close()


async def scalar(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.mark.parametrize("service", ["auth", "product", "cart"])
async def test_both_sides_are_equal_and_nothing_is_left_to_carry(databases: Databases, service: str) -> None:
    async with shop(databases, service) as (manager, env):
        rows = await copy_history(service, env=env)
        await manager.start()
        report = await SyncValidator(manager.runtime).run()
        depth = await manager.runtime.measure()

    assert report.verdict is Verdict.EQUAL
    assert rows >= sum(entity.rows_legacy for entity in report.entities) > 0
    assert (depth.rows, depth.failures) == (0, 0)


async def test_what_is_written_afterwards_goes_its_way(databases: Databases) -> None:
    async with shop(databases, "cart") as (manager, env):
        await copy_history("cart", env=env)
        await manager.start()
        connection = await asyncpg.connect(databases.legacy_url)
        await connection.execute("UPDATE carts SET ext_ref = 'changed' WHERE cart_no = 1")
        await connection.execute("DELETE FROM carts WHERE cart_no = 2")
        await connection.close()
        assert await manager.relay().drain(timeout_seconds=10)
        assert (await SyncValidator(manager.runtime).run()).verdict is Verdict.EQUAL
    assert await scalar(databases.new_url, "SELECT reference FROM carts WHERE id = 1") == "changed"


async def test_no_guard_is_written(databases: Databases) -> None:
    async with shop(databases, "cart") as (_, env):
        await copy_history("cart", env=env)
    assert await scalar(databases.new_url, "SELECT count(*) FROM tandem_cart.guard") == 0


async def test_it_starts_from_an_empty_side_only(databases: Databases) -> None:
    async with shop(databases, "cart") as (_, env):
        await copy_history("cart", env=env)
        with pytest.raises(StepError, match="carts on the new side holds rows already"):
            await copy_history("cart", env=env)
    assert await scalar(databases.new_url, "SELECT count(*) FROM carts") == SIZE.carts


async def test_a_row_that_is_refused_keeps_everything_out_and_shows_no_value(databases: Databases) -> None:
    async with shop(databases, "cart") as (_, env):
        connection = await asyncpg.connect(databases.legacy_url)
        await connection.execute("UPDATE carts SET state = '?', ext_ref = 'verysecret' WHERE cart_no = 50")
        await connection.close()
        with pytest.raises(StepError, match="history of cart") as refused:
            await copy_history("cart", env=env)
    assert "verysecret" not in str(refused.value)
    assert await scalar(databases.new_url, "SELECT count(*) FROM carts") == 0


async def test_a_server_that_does_not_answer_is_one_line(databases: Databases) -> None:
    nowhere = databases.new_url.rsplit(":", 1)[0] + ":9/none"
    env = {"LEGACY_DATABASE_URL": databases.legacy_url, "CART_DATABASE_URL": nowhere}
    with pytest.raises(StepError, match="copying the history of cart: "):
        await copy_history("cart", env=env)


async def test_with_the_new_side_authoritative_its_next_ids_are_free_and_history_is_not_journalled(
    databases: Databases,
) -> None:
    async with shop(databases, "cart", phase="rampdown") as (manager, env):
        await copy_history("cart", env=env)
        await manager.start()
        created = await manager.write("probe", manager.write_probe)
        assert created.success
        async with manager.runtime.engines[Side.NEW].connect() as connection:
            depth = await manager.runtime.journal.depth(connection)
    assert depth.rows == 1  # the probe
