"""What the fence costs a write: the same dual write with the fence's triggers, and without them."""

from __future__ import annotations

import itertools
import time
from contextlib import AsyncExitStack
from functools import partial
from statistics import median

from rich.console import Console

from benchmarks.load import Load, drive, joined
from benchmarks.report import Result
from benchmarks.service import FENCED, UNFENCED
from benchmarks.stack import Stack, run_sql
from benchmarks.ways import Operation, dual_write

ROUNDS = 12
SECONDS = 1.5
BURST_SECONDS = 0.05
WARM_UP_SECONDS = 0.5
WRITERS = (1, 16)


async def measure_fence(stack: Stack, console: Console) -> list[Result]:
    """Both take turns, in bursts of some milliseconds; a ratio is the median of the rounds' own ratios."""
    rounds: dict[int, list[tuple[Load, Load]]] = {writers: [] for writers in WRITERS}
    async with AsyncExitStack() as exits:
        with_fence, without = [
            await exits.enter_async_context(dual_write(stack, service)) for service in (FENCED, UNFENCED)
        ]
        await run_sql(stack.legacy_url, *_drop_fence())  # a manager would not start without it
        for writers in WRITERS:
            for operation in (with_fence, without):
                await drive(operation, writers=writers, seconds=WARM_UP_SECONDS)
        for number in range(ROUNDS):
            console.print(f"  round {number + 1} of {ROUNDS}", style="dim")
            for writers in WRITERS:
                turns = {
                    one: partial(drive, one, writers=writers, seconds=BURST_SECONDS)
                    for one in (with_fence, without)
                }
                loads: dict[Operation, list[Load]] = {one: [] for one in turns}
                deadline = time.perf_counter() + SECONDS
                # Now this one first, now that one: what a burst leaves behind (a checkpoint, a vacuum) hits both alike.
                for order in itertools.cycle((list(turns), list(reversed(turns)))):
                    for one in order:
                        loads[one].append(await turns[one]())
                    if time.perf_counter() > deadline:
                        break
                mine, others = loads[with_fence], loads[without]
                rounds[writers].append((joined(mine), joined(others)))
            for service in (FENCED, UNFENCED):
                await run_sql(stack.legacy_url, f"TRUNCATE tandem_{service.manager.service}.journal")
    return [_result(writers, pairs) for writers, pairs in rounds.items()]


def _drop_fence() -> list[str]:
    schema = f"tandem_{UNFENCED.manager.service}"
    return [
        f"DROP TRIGGER {schema}_{UNFENCED.legacy.name}_fence_{operation} ON {UNFENCED.legacy.name}"
        for operation in ("insert", "update", "delete", "truncate")
    ]


def _result(writers: int, pairs: list[tuple[Load, Load]]) -> Result:
    return Result(
        name=f"fence.{writers}_writer{'s' if writers > 1 else ''}.per_second",
        value=median(mine.throughput for mine, _ in pairs),
        unit="1/s",
        peer="without fence",
        peer_value=median(other.throughput for _, other in pairs),
        ratio=median(mine.throughput / other.throughput for mine, other in pairs),
        goal="ratio >= 0.97",
    )
