"""How fast history moves, by the side of a raw pipe between the servers, and what it costs the service meanwhile."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from statistics import median

import asyncpg
from rich.console import Console

from backend.shared import DualWriteManager, EntityMapping, Key, UnitOfWork
from backend.shared.migration.backfill import Backfill
from backend.shared.testing.processes import ServiceProcess
from benchmarks.load import Load, drive
from benchmarks.report import Result
from benchmarks.seven_columns import ROWS, create, entity, fill
from benchmarks.stack import Stack, run_sql, until_false

ROUNDS = 3
WRITERS = 4
WRITE_SECONDS = 8.0
THROTTLED_ROWS_PER_SECOND = 20_000
_ROW = entity("history_old", "history_new")
_NEW = _ROW.to_new[0].table


class HistoryManager(DualWriteManager):
    """A service with one large table of seven columns, the same on both sides."""

    service = "bench_history"

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (_ROW,)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        raise NotImplementedError


async def measure_backfill(stack: Stack, console: Console) -> list[Result]:
    """Rows per second against a raw pipe, round by round, and the latency of writes beside it."""
    console.print(f"  filling a table of {ROWS:,} rows", style="dim")
    await run_sql(stack.legacy_url, create("history_old"), fill("history_old"), "VACUUM ANALYZE history_old")
    await run_sql(stack.new_url, create("history_new"), create("history_raw"))
    raw, ours = [], []
    async with _manager(stack) as manager:
        for number in range(ROUNDS):
            console.print(f"  round {number + 1} of {ROUNDS}: raw pipe, then backfill", style="dim")
            raw.append(await _timed(stack, "history_raw", lambda: _pipe(stack)))
            ours.append(await _timed(stack, "history_new", lambda: _backfilled(manager)))
        again = await _again(manager)
        latencies = await _beside(stack, manager, console)
    raw_speed, speed = ROWS / median(raw), ROWS / median(ours)
    alone = latencies["alone"]
    return [
        Result(
            name="backfill.rows_per_second",
            value=speed,
            unit="rows/s",
            peer="raw binary COPY, psql to psql",
            peer_value=raw_speed,
            ratio=speed / raw_speed,
            goal="ratio >= 0.6",
        ),
        Result(name="backfill.again.rows_per_second", value=ROWS / again, unit="rows/s"),
        *(
            Result(
                name=f"backfill.write_p99.{name}",
                value=load.percentile(99) * 1000,
                unit="ms",
                peer="without a backfill",
                peer_value=alone.percentile(99) * 1000,
                ratio=load.percentile(99) / alone.percentile(99),
            )
            for name, load in latencies.items()
            if name != "alone"
        ),
    ]


@asynccontextmanager
async def _manager(stack: Stack) -> AsyncIterator[DualWriteManager]:
    manager = stack.manager_of(HistoryManager)
    await manager.install()
    await manager.start()
    try:
        yield manager
    finally:
        await manager.close()


async def _timed(stack: Stack, table: str, work: Callable[[], Awaitable[None]]) -> float:
    await run_sql(stack.new_url, f"TRUNCATE {table}", "CHECKPOINT")
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def _pipe(stack: Stack) -> None:
    """What nothing that goes through a client can be faster than: COPY into COPY, nothing looked at on the way."""
    psql = stack.programs / "psql"
    process = await asyncio.create_subprocess_shell(
        f"{psql} -qX '{stack.legacy_url}' -c 'COPY history_old TO STDOUT (FORMAT binary)' | "
        f"{psql} -qX '{stack.new_url}' -c 'COPY history_raw FROM STDIN (FORMAT binary)'"
    )
    if await process.wait():
        raise RuntimeError("the raw pipe broke")


async def _backfilled(manager: DualWriteManager) -> None:
    found = await Backfill(manager.runtime).run()
    assert found.is_complete


async def _again(manager: DualWriteManager) -> float:
    """Over rows that are all there: read, staged, compared, and none written."""
    started = time.perf_counter()
    await _backfilled(manager)
    return time.perf_counter() - started


async def _beside(stack: Stack, manager: DualWriteManager, console: Console) -> dict[str, Load]:
    """Latency of single-row updates through the manager: alone, and with a backfill in a process of its own."""
    rng = random.Random(1)

    async def write(number: int) -> None:
        key = (rng.randint(1, ROWS),)
        result = await manager.write(
            "update", lambda work: work.update("row", key, {_NEW.c.customer: number})
        )
        result.unwrap()

    await drive(write, writers=WRITERS, seconds=1.0)
    found = {}
    for name, limit in (("alone", None), ("throttled", THROTTLED_ROWS_PER_SECOND), ("unthrottled", 0)):
        console.print(f"  {WRITERS} writers, backfill: {name}", style="dim")
        async with _running(stack, limit):
            found[name] = await drive(write, writers=WRITERS, seconds=WRITE_SECONDS)
    return found


@asynccontextmanager
async def _running(stack: Stack, rows_per_second: int | None) -> AsyncIterator[None]:
    if rows_per_second is None:
        yield
        return
    # Without a relay the lag grows: it is the copy that is measured here.
    limits = ("--max-rows-per-second", str(rows_per_second), "--max-lag-seconds", "0")
    process = ServiceProcess(
        [sys.executable, "-m", "backend.shared.cli.main", "backfill", "bench_history", *limits],
        name="backfill",
        env=stack.env_of("bench_history"),
        log=stack.directory / "backfill.log",
        cwd=stack.directory,
    )
    await run_sql(stack.new_url, "TRUNCATE history_new", "DELETE FROM tandem_bench_history.backfill")
    process.spawn()
    try:
        await _copying(stack)
        yield
    finally:
        await process.terminate()


async def _copying(stack: Stack) -> None:
    connection = await asyncpg.connect(stack.new_url)
    try:
        async with asyncio.timeout(20):
            await until_false(connection, "SELECT NOT EXISTS (SELECT FROM history_new)")
    finally:
        await connection.close()
