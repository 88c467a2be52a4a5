"""`tandem demo`: the whole story in two minutes, with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.shared.observability.logging import configure_logging
from backend.shared.testing.programs import REPOSITORY

from .commands import Data, Seed, Size, run_until_signalled
from .display import Display
from .folders import report_path
from .report import closing_table, dirt_table
from .run_command import run_in_private, show
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
    report = run_until_signalled(
        run_in_private(
            "demo", lambda folder: Demo(options, folder=folder, display=Display(console)), kept=KEPT_LOGS
        )
    )
    report.write(path)
    dirt = [dirt_table(report.load)] if any(report.load.dirt.values()) else []
    show(
        console,
        report,
        [*dirt, phase_table(report), closing_table(report)],
        held="nothing was lost, both sides were the same, and no phase change failed a request",
        path=path,
        kept=KEPT_LOGS,
    )
    raise typer.Exit(report.exit_code)
