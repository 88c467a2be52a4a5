"""What a cutover does to the requests of a service with two replicas: the longest that one waited, and how many failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from rich.console import Console

from backend.shared import DualWriteManager, Key, Phase
from backend.shared.migration.gates import GateName
from backend.shared.migration.phase_controller import PhaseController
from benchmarks.report import Result
from benchmarks.service import CUTOVER
from benchmarks.stack import Stack
from benchmarks.steady import Steady, drive_steadily

REQUESTS_PER_SECOND = 200.0
CUTOVERS = 10
BETWEEN_SECONDS = 1.0


async def measure_cutover(stack: Stack, console: Console) -> list[Result]:
    """Cut over and back under load; every second request is a write."""
    async with AsyncExitStack() as exits:
        managers = [stack.manager(CUTOVER, phase=Phase.SHADOW) for _ in range(3)]
        for manager in managers:
            exits.push_async_callback(manager.close)
            await manager.start(relay=manager is not managers[0])
        stop = asyncio.Event()
        load = asyncio.ensure_future(
            drive_steadily(_request(managers[1:]), per_second=REQUESTS_PER_SECOND, stop=stop)
        )
        await asyncio.sleep(BETWEEN_SECONDS)
        stalls: list[float] = []
        try:
            for number in range(CUTOVERS):
                stalls.append(await _cut_over(managers[0], Phase.SHADOW if number % 2 else Phase.LIVE))
                console.print(f"  {number + 1} of {CUTOVERS}", style="dim")
                await asyncio.sleep(BETWEEN_SECONDS)
        finally:
            stop.set()
            done = await load
    return _results(done, stalls)


def _request(replicas: list[DualWriteManager]) -> Callable[[int], Awaitable[None]]:
    known: list[Key] = []

    async def request(number: int) -> None:
        replica = replicas[number % len(replicas)]
        if number % 4 < 2 or not known:
            done = await replica.write("add", lambda work: CUTOVER.insert_through(work, number))
            known.append(done.unwrap())
        else:
            key = known[number % len(known)]
            if await replica.read(lambda work: work.get("item", key)) is None:
                raise LookupError(f"{key} was written, and is not there")

    return request


async def _cut_over(operator: DualWriteManager, to: Phase) -> float:
    controller = PhaseController(operator.runtime, check_schema=operator.check_schema, by="bench")
    (step,) = await controller.change(to, reason="measured", force=[name.value for name in GateName])
    return step.stall_ms or 0.0


def _results(done: Steady, stalls: list[float]) -> list[Result]:
    return [
        Result(
            name="cutover.longest_request", value=max(done.latencies) * 1000, unit="ms", goal="value <= 500"
        ),
        Result(name="cutover.failed_requests", value=len(done.failed), unit="", goal="value <= 0"),
        Result(name="cutover.requests", value=len(done.latencies), unit=""),
        Result(name="cutover.p99", value=done.percentile(99) * 1000, unit="ms"),
        Result(name="cutover.longest_without_authority", value=max(stalls), unit="ms"),
    ]
