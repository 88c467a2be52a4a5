"""How fast the relay carries, what it asks of the servers, and how far it falls behind writers that do not stop."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import asyncpg
from rich.console import Console

from backend.shared.stores.postgres.names import EngineNames
from benchmarks.load import drive
from benchmarks.report import Result
from benchmarks.service import BACKLOG, COUNTED, DRAINED, MADE_AT, ROW_BY_ROW, ItemService
from benchmarks.stack import RelayProcess, Stack, run_sql, until_false
from benchmarks.ways import dual_write
from benchmarks.wire import counting_wire

BACKLOG_KEYS = 100_000
BATCH_SIZE = 1000
COUNTED_KEYS = 5000
ROW_BY_ROW_KEYS = 2000
FASTSTREAM_OUTBOX_PER_SECOND = 10_184
"""Published by its authors for batched publishing; another machine, and it carries events, not state."""

LAG_SECONDS = 10.0
LAG_WRITERS = 16


async def measure_relay(stack: Stack, console: Console) -> list[Result]:
    """Keys per second over a backlog, of rows that are new and of rows that are there, and statements per key."""
    console.print(f"  {ROW_BY_ROW_KEYS} keys row by row", style="dim")
    one_by_one = await _row_by_row(stack)
    relay = stack.relay(BACKLOG, batch_size=BATCH_SIZE)
    speeds = {}
    async with relay.running():
        for kind, statement in (("inserts", _insert(BACKLOG)), ("updates", _update(BACKLOG))):
            console.print(f"  a backlog of {BACKLOG_KEYS} {kind}", style="dim")
            relay.hold()
            await _single_changes(stack, statement, count=BACKLOG_KEYS)
            speeds[kind] = await _carried_per_second(stack, relay)
    per_key = {size: await _statements_per_key(stack, batch_size=size) for size in (BATCH_SIZE, 100)}
    results = [
        Result(
            name=f"relay.{kind}.per_second",
            value=speed,
            unit="keys/s",
            peer="row by row",
            peer_value=one_by_one,
            ratio=speed / one_by_one,
            goal="value >= 20000",
        )
        for kind, speed in speeds.items()
    ]
    return [
        *results,
        Result(
            name="relay.inserts.per_second_and_published",
            value=speeds["inserts"],
            unit="keys/s",
            peer="faststream-outbox, published",
            peer_value=float(FASTSTREAM_OUTBOX_PER_SECOND),
            ratio=speeds["inserts"] / FASTSTREAM_OUTBOX_PER_SECOND,
        ),
        *(
            Result(
                name=f"relay.batch_{size}.statements_per_key",
                value=statements,
                unit="1/key",
                goal="value <= 0.05" if size == BATCH_SIZE else None,
            )
            for size, statements in per_key.items()
        ),
    ]


async def measure_lag(stack: Stack, console: Console) -> list[Result]:
    """The age of the oldest change that is not carried, while writers write as fast as they can."""
    console.print(f"  {LAG_WRITERS} writers for {LAG_SECONDS:.0f} s", style="dim")
    relay = stack.relay(DRAINED)
    async with relay.running(), dual_write(stack, DRAINED) as operation:
        await drive(operation, writers=LAG_WRITERS, seconds=0.5)
        watch = asyncio.ensure_future(_lags(stack, DRAINED))
        load = await drive(operation, writers=LAG_WRITERS, seconds=LAG_SECONDS)
        watch.cancel()
        lags = await watch
        left = time.perf_counter()
        if not await relay.drained(timeout_seconds=30):
            raise RuntimeError("the relay did not empty the journal in thirty seconds")
        rest = time.perf_counter() - left
    halves = lags[: len(lags) // 2], lags[len(lags) // 2 :]
    return [
        Result(name="lag.median", value=median(lags), unit="s"),
        Result(name="lag.most", value=max(lags), unit="s", goal="value <= 1.0"),
        Result(
            name="lag.second_half_median",
            value=median(halves[1]),
            unit="s",
            peer="first half",
            peer_value=median(halves[0]),
            ratio=median(halves[1]) / median(halves[0]),
        ),
        Result(name="lag.writes_per_second", value=load.throughput, unit="1/s"),
        Result(name="lag.drained_after", value=rest, unit="s"),
    ]


async def _lags(stack: Stack, service: ItemService) -> list[float]:
    """Ages of the oldest open journal row, ten times a second, until cancelled."""
    names = EngineNames(service.manager.service)
    lags = []
    connection = await asyncpg.connect(stack.legacy_url)
    try:
        while True:
            age = await connection.fetchval(
                f"SELECT extract(epoch FROM clock_timestamp() - captured_at) FROM {names.journal} ORDER BY id LIMIT 1"
            )
            lags.append(float(age or 0.0))
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return lags
    finally:
        await connection.close()


def _insert(service: ItemService) -> str:
    made = MADE_AT.replace(tzinfo=None).isoformat()
    return f"INSERT INTO {service.legacy.name} (label, cents, made) VALUES ('item ' || n, n, '{made}')"


def _update(service: ItemService) -> str:
    return f"UPDATE {service.legacy.name} SET cents = cents + 1 WHERE item_no = n"


async def _single_changes(stack: Stack, statement: str, *, count: int) -> None:
    """As many transactions of one row each. They need not be durable: it is the relay's turn that is timed."""
    await run_sql(
        stack.legacy_url,
        f"DO $$ BEGIN FOR n IN 1..{count} LOOP {statement}; COMMIT; END LOOP; END $$",
        settings={"synchronous_commit": "off"},
    )
    for url in (stack.legacy_url, stack.new_url):
        await run_sql(url, "CHECKPOINT")  # not in the middle of the measurement


