"""`tandem backfill` over the dirty shop of each service, as an operator calls it."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from sqlalchemy import MetaData

from backend.legacy_shop import ShopSize, create_schema, load_generated
from backend.shared.cli.services import manager_class
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.observability.labels import Verdict
from backend.shared.sync_validator import SyncValidator
from backend.shared.testing.clusters import Databases

SIZE = ShopSize(products=60, categories=15, users=80, carts=300, lines=1500, wishes=40)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Shop:
    """A loaded legacy side and an empty new side, both installed; nothing runs."""

    databases: Databases
    service: str
    manager: DualWriteManager
    env: Mapping[str, str]

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "backend.shared.cli.main", "backfill", self.service, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(self.env),
        )

    async def backfill(self, *arguments: str) -> Ended:
        process = await self.start(*arguments)
        out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def status(self) -> Any:
        return (await self.backfill("--status", "--json")).json

    async def legacy(self, statement: str) -> None:
        connection = await asyncpg.connect(self.databases.legacy_url)
        await connection.execute(statement)
        await connection.close()

    async def new(self, query: str) -> Any:
        connection = await asyncpg.connect(self.databases.new_url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    async def copied_at_least(self, rows: int) -> int:
        async with asyncio.timeout(30):
            query = "SELECT coalesce(sum(rows_copied), 0)::int FROM tandem_cart.backfill"
            while (copied := await self.new(query)) < rows:  # noqa: ASYNC110 - another process rings no bell
                await asyncio.sleep(0.02)
        return int(copied)


@asynccontextmanager
async def shop(databases: Databases, service: str, *, phase: str = "dualwrite") -> AsyncIterator[Shop]:
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
    yield Shop(databases, service, manager, {**os.environ, **env})
    await manager.close()


@pytest.mark.parametrize("service", ["auth", "product", "cart"])
async def test_dirt_and_all_is_on_both_sides(databases: Databases, service: str) -> None:
    async with shop(databases, service) as found:
        ended = await found.backfill()
        assert (ended.code, ended.err) == (0, "")
        assert f"{service}: complete\n" in ended.out
        await found.manager.start()
        report = await SyncValidator(found.manager.runtime).run()
        depth = await found.manager.runtime.measure()
    assert report.verdict is Verdict.EQUAL
    assert sum(entity.rows_legacy for entity in report.entities) > 0
    assert (depth.rows, depth.failures) == (0, 0)


@pytest.mark.invariant("I7")
async def test_i7_kill_9_loses_the_chunks_in_hand_and_no_more(databases: Databases) -> None:
    async with shop(databases, "cart") as found:
        process = await found.start("--max-rows-per-second", "500", "--workers", "1")
        copied = await found.copied_at_least(500)
        process.kill()
        await process.wait()
        await found.legacy("UPDATE carts SET ext_ref = 'changed' WHERE cart_no = 1")
        await found.legacy("DELETE FROM carts WHERE cart_no = 2")
        kept = await found.copied_at_least(copied)
        state = await found.status()
        assert not state["complete"]
        ended = await found.backfill("--max-rows-per-second", "0", "--json")
        assert ended.code == 0
        total = sum(entity["rows_copied"] for entity in ended.json["entities"])
        rows = SIZE.carts + SIZE.lines + SIZE.wishes
        assert kept >= copied
        assert rows - 50 <= total <= rows, "rows were copied twice, or left out"
        await found.manager.start()
        assert await found.manager.relay().drain(timeout_seconds=10)
        assert (await SyncValidator(found.manager.runtime).run()).verdict is Verdict.EQUAL


async def test_sigterm_ends_it_and_says_how_to_go_on(databases: Databases) -> None:
    async with shop(databases, "cart") as found:
        process = await found.start("--max-rows-per-second", "200")
        await found.copied_at_least(1)
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert process.returncode == 2
        assert "run it again to go on" in err.decode()
        assert "no process works on it" in (await found.backfill("--status")).out


async def test_pause_limits_and_resume_from_another_terminal(databases: Databases) -> None:
    async with shop(databases, "cart") as found:
        assert (await found.backfill("--pause")).code == 0
        process = await found.start()
        async with asyncio.timeout(30):
            while (state := await found.status())["held_by"] != "paused":
                assert process.returncode is None
        assert state["running"]
        assert sum(entity["rows_copied"] for entity in state["entities"]) == 0
        limited = await found.backfill(
            "--limit", "--max-rows-per-second", "100000", "--max-lag-seconds", "7", "--json"
        )
        assert limited.json["limits"]["max_lag_seconds"] == 7
        assert (await found.backfill("--resume")).code == 0
        await process.communicate()
        assert process.returncode == 0


async def test_rows_that_are_refused_are_exit_1_and_no_value_is_shown(databases: Databases) -> None:
    async with shop(databases, "cart") as found:
        await found.legacy("UPDATE carts SET state = '?', ext_ref = 'verysecret' WHERE cart_no = 50")
        await found.legacy("DELETE FROM cart_lines WHERE cart_no = 50; DELETE FROM tandem_cart.journal")
        ended = await found.backfill()
        assert ended.code == 1
        assert "complete with 1 failure" in ended.out
        assert "verysecret" not in ended.out + ended.err
        assert await found.new("SELECT count(*) FROM carts") == SIZE.carts - 1
        failures = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "backend.shared.cli.main", "failures", "cart", "--json"),
            stdout=asyncio.subprocess.PIPE,
            env=dict(found.env),
        )
        out, _ = await failures.communicate()
        assert json.loads(out)["key"] == "[50]"


async def test_one_entity_alone_is_done_but_the_service_is_not_complete(databases: Databases) -> None:
    async with shop(databases, "cart") as found:
        assert (await found.backfill("--entity", "wish_item")).code == 0
        state = await found.status()
        assert not state["complete"]
        assert {"cart", "cart_item"} <= set(state["not_begun"])
        assert "wish_item" not in state["not_begun"]
        assert await found.new("SELECT count(*) FROM carts") == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--entity", "nonsense"], "unknown entity 'nonsense'"),
        (["--pause", "--resume"], "exclude each other"),
        (["--workers", "0"], "--workers"),
        (["--max-connection-share", "3"], "--max-connection-share"),
    ],
)
async def test_bad_input_is_one_line_and_changes_nothing(
    databases: Databases, arguments: list[str], complaint: str
) -> None:
    async with shop(databases, "cart") as found:
        ended = await found.backfill(*arguments)
        assert ended.code == 2
        assert complaint in ended.err
        assert await found.new("SELECT count(*) FROM tandem_cart.backfill") == 0


async def test_a_server_that_does_not_answer_is_one_line_without_its_password(databases: Databases) -> None:
    async with shop(databases, "cart") as found:
        nowhere = Shop(
            databases,
            "cart",
            found.manager,
            {**found.env, "CART_DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:9/none"},
        )
        ended = await nowhere.backfill()
    assert ended.code == 2
    assert len(ended.err.strip().splitlines()) == 1
    assert "hunter2" not in ended.err


async def test_a_phase_without_capture_is_refused(databases: Databases) -> None:
    async with shop(databases, "cart", phase="off") as found:
        ended = await found.backfill()
    assert ended.code == 2
    assert "captures no changes" in ended.err
