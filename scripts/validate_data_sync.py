#!/usr/bin/env python
"""Say whether both sides of each service hold the same. A shell round `backend.shared.sync_validator`.

Finds the embedded stack by itself when it is up, else takes the URLs from the environment. Exit 0: all equal; 1:
something differs; 2: incomplete, or could not run.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.shared.cli.services import managed, service_names
from backend.shared.domain.errors import TandemError
from backend.shared.observability.labels import Verdict
from backend.shared.sync_validator import SyncValidator
from backend.shared.validation.report import EntityReport, ValidationReport

EXIT_CODES = {Verdict.EQUAL: 0, Verdict.DIFFERENT: 1, Verdict.INCOMPLETE: 2}


def main(
    *,
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    entity: Annotated[str | None, typer.Option(help="Only this entity; asks for --service.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    show_values: Annotated[
        bool, typer.Option(help="Print values that differ, but never secret ones.")
    ] = False,
) -> None:
    """Validate all services, or one."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if entity and not service:
        typer.echo("validate_data_sync: --entity asks for --service", err=True)
        raise typer.Exit(2)
    try:
        report = asyncio.run(_run([service] if service else service_names(), entity, show_values=show_values))
    except TandemError as error:
        typer.echo(f"validate_data_sync: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)
    raise typer.Exit(EXIT_CODES[report.verdict])


async def _run(services: list[str], entity: str | None, *, show_values: bool) -> ValidationReport:
    reports: list[EntityReport] = []
    for name in services:
        async with managed(name) as manager:
            await manager.start()
            found = await SyncValidator(manager.runtime).run(
                [entity] if entity else None, show_values=show_values
            )
            reports += found.entities
    return ValidationReport(entities=tuple(reports))


def _print(report: ValidationReport) -> None:
    console = Console()
    table = Table(
        "service", "entity", "legacy", "new", "missing in new", "missing in legacy", "different", "verdict"
    )
    for item in report.entities:
        counts = (
            item.rows_legacy,
            item.rows_new,
            item.missing_in_new,
            item.missing_in_legacy,
            item.different,
        )
        table.add_row(item.service, item.entity, *map(str, counts), item.verdict.value)
    console.print(table)
    for item in report.entities:
        for mismatch in item.mismatches:
            console.print(f"{item.service} {item.entity} {escape(mismatch.key)} {mismatch.kind.value}")
            for field in mismatch.fields:
                if field.legacy is None and field.new is None:
                    console.print(f"  ~ {field.field}")
                    continue
                console.print(f"[red]  - {field.field} legacy {escape(repr(field.legacy))}")
                console.print(f"[green]  + {field.field} new    {escape(repr(field.new))}")
    console.print(f"verdict: {report.verdict.value}")


if __name__ == "__main__":
    typer.run(main)
