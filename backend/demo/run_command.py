"""What the commands of all demos share: a folder that goes, logs that are kept, and a verdict."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from rich.console import Console
from rich.table import Table

from .folders import keep_logs, private_folder, shown


class Verdict(Protocol):
    """What a run has shown."""

    @property
    def complaints(self) -> list[str]:
        """Why it did not hold; empty if it did."""
        ...

    @property
    def exit_code(self) -> int:
        """0 if it held, else 1."""
        ...


class Judged:
    """A report whose exit code is its verdict's."""

    @property
    def complaints(self) -> list[str]:
        """Why it did not hold; empty if it did."""
        raise NotImplementedError

    @property
    def exit_code(self) -> int:
        """0 if all held, else 1."""
        return 1 if self.complaints else 0


ReportT_co = TypeVar("ReportT_co", bound=Verdict, covariant=True)
ReportT = TypeVar("ReportT", bound=Verdict)


class Run(Protocol[ReportT_co]):
    """One run of a demo."""

    logs: Path

    async def run(self) -> ReportT_co:
        """Run from end to end."""


async def run_in_private(name: str, make: Callable[[Path], Run[ReportT]], *, kept: Path) -> ReportT:
    """Run in a folder that is gone afterwards. The logs of a run that did not hold are `kept`."""
    shutil.rmtree(kept, ignore_errors=True)
    # Inside of the loop, where a signal waits: none can come between the folder and its end.
    with private_folder(name) as folder:
        run = make(folder)
        try:
            report = await run.run()
        except Exception:
            keep_logs(run.logs, kept=kept)
            raise
        if report.exit_code:
            keep_logs(run.logs, kept=kept)
        return report


def show(
    console: Console, report: Verdict, tables: Iterable[Table], *, held: str, path: Path, kept: Path
) -> None:
    """The tables, then the verdict: `held` if all that was promised did."""
    console.print()
    for table in tables:
        console.print(table)
        console.print()
    for complaint in report.complaints:
        console.print(f"[bold red]{complaint}[/bold red]", highlight=False)
    if report.complaints:
        console.print(f"logs: {shown(kept)}", highlight=False)
    else:
        console.print(f"[bold green]{held}[/bold green]")
    console.print(f"report: {shown(path)}", highlight=False)
