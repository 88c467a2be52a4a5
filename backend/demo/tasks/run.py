"""`tandem demo-tasks`: the task service from MongoDB to PostgreSQL, with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.demo.commands import Seed, run_until_signalled
from backend.demo.display import Display
from backend.demo.folders import report_path
from backend.demo.run_command import run_in_private, show
from backend.demo.run_report import phase_table
from backend.shared.observability.logging import configure_logging
from backend.shared.testing.programs import REPOSITORY

from .report import closing_table, misfit_table
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
    options = TasksOptions(seed=seed, size=size, seconds=seconds)
    report = run_until_signalled(
        run_in_private(
            "demo-tasks",
            lambda folder: TasksDemo(options, folder=folder, display=Display(console)),
            kept=KEPT_LOGS,
        )
    )
    report.write(path)
    show(
        console,
        report,
        [misfit_table(report.misfits), phase_table(report), closing_table(report)],
        held="nothing was lost, documents and rows were the same, and no phase change failed a request",
        path=path,
        kept=KEPT_LOGS,
    )
    raise typer.Exit(report.exit_code)
