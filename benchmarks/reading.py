"""What shadow reads cost the callers: the same reads at the same rate, with a tenth of them compared and with none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from statistics import median

from rich.console import Console

from backend.shared import DualWriteManager, Key, Phase, UnitOfWork
from benchmarks.report import Result
from benchmarks.service import READ
from benchmarks.stack import Stack
from benchmarks.steady import Steady, drive_steadily

READS_PER_SECOND = 200.0
SAMPLE_RATE = 0.1
ROWS = 1000
ROUNDS = 8
SECONDS = 3.0
WARM_UP_SECONDS = 1.0


async def measure_shadow_reads(stack: Stack, console: Console) -> list[Result]:
    """Both take turns, some seconds each; a ratio is the median of the rounds' own ratios."""
    async with AsyncExitStack() as exits:
        managers = {rate: stack.manager(READ, phase=Phase.SHADOW) for rate in (0.0, SAMPLE_RATE)}
        for rate, manager in managers.items():
            exits.push_async_callback(manager.close)
            await manager.start()
            manager.runtime.base_settings = replace(
                manager.runtime.base_settings, shadow_read_sample_rate=rate
            )
            await manager.runtime.following.refresh()
        keys = await _fill(managers[0.0])
        rounds: list[tuple[Steady, Steady]] = []
        for manager in managers.values():
            await _drive(manager, keys, WARM_UP_SECONDS)
        for number in range(ROUNDS):
            console.print(f"  round {number + 1} of {ROUNDS}", style="dim")
            order = list(managers) if number % 2 else list(reversed(managers))
            found = {rate: await _drive(managers[rate], keys, SECONDS) for rate in order}
            rounds.append((found[SAMPLE_RATE], found[0.0]))
    return [_result(percent, rounds) for percent in (50.0, 99.0)]


async def _fill(manager: DualWriteManager) -> list[Key]:
    async def unit(work: UnitOfWork) -> list[Key]:
        return [await READ.insert_through(work, number) for number in range(ROWS)]

    keys = (await manager.write("fill", unit)).unwrap()
    if not await manager.relay().drain(timeout_seconds=30):
        raise RuntimeError("the rows to be read were not carried in thirty seconds")
    return keys


async def _drive(manager: DualWriteManager, keys: list[Key], seconds: float) -> Steady:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    done = await drive_steadily(_read(manager, keys), per_second=READS_PER_SECOND, stop=stop)
    if done.failed:
        raise RuntimeError(f"{len(done.failed)} reads failed: {done.failed[0]}")
    return done


def _read(manager: DualWriteManager, keys: list[Key]) -> Callable[[int], Awaitable[None]]:
    async def read(number: int) -> None:
        key = keys[number * 7919 % len(keys)]
        await manager.read(lambda work: work.get("item", key), entity="item", key=key)

    return read


def _result(percent: float, rounds: list[tuple[Steady, Steady]]) -> Result:
    name = "median" if percent == 50.0 else f"p{percent:g}"
    return Result(
        name=f"shadow_reads.{name}",
        value=median(mine.percentile(percent) for mine, _ in rounds) * 1000,
        unit="ms",
        peer="no read compared",
        peer_value=median(other.percentile(percent) for _, other in rounds) * 1000,
        ratio=median(mine.percentile(percent) / other.percentile(percent) for mine, other in rounds),
        goal="ratio <= 1.10" if percent == 99.0 else None,
    )
