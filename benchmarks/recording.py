"""What it adds to a write to tell of it: a product's price is changed, with `ProductChanged` in the outbox and without.

Both take turns in bursts on the same databases, in phase `dualwrite`: capture and fence are part of either. Somebody listens for
messages, as whoever delivers them does; they are not delivered meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from statistics import median

import asyncpg
from alembic import command
from alembic.config import Config
from prometheus_client import CollectorRegistry
from rich.console import Console

from backend.legacy_shop.schema import create_schema
from backend.product_service.app.core.dual_write_manager import ProductDualWriteManager
from backend.product_service.app.entities import NewProduct, ProductChanges
from backend.product_service.app.message_api import TELLS
from backend.product_service.app.models import ROOM
from backend.shared import DualWriteSettings, Phase
from backend.shared.database import DatabaseLimits
from backend.shared.events.outbox import Outbox
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.programs import REPOSITORY
from benchmarks.load import Load, drive, joined
from benchmarks.report import Result
from benchmarks.stack import POOL_SIZE, Stack, run_sql
from benchmarks.ways import Operation

ROUNDS = 5
SECONDS = 3.0
"""Of both ways together, in one round."""
BURST_SECONDS = 0.1
WARM_UP_SECONDS = 0.5
WRITERS = (1, 16)
PRODUCTS = 200
DATABASE = "bench_products"


async def measure_recording(stack: Stack, console: Console) -> list[Result]:
    """Throughput and latency of both, at each number of writers."""
    results = []
    async with _products(stack) as (silent, telling):
        for writers in WRITERS:
            rounds = []
            for operation in (silent, telling):
                await drive(operation, writers=writers, seconds=WARM_UP_SECONDS)
            for round_ in range(ROUNDS):
                console.print(f"  {writers} writers, round {round_ + 1} of {ROUNDS}", style="dim")
                rounds.append(await _round(silent, telling, writers))
            results += _results(writers, [pair[0] for pair in rounds], [pair[1] for pair in rounds])
    return results


async def _round(silent: Operation, telling: Operation, writers: int) -> tuple[Load, Load]:
    loads: tuple[list[Load], list[Load]] = ([], [])
    deadline = time.perf_counter() + SECONDS
    while time.perf_counter() < deadline:
        for found, operation in zip(loads, (silent, telling), strict=True):
            found.append(await drive(operation, writers=writers, seconds=BURST_SECONDS))
    return joined(loads[0]), joined(loads[1])


def _results(writers: int, silent: list[Load], telling: list[Load]) -> list[Result]:
    name = f"recording.{writers}_writer{'s' if writers > 1 else ''}"
    figures = (
        ("per_second", "1/s", lambda load: load.throughput),
        ("median", "ms", lambda load: load.percentile(50) * 1000),
        ("p99", "ms", lambda load: load.percentile(99) * 1000),
    )
    return [
        Result(
            name=f"{name}.{figure}",
            value=median(map(of, telling)),
            unit=unit,
            peer="nothing told",
            peer_value=median(map(of, silent)),
            ratio=median(of(one) / of(other) for one, other in zip(telling, silent, strict=True)),
        )
        for figure, unit, of in figures
    ]


@asynccontextmanager
async def _products(stack: Stack) -> AsyncIterator[tuple[Operation, Operation]]:
    """The two ways to change a price: with nobody told, and with the event."""
    await run_sql(stack.legacy_url, f"CREATE DATABASE {DATABASE}")
    await run_sql(stack.new_url, f"CREATE DATABASE {DATABASE}")
    legacy, new = (f"{url.rpartition('/')[0]}/{DATABASE}" for url in (stack.legacy_url, stack.new_url))
    await create_schema(legacy)
    config = Config(str(REPOSITORY / "backend/product_service/alembic.ini"))
    config.attributes["database_url"] = new
    await asyncio.to_thread(command.upgrade, config, "head")
    managers = [_manager(legacy, new) for _ in range(2)]
    managers[1].outbox = Outbox(ROOM, tells=TELLS)
    listens = await asyncpg.connect(legacy)
    try:
        await listens.add_listener("outbox_outbox", lambda *_: None)
        await managers[0].install()
        for manager in managers:
            await manager.start()
        ids = [
            (await managers[0].create_product(NewProduct(sku=f"b{n}", name="bench", price=Decimal(1))))
            .unwrap()
            .id
            for n in range(PRODUCTS)
        ]
        silent, telling = (partial(_change_price, manager, ids) for manager in managers)
        yield silent, telling
    finally:
        await listens.close()
        for manager in managers:
            await manager.close()


async def _change_price(manager: ProductDualWriteManager, ids: list[int], number: int) -> None:
    changes = ProductChanges(price=Decimal(number % 100_000) / 100)
    (await manager.update_product(ids[number % PRODUCTS], changes)).unwrap()


def _manager(legacy: str, new: str) -> ProductDualWriteManager:
    return ProductDualWriteManager(
        settings=DualWriteSettings(
            service="product",
            legacy_database_url=legacy,
            database_url=new,
            phase=Phase.DUALWRITE,
            validate_sync=False,
        ),
        metrics=Metrics(CollectorRegistry()),
        limits=DatabaseLimits(pool_size=POOL_SIZE),
    )
