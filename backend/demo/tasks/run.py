"""`tandem demo-tasks`: the task service from MongoDB to PostgreSQL, with a verdict."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.demo.commands import Seed, run_until_signalled
from backend.demo.display import Display
from backend.demo.folders import keep_logs, private_folder, report_path, shown
from backend.demo.run_report import phase_table
from backend.shared.observability.logging import configure_logging
from backend.shared.testing.programs import REPOSITORY

from .report import TasksReport, closing_table, misfit_table
from .scenario import TasksDemo, TasksOptions

DEFAULT_REPORT = REPOSITORY / ".tandem" / "demo-tasks-report.json"
KEPT_LOGS = REPOSITORY / ".tandem" / "demo-tasks-logs"

Size = Annotated[int | None, typer.Option(help="About how many documents to generate.", min=1)]
Seconds = Annotated[
    float,
    typer.Option(help="Over how long the faults while history is moved are spread.", min=1.0, max=3600.0),
]
Report = Annotated[
    Path | None,
    typer.Option("--json", help="Where the report goes; default: .tandem/demo-tasks-report.json."),
]


def demo_tasks(
    *, seed: Seed = 1, size: Size = None, seconds: Seconds = TasksOptions.seconds, json: Report = None
) -> None:
    """Move the task service from MongoDB to PostgreSQL through all phases, under traffic and faults, and hold every write against both.

    Exit 0: nothing was lost, nothing differs, every document that does not fit was listed. 1: one of these did not hold.
    2: it could not be run.
    """
    console = Console()
    path = report_path(json, default=DEFAULT_REPORT)
    configure_logging("demo", level="CRITICAL")  # what goes wrong is shown, not logged
    report = run_until_signalled(
        _run(TasksOptions(seed=seed, size=size, seconds=seconds), display=Display(console))
    )
    report.write(path)
    _show(console, report, path)
    raise typer.Exit(report.exit_code)


async def _run(options: TasksOptions, *, display: Display) -> TasksReport:
    """Run in a folder that is gone afterwards. The logs of a run that did not hold are kept."""
    shutil.rmtree(KEPT_LOGS, ignore_errors=True)
    # Inside of the loop, where a signal waits: none can come between the folder and its end.
    with private_folder("demo-tasks") as folder:
        run = TasksDemo(options, folder=folder, display=display)
        try:
            report = await run.run()
        except Exception:
            keep_logs(run.logs, kept=KEPT_LOGS)
            raise
        if report.exit_code:
            keep_logs(run.logs, kept=KEPT_LOGS)
        return report


def _show(console: Console, report: TasksReport, path: Path) -> None:
    console.print()
    for table in (misfit_table(report.misfits), phase_table(report), closing_table(report)):
        console.print(table)
        console.print()
    for complaint in report.complaints:
        console.print(f"[bold red]{complaint}[/bold red]", highlight=False)
    if report.complaints:
        console.print(f"logs: {shown(KEPT_LOGS)}", highlight=False)
    else:
        console.print(
            "[bold green]nothing was lost, documents and rows were the same, and no phase change failed a request[/bold green]"
        )
    console.print(f"report: {shown(path)}", highlight=False)
