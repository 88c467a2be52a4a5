"""Closed-loop load: some writers, each of which starts its next write when the last has been answered."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from benchmarks.ways import Operation

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Load:
    """What some writers did in one stretch of time. Times are in seconds."""

    latencies: tuple[float, ...]
    elapsed: float

    @property
    def throughput(self) -> float:
        """Writes answered per second."""
        return len(self.latencies) / self.elapsed

    def percentile(self, percent: float) -> float:
        """The latency that `percent` of the writes did not exceed."""
        ordered = self._ordered
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    @cached_property
    def _ordered(self) -> list[float]:
        return sorted(self.latencies)


def joined(loads: Iterable[Load]) -> Load:
    """Several stretches as one."""
    parts = list(loads)
    return Load(
        tuple(latency for part in parts for latency in part.latencies), sum(part.elapsed for part in parts)
    )


async def drive(operation: Operation, *, writers: int, seconds: float) -> Load:
    """Write for `seconds` with `writers` at once."""
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + seconds

    async def writer() -> None:
        while (begun := time.perf_counter()) < end:
            await operation(next(_NUMBERS))
            latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(writer() for _ in range(writers)))
    return Load(tuple(latencies), time.perf_counter() - started)
