"""Runs a comparison for the command line: progress on a terminal, a clean end at Ctrl-C, exit codes that can be trusted."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from backend.shared.cli.services import managed
from backend.shared.cli.validation_output import COULD_NOT_RUN, EXIT_CODES, print_json, print_report
from backend.shared.domain.errors import TandemError
from backend.shared.observability.labels import RunKind
from backend.shared.sync_validator import SyncValidator
from backend.shared.validation.entity_run import Progress
from backend.shared.validation.report import EntityReport, ValidationReport

T = TypeVar("T")


class InterruptedBeforeTheEndError(TandemError):
    """Somebody asked for an end."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to compare: `entity` of `services` (all, if None)."""

    services: Sequence[str]
    entity: str | None = None
    changed: bool = False
    share: float = 1.0
    show_values: bool = False


def compare_and_exit(wanted: Wanted, *, as_json: bool, program: str) -> NoReturn:
    """Compare, print, and exit: 0 equal, 1 different, 2 incomplete or could not run."""
    report = or_exit(_compare(wanted, bars=sys.stderr.isatty() and not as_json), program=program)
    if as_json:
        print_json(report)
    else:
        print_report(report)
    raise typer.Exit(EXIT_CODES[report.verdict])


def or_exit(work: Coroutine[Any, Any, T], *, program: str) -> T:
    """The result of `work`; whatever keeps it from one is one line on stderr, and exit 2.

    Exit 1 says that something differs, so no crash may end with it.
    """
    try:
        return asyncio.run(_until_told(work))
    except TandemError as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = "interrupted before the end"
    except Exception as error:  # noqa: BLE001 - see above
        reason = f"could not run: {type(error).__name__}"
    typer.echo(f"{program}: {' '.join(reason.split())}", err=True)
    raise typer.Exit(COULD_NOT_RUN)


async def _until_told(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; SIGINT and SIGTERM cancel it, and it ends in its own way."""
    task, told = asyncio.ensure_future(work), list[int]()

    def end(number: int) -> None:
        told.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, ValueError):
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not told:
            raise
        raise InterruptedBeforeTheEndError(
            "interrupted before the end; the same command goes on from there"
        ) from None


async def _compare(wanted: Wanted, *, bars: bool) -> ValidationReport:
    reports: list[EntityReport] = []
    notes: list[str] = []
    found = ValidationReport(entities=())
    with ProgressBars(shown=bars) as shown:
        for name in wanted.services:
            async with managed(name) as manager:
                await manager.start()
                found = await SyncValidator(manager.runtime).run(
                    [wanted.entity] if wanted.entity else None,
                    changed=wanted.changed,
                    share=wanted.share,
                    show_values=wanted.show_values,
                    **shown.told_of(name),
                )
                reports += found.entities
                notes += [f"{name}: {note}" for note in found.notes]
    only = len(wanted.services) == 1
    return ValidationReport(
        entities=tuple(reports),
        notes=found.notes if only else tuple(notes),
        run_id=found.run_id if only else None,
        kind=RunKind.CHANGED if wanted.changed else found.kind,
        share=wanted.share,
        resumed=found.resumed if only else False,
    )


class ProgressBars:
    """A bar per entity on standard error, as a context; nothing at all unless `shown`."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._tasks: dict[tuple[str, str], Any] = {}
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[found]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Self:
        if self._shown:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._bars.stop()

    def told_of(self, service: str) -> dict[str, Any]:
        """Arguments for `SyncValidator.run`."""
        if not self._shown:
            return {}

        def tell(progress: Progress) -> None:
            self._show(service, progress)

        return {"tell": tell}

    def _show(self, service: str, progress: Progress) -> None:
        place = (service, progress.entity)
        if place not in self._tasks:
            self._tasks[place] = self._bars.add_task(
                f"{service} {progress.entity}", total=progress.expected, found=""
            )
        found = f"{progress.mismatches:,} differ" if progress.mismatches else ""
        total = progress.rows if progress.finished else max(progress.expected or 0, progress.rows) or None
        self._bars.update(self._tasks[place], completed=progress.rows, total=total, found=found)
