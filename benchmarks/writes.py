"""What a dual write costs, as a ratio to a plain write.

Each way of writing takes turns with the plain write, in bursts of some milliseconds, so that whatever else the machine
does hits both alike. All ways go through several rounds, in another order each; a figure is the median over the
rounds, and a ratio the median of the rounds' own ratios.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console

from benchmarks.load import Load, drive, joined
from benchmarks.report import Result
from benchmarks.service import DRAINED, RAMPDOWN
from benchmarks.stack import Stack, run_sql
from benchmarks.ways import Operation, Way, drained_way, dual_ways, peer_ways, plain_write

ROUNDS = 6
SECONDS = 1.2
"""Of one way and of the plain write beside it, together, in one round."""
BURST_SECONDS = 0.05
WARM_UP_SECONDS = 0.3
"""Long enough for each of sixteen connections to have made its plans."""
WRITERS = (1, 16)

_THROUGHPUT_GOALS = {"async": "ratio >= 0.95", "async_drained": "ratio >= 0.80"}
_P99_GOALS = {"async": "ratio <= 1.2"}


@dataclass(frozen=True, kw_only=True)
class _Figure:
    name: str
    unit: str
    of: Callable[[Load], float]
    goals: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A way of writing and the plain write, over the same stretch of time."""

    way: Load
    plain: Load


_FIGURES = (
    _Figure(name="per_second", unit="1/s", of=lambda load: load.throughput, goals=_THROUGHPUT_GOALS),
    _Figure(name="median", unit="ms", of=lambda load: load.percentile(50) * 1000, goals={}),
    _Figure(name="p99", unit="ms", of=lambda load: load.percentile(99) * 1000, goals=_P99_GOALS),
)


async def measure_writes(stack: Stack, console: Console) -> list[Result]:
    """All ways of writing, at each number of writers."""
    pairs: dict[tuple[int, str], list[_Pair]] = {}
    order = random.Random(7)
    relay = stack.relay(DRAINED)
    async with relay.running(), plain_write(stack) as plain:
        relay.hold()
        ways = [*dual_ways(stack), drained_way(stack, relay), *peer_ways(stack)]
        for round_ in range(ROUNDS):
            console.print(f"  round {round_ + 1} of {ROUNDS}", style="dim")
            for writers in WRITERS:
                for way in order.sample(ways, len(ways)):
                    found = await _pair(stack, way, plain, writers)
                    pairs.setdefault((writers, way.name), []).append(found)
    results = []
    for writers in WRITERS:
        plains = [pair.plain for way in ways for pair in pairs[writers, way.name]]
        results += [_plain_result(writers, figure, plains) for figure in _FIGURES]
        results += [
            _result(way.name, writers, figure, pairs[writers, way.name])
            for way in ways
            for figure in _FIGURES
        ]
    return results


async def _pair(stack: Stack, way: Way, plain: Operation, writers: int) -> _Pair:
    burst = SECONDS / 2 if way.relay else BURST_SECONDS
    mine, others = [], []
    async with way.open() as operation:
        for warmed in (operation, plain):
            await drive(warmed, writers=writers, seconds=WARM_UP_SECONDS)
        _settle_memory()
        deadline = time.perf_counter() + SECONDS
        while time.perf_counter() < deadline:
            others.append(await drive(plain, writers=writers, seconds=burst))
            if way.relay:
                way.relay.resume()
            mine.append(await drive(operation, writers=writers, seconds=burst))
    await _tidy(stack, way)
    return _Pair(way=joined(mine), plain=joined(others))


def _settle_memory() -> None:
    """Put what opening a way has left in memory out of the collector's sight.

    A full collection stops this process for some fifty milliseconds, and would fall upon whichever way has been opened last.
    """
    gc.collect()
    gc.freeze()


async def _tidy(stack: Stack, way: Way) -> None:
    """Empty the journal, so that every round finds the same."""
    if way.relay:
        if not await way.relay.drained(timeout_seconds=10):
            raise RuntimeError("the relay did not empty the journal in ten seconds")
        await asyncio.sleep(0.05)  # so that it is idle and holds nothing
        way.relay.hold()
    elif way.service:
        url = stack.new_url if way.service is RAMPDOWN else stack.legacy_url
        await run_sql(url, f"TRUNCATE tandem_{way.service.manager.service}.journal")


def _plain_result(writers: int, figure: _Figure, loads: Sequence[Load]) -> Result:
    value = median(figure.of(load) for load in loads)
    return Result(name=_name("plain", writers, figure), value=value, unit=figure.unit)


def _result(name: str, writers: int, figure: _Figure, pairs: Sequence[_Pair]) -> Result:
    mine = [figure.of(pair.way) for pair in pairs]
    plain = [figure.of(pair.plain) for pair in pairs]
    return Result(
        name=_name(name, writers, figure),
        value=median(mine),
        unit=figure.unit,
        peer="plain write",
        peer_value=median(plain),
        ratio=median(one / other for one, other in zip(mine, plain, strict=True)),
        goal=figure.goals.get(name),
    )


def _name(way: str, writers: int, figure: _Figure) -> str:
    return f"writes.{way}.{writers}_writer{'s' if writers > 1 else ''}.{figure.name}"
