"""The ways of writing one row that are measured against each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from backend.shared import DualWriteManager, Phase, UnitOfWork
from benchmarks.service import ASYNC, DRAINED, PLAIN, RAMPDOWN, SYNC, UNIT, ItemService
from benchmarks.stack import POOL_SIZE, RelayProcess, Stack

Operation = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of writing. `open` gives the operation with everything connected; `relay` runs beside it."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[Operation]]
    service: ItemService | None = None
    relay: RelayProcess | None = None


def plain_engine(url: str) -> AsyncEngine:
    """An engine as anybody would make it."""
    return create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=POOL_SIZE, max_overflow=0
    )


async def _plain(engine: AsyncEngine, statement: Callable[[int], object], number: int) -> None:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        await session.execute(statement(number))  # type: ignore[call-overload]  # an Insert
        await session.commit()


async def _ping(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


@asynccontextmanager
async def plain_write(stack: Stack) -> AsyncIterator[Operation]:
    """One insert and its commit through a session, on a table that Tandem has nothing to do with."""
    engine = plain_engine(stack.legacy_url)
    try:
        yield partial(_plain, engine, PLAIN.legacy_insert)
    finally:
        await engine.dispose()


@asynccontextmanager
async def parallel_writes(stack: Stack, *, pinging: bool = False) -> AsyncIterator[Operation]:
    """The same insert on both databases at once; with `pinging`, both are asked first whether they are there."""
    legacy, new = plain_engine(stack.legacy_url), plain_engine(stack.new_url)

    async def write(number: int) -> None:
        if pinging:
            await asyncio.gather(_ping(legacy), _ping(new))
        await asyncio.gather(
            _plain(legacy, PLAIN.legacy_insert, number), _plain(new, PLAIN.new_insert, number)
        )

    try:
        yield write
    finally:
        await legacy.dispose()
        await new.dispose()


@asynccontextmanager
async def dual_write(
    stack: Stack,
    service: ItemService,
    *,
    phase: Phase = Phase.DUALWRITE,
    through_unit: bool = False,
    async_legacy: bool = True,
) -> AsyncIterator[Operation]:
    """The same insert inside a unit of work; with `through_unit`, by the unit's own `insert`."""
    manager = stack.manager(service, phase=phase, async_legacy=async_legacy)
    await manager.start()
    write = _through_unit if through_unit else _ordinary
    try:
        yield partial(write, manager, service)
    finally:
        await manager.close()


async def _ordinary(manager: DualWriteManager, service: ItemService, number: int) -> None:
    async def unit(work: UnitOfWork) -> None:
        await work.session.execute(service.legacy_insert(number))

    (await manager.write("add_item", unit)).unwrap()


async def _through_unit(manager: DualWriteManager, service: ItemService, number: int) -> None:
    async def unit(work: UnitOfWork) -> None:
        await service.insert_through(work, number)

    (await manager.write("add_item", unit)).unwrap()


def dual_ways(stack: Stack) -> list[Way]:
    """The dual writes, without a relay."""
    rampdown = partial(dual_write, stack, RAMPDOWN, phase=Phase.RAMPDOWN, through_unit=True)
    return [
        Way(name="async", open=partial(dual_write, stack, ASYNC), service=ASYNC),
        Way(
            name="async_through_unit", open=partial(dual_write, stack, UNIT, through_unit=True), service=UNIT
        ),
        Way(name="async_rampdown", open=rampdown, service=RAMPDOWN),
        Way(name="sync", open=partial(dual_write, stack, SYNC, async_legacy=False), service=SYNC),
    ]


def drained_way(stack: Stack, relay: RelayProcess) -> Way:
    """The asynchronous dual write with `relay`, that of the service `DRAINED`, carrying beside it."""
    return Way(name="async_drained", open=partial(dual_write, stack, DRAINED), service=DRAINED, relay=relay)


def peer_ways(stack: Stack) -> list[Way]:
    """What others do to write both databases."""
    return [
        Way(name="parallel", open=partial(parallel_writes, stack)),
        Way(name="pinged_parallel", open=partial(parallel_writes, stack, pinging=True)),
    ]
