#!/usr/bin/env python
"""Say whether both sides of each service hold the same. A shell round `backend.shared.sync_validator`.

Finds the embedded stack by itself when it is up, else takes the URLs from the environment. Exit 0: all equal; 1:
something differs; 2: incomplete, or could not run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.shared.cli.services import managed, manager_class, service_names
from backend.shared.domain.errors import ConfigurationError, TandemError
from backend.shared.observability.labels import Verdict
from backend.shared.sync_validator import SyncValidator
from backend.shared.validation.report import EntityReport, Mismatch, MismatchKind, ValidationReport

EXIT_CODES = {Verdict.EQUAL: 0, Verdict.DIFFERENT: 1, Verdict.INCOMPLETE: 2}
COULD_NOT_RUN = 2
_STYLES = {Verdict.EQUAL: "green", Verdict.DIFFERENT: "red", Verdict.INCOMPLETE: "yellow"}
_LEFT_OUT = "… and {} more keys"


def main(
    *,
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    entity: Annotated[str | None, typer.Option(help="Only this entity.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Print values that differ, but never secret ones.")
    ] = False,
) -> None:
    """Hold both sides of all services, or of one, against each other."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        report = asyncio.run(_run(_chosen(service, entity), entity, show_values=show_values))
    except TandemError as error:
        _give_up(str(error))
    except KeyboardInterrupt:
        _give_up("interrupted before the end")
    except Exception as error:  # noqa: BLE001 - exit 1 says that something differs: no crash may say so
        _give_up(f"could not run: {type(error).__name__}")
    if as_json:
        typer.echo(json.dumps(report.to_dict(mismatches=True), indent=2))
    else:
        _print(report)
    raise typer.Exit(EXIT_CODES[report.verdict])


def _give_up(reason: str) -> NoReturn:
    typer.echo(f"validate_data_sync: {' '.join(reason.split())}", err=True)
    raise typer.Exit(COULD_NOT_RUN)


def _chosen(service: str | None, entity: str | None) -> list[str]:
    """The services that are meant; those that have `entity`, if no service is named."""
    names = [service] if service else service_names()
    if not names:
        raise ConfigurationError("there is no service installed")
    if entity is None:
        return names
    chosen = [name for name in names if entity in manager_class(name).catalog()]
    if not chosen:
        known = ", ".join(item.name for name in names for item in manager_class(name).catalog().ordered)
        raise ConfigurationError(f"there is no entity {entity!r}; there are: {known}")
    return chosen


async def _run(services: Sequence[str], entity: str | None, *, show_values: bool) -> ValidationReport:
    reports: list[EntityReport] = []
    notes: list[str] = []
    for name in services:
        async with managed(name) as manager:
            await manager.start()
            found = await SyncValidator(manager.runtime).run(
                [entity] if entity else None, show_values=show_values
            )
            reports += found.entities
            notes += [f"{name}: {note}" for note in found.notes]
    return ValidationReport(entities=tuple(reports), notes=tuple(notes))


def _print(report: ValidationReport) -> None:
    # A pipe has no width: lines that are read by programs are not to be broken.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    table = Table("service", "entity")
    for title in ("legacy", "new", "missing in new", "missing in legacy", "different", "moving"):
        table.add_column(title, justify="right")
    table.add_column("verdict")
    for item in report.entities:
        missing = (item.missing_in_new, item.missing_in_legacy)
        counts = (item.rows_legacy, item.rows_new, *missing, item.different, item.moving)
        style = _STYLES[item.verdict]
        verdict = f"[{style}]{item.verdict.value}[/{style}]"
        table.add_row(item.service, item.entity, *(f"{count:,}" for count in counts), verdict)
    console.print(table)
    if any(item.mismatch_count for item in report.entities):
        console.print("[red]--- legacy[/red]\n[green]+++ new[/green]")
    for item in report.entities:
        for mismatch in item.mismatches:
            _print_mismatch(console, f"{item.service} {item.entity} {mismatch.key}", mismatch)
        if left_out := item.mismatch_count - len(item.mismatches):
            console.print(f"  {item.service} {item.entity} {_LEFT_OUT.format(left_out)}")
    for note in report.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    style = _STYLES[report.verdict]
    console.print(f"verdict: [{style}]{report.verdict.value}[/{style}]")


def _print_mismatch(console: Console, place: str, mismatch: Mismatch) -> None:
    """One key as git would show it: `-` is what legacy has, `+` is what new has."""
    if mismatch.kind is MismatchKind.MISSING_IN_NEW:
        head = f"[red]- {escape(place)}[/red]"
    elif mismatch.kind is MismatchKind.MISSING_IN_LEGACY:
        head = f"[green]+ {escape(place)}[/green]"
    else:
        head = f"[yellow]~ {escape(place)}[/yellow] {mismatch.kind.value}"
    console.print(head, soft_wrap=True, highlight=False)
    one_sided = mismatch.kind in (MismatchKind.MISSING_IN_NEW, MismatchKind.MISSING_IN_LEGACY)
    for field in mismatch.fields:
        if field.legacy is None and field.new is None:
            if not one_sided:
                console.print(f"    {escape(field.field)}", soft_wrap=True, highlight=False)
            continue
        for sign, style, value in (("-", "red", field.legacy), ("+", "green", field.new)):
            line = f"{sign}   {escape(field.field)}: {escape(repr(value))}"
            console.print(f"[{style}]{line}[/{style}]", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    typer.run(main)
