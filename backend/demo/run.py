"""`tandem demo`: the whole story in two minutes, with a verdict."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.shared.domain.errors import ConfigurationError
from backend.shared.observability.logging import configure_logging
from backend.shared.testing.programs import REPOSITORY, remove_left_overs, state_directory

from .commands import Data, Seed, Size, run_until_signalled
from .display import Display
from .report import DemoReport, closing_table, dirt_table, phase_table
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
    report_path = _report_path(json)
    source = ShopSource(seed=seed, size=size, data=data)
    source.check()
    configure_logging("demo", level="CRITICAL")  # what goes wrong is shown, not logged
    options = DemoOptions(source=source, seconds=seconds)
    report = run_until_signalled(_run(options, display=Display(console)))
    report.write(report_path)
    _show(console, report, report_path)
    raise typer.Exit(report.exit_code)


async def _run(options: DemoOptions, *, display: Display) -> DemoReport:
    """Run in a folder that is gone afterwards. The logs of a run that did not hold are kept."""
    shutil.rmtree(KEPT_LOGS, ignore_errors=True)
    # Inside of the loop, where a signal waits: none can come between the folder and its end.
    with _private_folder() as folder:
        run = Demo(options, folder=folder, display=display)
        try:
            report = await run.run()
        except Exception:
            _keep_logs(run.logs)
            raise
        if report.exit_code:
            _keep_logs(run.logs)
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
        console.print(f"logs: {_shown(KEPT_LOGS)}", highlight=False)
    else:
        console.print(
            "[bold green]nothing was lost, both sides were the same, and no phase change failed a request[/bold green]"
        )
    console.print(f"report: {_shown(path)}", highlight=False)


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _report_path(given: Path | None) -> Path:
    """Where the report will go; that it can be written is known before anything starts."""
    path = (given or DEFAULT_REPORT).absolute()
    if given is None:
        path.parent.mkdir(exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"--json: {path} cannot be written")
    return path


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder for this run alone, gone afterwards; those of runs that were killed go as well."""
    demos = state_directory() / "demo"
    demos.mkdir(mode=0o711, exist_ok=True)
    remove_left_overs(demos)
    folder = demos / str(os.getpid())
    folder.mkdir(mode=0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep_logs(logs: Path) -> None:
    if logs.is_dir():
        shutil.copytree(logs, KEPT_LOGS, dirs_exist_ok=True)
