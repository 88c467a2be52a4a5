"""Open-loop load: requests begin when they are due, whether or not those before have been answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass
class Steady:
    """What became of the requests. Latencies are in seconds from when a request was due, so that no stall hides."""

    latencies: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """The latency that `percent` of the requests did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def drive_steadily(
    request: Callable[[int], Awaitable[None]], *, per_second: float, stop: asyncio.Event
) -> Steady:
    """Begin `per_second` requests a second until `stop`; answers when all have ended. What a request raises is counted."""
    done = Steady()
    began, number = time.perf_counter(), 0
    running: set[asyncio.Task[None]] = set()

    async def one(number: int, due: float) -> None:
        try:
            await request(number)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request has failed
            done.failed.append(f"{type(error).__name__}: {error}")
        done.latencies.append(time.perf_counter() - due)

    while not stop.is_set():
        due = began + number / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.ensure_future(one(number, due))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
    await asyncio.gather(*running)
    return done
