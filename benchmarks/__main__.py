"""`python -m benchmarks [--only NAME]`: measure, print tables, write `benchmarks/results/latest.json`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import platform
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from rich.console import Console

from backend.shared.domain.errors import TandemError
from benchmarks.backfilling import measure_backfill
from benchmarks.comparing import measure_comparing
from benchmarks.cutting_over import measure_cutover
from benchmarks.delivering import measure_delivery
from benchmarks.documents import measure_documents
from benchmarks.fencing import measure_fence
from benchmarks.ordering import measure_ordering
from benchmarks.reading import measure_shadow_reads
from benchmarks.recording import measure_recording
from benchmarks.relaying import measure_lag, measure_relay
from benchmarks.report import Result, show, write_latest
from benchmarks.stack import Stack, running_stack
from benchmarks.statements import measure_statements
from benchmarks.validating import measure_validate
from benchmarks.writes import measure_writes

Benchmark = Callable[[Stack, Console], Awaitable[list[Result]]]

BENCHMARKS: dict[str, Benchmark] = {
    "statements": measure_statements,
    "writes": measure_writes,
    "relay": measure_relay,
    "lag": measure_lag,
    "compare": measure_comparing,
    "validate": measure_validate,
    "backfill": measure_backfill,
    "fence": measure_fence,
    "cutover": measure_cutover,
    "shadow_reads": measure_shadow_reads,
    "documents": measure_documents,
    "delivery": measure_delivery,
    "recording": measure_recording,
    "ordering": measure_ordering,
}
LIMIT_SECONDS = {
    "statements": 30.0,
    "writes": 240.0,
    "relay": 90.0,
    "lag": 60.0,
    "compare": 300.0,
    "validate": 120.0,
    "backfill": 300.0,
    "fence": 120.0,
    "cutover": 120.0,
    "shadow_reads": 120.0,
    "documents": 600.0,
    "delivery": 240.0,
    "recording": 120.0,
    "ordering": 300.0,
}


def main() -> int:
    """Exit 0 when everything was measured, met or not; 2 when something could not be."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", choices=sorted(BENCHMARKS), help="run one benchmark")
    chosen: str | None = parser.parse_args().only
    names = [chosen] if chosen else list(BENCHMARKS)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(_machine(), style="dim")
    started = time.monotonic()
    try:
        results = _run(names, console)
    except (TandemError, TimeoutError, RuntimeError) as error:
        console.print(f"not measured: {str(error) or type(error).__name__}", style="red")
        return 2
    except KeyboardInterrupt:
        return 130
    write_latest(results, benchmarks=names)
    missed = [result.name for result in results if result.met is False]
    console.print(f"{len(results)} figures in {time.monotonic() - started:.0f} s", style="dim")
    if missed:
        console.print(f"goals not met: {', '.join(missed)}", style="yellow")
    return 0


def _run(names: list[str], console: Console) -> list[Result]:
    results: list[Result] = []
    with running_stack() as stack:
        for name in names:
            console.print(f"[bold]{name}[/]")
            found = asyncio.run(_bounded(name, stack, console))
            show(console, name, found)
            results += found
    return results


async def _bounded(name: str, stack: Stack, console: Console) -> list[Result]:
    async with asyncio.timeout(LIMIT_SECONDS[name]):
        return await BENCHMARKS[name](stack, console)


def _machine() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = Path("/proc/loadavg")
    busy = load.read_text(encoding="utf-8").split()[0] if load.exists() else "unknown"
    return (
        f"{len(models) or 'unknown'} x {models[0] if models else platform.processor()}, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, load before: {busy}"
    )


if __name__ == "__main__":
    sys.exit(main())
