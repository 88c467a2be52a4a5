"""`tandem repair SERVICE`: makes keys that differ equal again."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated

import structlog
import typer
from structlog.typing import EventDict, WrappedLogger

from backend.shared.cli.install import ServiceArgument
from backend.shared.cli.services import managed
from backend.shared.domain.phases import Side
from backend.shared.identity import system_user
from backend.shared.migration.repair import Repairer
from backend.shared.migration.repair_results import KeyRepair, RepairOutcome, RepairReport, RepairRequest

EXIT_SOMETHING_LEFT = 1


def repair(
    service: ServiceArgument,
    *,
    entity: Annotated[str | None, typer.Option(help="Only this entity.")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            help="This key, as JSON or bare; may be given again. Else those of the last validation."
        ),
    ] = None,
    source: Annotated[
        Side | None, typer.Option("--from", help="The side that is right; by default the authoritative one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL, per row, and change nothing.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "repair",
    by: Annotated[str | None, typer.Option(help="Who, for the log; by default the system's user.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many keys.", min=1)] = None,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Print values before and after, but never secret ones.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """Make keys that differ equal again: those that the last validation found, or those that are named.

    Exit 0: all are equal now (a dry run: all could be planned); 1: something is left; 2: could not run.
    """
    _log_to_stderr()
    request = RepairRequest(
        by=by or system_user(),
        reason=reason,
        entity=entity,
        keys=tuple(key or ()),
        source=source,
        dry_run=dry_run,
        show_values=show_values,
        limit=limit,
    )
    in_text = partial(_print_key, comment="-- " if dry_run else "")
    report = asyncio.run(_repair(service, request, on_key=_print_json if as_json else in_text))
    if as_json:
        typer.echo(json.dumps({"summary": report.to_dict()}, ensure_ascii=False))
    else:
        typer.echo(_summary(report))
    raise typer.Exit(0 if report.complete else EXIT_SOMETHING_LEFT)


async def _repair(
    service: str, request: RepairRequest, *, on_key: Callable[[KeyRepair], None]
) -> RepairReport:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end_after_this_batch(number: int) -> None:
        stop.set()
        loop.remove_signal_handler(number)  # the next one ends it at once

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end_after_this_batch, number)
    async with managed(service) as manager:
        await manager.start()
        return await Repairer(manager.runtime).run(request, on_key=on_key, stop=stop)


def _log_to_stderr() -> None:
    """The log of who repaired what, a JSON object a line; not on a terminal, where the answer says the same."""
    structlog.configure(
        processors=[
            _only_repairs,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.ERROR if sys.stderr.isatty() else logging.INFO
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _only_repairs(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop what the engine says at INFO of its own affairs."""
    if method == "info" and event["event"] != "key_repaired":
        raise structlog.DropEvent
    return event


def _print_json(repair: KeyRepair) -> None:
    typer.echo(json.dumps(repair.to_dict(), ensure_ascii=False))


def _print_key(repair: KeyRepair, *, comment: str) -> None:
    """In a dry run all but the SQL is a comment, so that the whole can be kept as a script."""
    detail = f" ({repair.detail})" if repair.detail else ""
    names = ""
    if not any(item.shown for item in repair.fields):
        names = "".join(f" {item.field}" for item in repair.fields)
    typer.echo(f"{comment}{repair.entity} {repair.key}: {repair.outcome.value}{names}{detail}")
    for item in repair.fields:
        if item.shown:
            typer.echo(f"{comment}  {item.field}: {_on_one_line(item.before)} -> {_on_one_line(item.after)}")
    for statement in repair.sql:
        typer.echo(statement)


def _on_one_line(value: str | None) -> str:
    return "" if value is None else value.replace("\n", "\\n").replace("\r", "\\r")


def _summary(report: RepairReport) -> str:
    counts = ", ".join(
        f"{report.counts[outcome]} {outcome.value}" for outcome in RepairOutcome if report.counts.get(outcome)
    )
    ended = "; ended before the last key" if report.interrupted else ""
    dry = "; a dry run, nothing was changed" if report.dry_run else ""
    said = "; ".join(part for part in (counts, report.note) if part) or "nothing done"
    comment = "-- " if report.dry_run else ""
    return f"{comment}{report.service}, {report.source.value} to {report.target.value}: {said}{dry}{ended}"
