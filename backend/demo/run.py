"""`tandem demo`: the whole story in two minutes, with a verdict."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.shared.observability.logging import configure_logging
from backend.shared.testing.programs import REPOSITORY

from .commands import Data, Seed, Size, run_until_signalled
from .display import Display
from .folders import keep_logs, private_folder, report_path, shown
from .report import DemoReport, closing_table, dirt_table
from .run_report import phase_table
from .scenario import Demo, DemoOptions
from .steps import ShopSource

DEFAULT_REPORT = REPOSITORY / ".tandem" / "demo-report.json"
KEPT_LOGS = REPOSITORY / ".tandem" / "demo-logs"

Seconds = Annotated[
    float, typer.Option(help="Over how long the faults before the cutover are spread.", min=1.0, max=3600.0)
]
Report = Annotated[
    Path | None, typer.Option("--json", help="Where the report goes; default: .tandem/demo-report.json.")
]


def demo(
    *,
    data: Data = None,
    seed: Seed = 1,
    size: Size = None,
    seconds: Seconds = DemoOptions.seconds,
    json: Report = None,
) -> None:
    """Take all services through all phases, under traffic and faults, and hold every acknowledged write against both sides.

    Exit 0: nothing was lost, nothing differs, no request failed by a change. 1: one of these did not hold. 2: it could not be run.
    """
    console = Console()
    path = report_path(json, default=DEFAULT_REPORT)
    source = ShopSource(seed=seed, size=size, data=data)
    source.check()
    configure_logging("demo", level="CRITICAL")  # what goes wrong is shown, not logged
    options = DemoOptions(source=source, seconds=seconds)
    report = run_until_signalled(_run(options, display=Display(console)))
    report.write(path)
    _show(console, report, path)
    raise typer.Exit(report.exit_code)


async def _run(options: DemoOptions, *, display: Display) -> DemoReport:
    """Run in a folder that is gone afterwards. The logs of a run that did not hold are kept."""
    shutil.rmtree(KEPT_LOGS, ignore_errors=True)
    # Inside of the loop, where a signal waits: none can come between the folder and its end.
    with private_folder("demo") as folder:
        run = Demo(options, folder=folder, display=display)
        try:
            report = await run.run()
        except Exception:
            keep_logs(run.logs, kept=KEPT_LOGS)
            raise
        if report.exit_code:
            keep_logs(run.logs, kept=KEPT_LOGS)
        return report


def _show(console: Console, report: DemoReport, path: Path) -> None:
    console.print()
    if any(report.load.dirt.values()):
        console.print(dirt_table(report.load))
        console.print()
    console.print(phase_table(report))
    console.print()
    console.print(closing_table(report))
    for complaint in report.complaints:
        console.print(f"[bold red]{complaint}[/bold red]", highlight=False)
    if report.complaints:
        console.print(f"logs: {shown(KEPT_LOGS)}", highlight=False)
    else:
        console.print(
            "[bold green]nothing was lost, both sides were the same, and no phase change failed a request[/bold green]"
        )
    console.print(f"report: {shown(path)}", highlight=False)
