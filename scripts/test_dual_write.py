#!/usr/bin/env python
"""Exercise each operation of each running service's manager, and print a report. A shell round `backend.shared.exercise`.

Finds the embedded stack by itself when it is up, else takes the URLs from the environment. Exit 0: all passed; 1: some
failed; 2: could not run.
"""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import Annotated

import structlog
import typer

from backend.shared.cli.services import managed, services_set_up
from backend.shared.domain.errors import TandemError
from backend.shared.exercise import ExerciseReport, exercise


def main(
    *,
    service: Annotated[list[str] | None, typer.Option(help="Only this service; may be repeated.")] = None,
) -> None:
    """Exercise all services, or those named; the report is JSON."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        report = asyncio.run(_run(service or services_set_up(partial(typer.echo, err=True))))
    except TandemError as error:
        typer.echo(f"test_dual_write: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(json.dumps(report.to_dict(), indent=2))
    raise typer.Exit(0 if report.success else 1)


async def _run(services: list[str]) -> ExerciseReport:
    results = []
    for name in services:
        async with managed(name) as manager:
            await manager.start()
            results += await exercise(manager)
    return ExerciseReport(results=tuple(results))


if __name__ == "__main__":
    typer.run(main)