async def _carried_per_second(stack: Stack, relay: RelayProcess) -> float:
    journal = EngineNames(BACKLOG.manager.service).journal
    connection = await asyncpg.connect(stack.legacy_url)
    try:
        last, keys = await connection.fetchrow(f"SELECT max(id), count(DISTINCT key) FROM {journal}")
        started = time.perf_counter()
        relay.resume()
        async with asyncio.timeout(60):
            await until_false(connection, f"SELECT EXISTS (SELECT FROM {journal} WHERE id = $1)", last)
        elapsed = time.perf_counter() - started
    finally:
        await connection.close()
    if not await relay.drained(timeout_seconds=10):
        raise RuntimeError("the relay has passed over some keys")
    return float(keys) / elapsed


async def _row_by_row(stack: Stack) -> float:
    """Keys per second of the loop that one writes first: take a journal row, copy its row, end it, commit both."""
    names = EngineNames(ROW_BY_ROW.manager.service)
    await _single_changes(stack, _insert(ROW_BY_ROW), count=ROW_BY_ROW_KEYS)
    source, target = await asyncpg.connect(stack.legacy_url), await asyncpg.connect(stack.new_url)
    try:
        started = time.perf_counter()
        for _ in range(ROW_BY_ROW_KEYS):
            async with source.transaction():
                number, key = await source.fetchrow(
                    f"SELECT id, (key::jsonb ->> 0)::int FROM {names.journal} ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
                )
                row = await source.fetchrow(
                    f"SELECT item_no, label, cents::numeric(12,2) / 100, timezone('UTC', made) "
                    f"FROM {ROW_BY_ROW.legacy.name} WHERE item_no = $1",
                    key,
                )
                await target.execute(
                    f"INSERT INTO {ROW_BY_ROW.new.name} VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE "
                    "SET label = excluded.label, price = excluded.price, made_at = excluded.made_at",
                    *row,
                )
                await source.execute(f"DELETE FROM {names.journal} WHERE id = $1", number)
        return ROW_BY_ROW_KEYS / (time.perf_counter() - started)
    finally:
        await source.close()
        await target.close()


async def _statements_per_key(stack: Stack, *, batch_size: int) -> float:
    """Statements that a relay sends to both servers over a backlog, by the keys in it."""
    async with counting_wire(stack.legacy_url) as legacy, counting_wire(stack.new_url) as new:
        manager = stack.manager(COUNTED, batch_size=batch_size, urls=(legacy.url, new.url))
        try:
            await manager.start()
            relay = manager.relay()
            while (await relay.run_once()).rows:
                pass  # so that the connections are there and the statements prepared
            await _single_changes(stack, _insert(COUNTED), count=COUNTED_KEYS)
            before = legacy.count, new.count
            keys = 0
            while done := (await relay.run_once()).keys:
                keys += done
            spent = legacy.count - before[0], new.count - before[1]
        finally:
            await manager.close()
    return sum(count.statements for count in spent) / keys
