"""`tandem backfill SERVICE`: copy history while everything is in use, watch it, hold it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from backend.shared.cli.install import ServiceArgument
from backend.shared.cli.services import managed
from backend.shared.domain.errors import ConfigurationError
from backend.shared.migration.backfill import Backfill, BackfillStatus, EntityStatus
from backend.shared.migration.backfill_state import Stage
from backend.shared.observability.logging import configure_logging

EXIT_COMPLETE, EXIT_FAILURES, EXIT_STOPPED = 0, 1, 2
WATCH_SECONDS = 0.5
LINE_SECONDS = 5.0
"""Where there is no terminal, a line is printed this often."""


def backfill(
    service: ServiceArgument,
    *,
    entity: Annotated[list[str] | None, typer.Option(help="Only this entity; may be repeated.")] = None,
    max_rows_per_second: Annotated[
        float | None, typer.Option(help="Copy no more rows a second; 0: no limit.", min=0)
    ] = None,
    max_lag_seconds: Annotated[
        float | None, typer.Option(help="Hold while the relay's lag is above this; 0: no limit.", min=0)
    ] = None,
    max_connection_share: Annotated[
        float | None,
        typer.Option(
            help="Hold while more of either server's connections are in use; 0: no limit.", min=0, max=1
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Chunks copied at a time.", min=1, max=64)] = None,
    status: Annotated[bool, typer.Option("--status", help="Say how far it is, and end.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Hold the one that runs, and end.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Let the one that is held go on, and end.")
    ] = False,
    limit: Annotated[
        bool, typer.Option("--limit", help="Give the one that runs these limits, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the state as JSON.")] = False,
) -> None:
    """Copy the history of a service to its other side, under live traffic. Run again, it goes on where it was.

    Limits are kept, for every process that works on the service, until they are changed. Exit 0: complete; 1: complete
    with failures; 2: not complete, or could not run.
    """
    if sum((status, pause, resume, limit)) > 1:
        raise ConfigurationError("--status, --pause, --resume and --limit exclude each other")
    changes: dict[str, Any] = {
        name: value or None
        for name, value in (
            ("max_rows_per_second", max_rows_per_second),
            ("max_lag_seconds", max_lag_seconds),
            ("max_connection_share", max_connection_share),
        )
        if value is not None
    }
    if workers is not None:
        changes["workers"] = workers
    configure_logging(f"{service}-backfill", level="ERROR")
    paused = True if pause else False if resume else None
    only_tell = status or limit or paused is not None
    code = asyncio.run(
        _tell(service, paused=paused, changes=changes, as_json=as_json)
        if only_tell
        else _run(service, entity or None, changes=changes, as_json=as_json)
    )
    raise typer.Exit(code)


async def _tell(service: str, *, paused: bool | None, changes: dict[str, Any], as_json: bool) -> int:
    async with managed(service) as manager:
        await manager.start()
        work = Backfill(manager.runtime)
        before = (await work.status()).control
        if paused is not None or changes:
            await work.tell(paused=paused, limits=before.limits.changed(changes))
        found = await work.status()
    _show(found, as_json=as_json)
    return _code(found) if paused is None and not changes else EXIT_COMPLETE


async def _run(service: str, entities: list[str] | None, *, changes: dict[str, Any], as_json: bool) -> int:
    async with managed(service) as manager:
        await manager.start()
        work = Backfill(manager.runtime)
        if changes:
            limits = (await work.status()).control.limits
            await work.tell(limits=limits.changed(changes))
        running = asyncio.create_task(work.run(entities))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        async with _watched(work, quiet=as_json):
            with suppress(asyncio.CancelledError):
                await running
        found = await work.status()
    _show(found, as_json=as_json)
    if running.cancelled():
        typer.echo(f"{service}: stopped; run it again to go on", err=True)
        return EXIT_STOPPED
    return _code(found, entities)


def _code(found: BackfillStatus, entities: list[str] | None = None) -> int:
    chosen = [item for item in found.entities if entities is None or item.progress.entity in entities]
    left = [item for item in chosen if item.progress.stage is not Stage.COMPLETE or item.void]
    if left or not chosen or (entities is None and found.missing):
        return EXIT_STOPPED
    return EXIT_FAILURES if any(item.failures_open for item in chosen) else EXIT_COMPLETE


@asynccontextmanager
async def _watched(work: Backfill, *, quiet: bool) -> AsyncIterator[None]:
    """Show progress while the block runs: bars on a terminal, else a line now and then, on stderr."""
    if quiet:
        yield
        return
    console = Console(stderr=True)
    watching = asyncio.create_task(_bars(work, console) if console.is_terminal else _lines(work))
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await watching


async def _bars(work: Backfill, console: Console) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("[yellow]{task.fields[held]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as bars:
        while True:
            for item in (await work.status()).entities:
                name, (done, total) = item.progress.entity, rows_of(item)
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=total, rate="", held="")
                working = item.progress.stage is not Stage.COMPLETE and done > 0
                rate = f"{work.throttle.rows_per_second:,.0f} rows/s" if working else ""
                held = f"held by {work.throttle.held_by}" if working and work.throttle.held_by else ""
                bars.update(tasks[name], completed=done, total=total, rate=rate, held=held)
            await asyncio.sleep(WATCH_SECONDS)


async def _lines(work: Backfill) -> None:
    while True:
        await asyncio.sleep(LINE_SECONDS)
        found = await work.status()
        for item in found.entities:
            if item.progress.stage is not Stage.COMPLETE:
                done, total = rows_of(item)
                held = f", held by {work.throttle.held_by}" if work.throttle.held_by else ""
                rate = f"{work.throttle.rows_per_second:,.0f} rows/s"
                typer.echo(f"{item.progress.entity}: {done:,} of {total:,} rows, {rate}{held}", err=True)


def rows_of(item: EntityStatus) -> tuple[int, int]:
    """Rows copied, and rows there are to copy as far as is known."""
    progress = item.progress
    if progress.stage is not Stage.COPY:
        return progress.rows_copied, progress.rows_copied
    return progress.rows_copied, max(progress.rows_expected, progress.rows_copied, 1)


def _show(found: BackfillStatus, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(to_dict(found), indent=2, default=str))
        return
    table = Table("entity", "state")
    for title in ("rows copied", "expected", "removed", "left to the relay", "failures"):
        table.add_column(title, justify="right")
    for item in found.entities:
        progress = item.progress
        counts = (progress.rows_copied, rows_of(item)[1], progress.keys_removed, progress.keys_waiting)
        table.add_row(progress.entity, item.summary, *(f"{n:,}" for n in counts), f"{item.failures_open:,}")
    for name in found.missing:
        table.add_row(name, "not begun", *[""] * 5)
    Console().print(table)
    typer.echo(f"{found.service}: {describe_state(found)}")


def describe_state(found: BackfillStatus) -> str:
    """One line: whether it is complete, whether anybody works on it, and what holds that."""
    control = found.control
    if found.is_complete:
        count = found.failures_open
        return f"complete with {count} failure{'s' if count > 1 else ''}" if count else "complete"
    if not control.is_running:
        return "paused, and no process works on it" if control.paused else "no process works on it"
    if control.held_by:
        return f"held by {control.held_by}"
    return f"copying, {control.rows_per_second or 0:,.0f} rows/s"


def to_dict(found: BackfillStatus) -> dict[str, Any]:
    """The state as JSON has it."""
    control = found.control
    return {
        "service": found.service,
        "direction": found.direction.value,
        "complete": found.is_complete,
        "state": describe_state(found),
        "running": control.is_running,
        "paused": control.paused,
        "held_by": control.held_by,
        "rows_per_second": control.rows_per_second,
        "limits": asdict(control.limits),
        "entities": [
            {
                "entity": item.progress.entity,
                "state": item.summary,
                "stage": item.progress.stage.value,
                "rows_copied": item.progress.rows_copied,
                "rows_expected": rows_of(item)[1],
                "keys_removed": item.progress.keys_removed,
                "keys_left_to_relay": item.progress.keys_waiting,
                "failures_open": item.failures_open,
                "started_at": item.progress.started_at,
                "finished_at": item.progress.finished_at,
            }
            for item in found.entities
        ],
        "not_begun": list(found.missing),
    }


__all__ = ["backfill", "describe_state", "rows_of", "to_dict"]
