"""What a comparison of both sides prints: a table, the keys that differ as git would show them, and the verdict."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.shared.cli.foreign_text import foreign
from backend.shared.observability.labels import Verdict
from backend.shared.validation.mismatches import KeptMismatch
from backend.shared.validation.report import EntityReport, Mismatch, MismatchKind, ValidationReport
from backend.shared.validation.run_records import KeptRun

EXIT_CODES = {Verdict.EQUAL: 0, Verdict.DIFFERENT: 1, Verdict.INCOMPLETE: 2}
COULD_NOT_RUN = 2
_STYLES = {Verdict.EQUAL: "green", Verdict.DIFFERENT: "red", Verdict.INCOMPLETE: "yellow"}
_ONE_SIDED = (MismatchKind.MISSING_IN_NEW, MismatchKind.MISSING_IN_LEGACY)


def _console() -> Console:
    # A pipe has no width: lines that are read by programs are not to be broken.
    return Console() if sys.stdout.isatty() else Console(width=200)


def print_json(report: ValidationReport) -> None:
    """The report as one JSON document."""
    print(json.dumps(report.to_dict(mismatches=True), indent=2))  # noqa: T201 - what the command is for


def print_report(report: ValidationReport) -> None:
    """The report for people; values only where the report holds them."""
    console = _console()
    table = Table("service", "entity")
    for title in ("legacy", "new", "missing in new", "missing in legacy", "different", "moving"):
        table.add_column(title, justify="right")
    table.add_column("verdict")
    for item in report.entities:
        missing = (item.missing_in_new, item.missing_in_legacy)
        counts = (item.rows_legacy, item.rows_new, *missing, item.different, item.moving)
        table.add_row(item.service, item.entity, *(f"{count:,}" for count in counts), _styled(item.verdict))
    console.print(table)
    if any(item.mismatch_count for item in report.entities):
        console.print("[red]--- legacy[/red]\n[green]+++ new[/green]")
    for item in report.entities:
        _print_mismatches(console, item)
    changes = report.changes
    if changes.new or changes.still or changes.gone:
        console.print(
            f"compared with earlier runs: {changes.new:,} new, {changes.still:,} still there, {changes.gone:,} gone"
        )
    for note in report.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True, highlight=False)
    rest = report.verdict_text.removeprefix(report.verdict.value)
    console.print(f"verdict: {_styled(report.verdict)}{rest}", soft_wrap=True, highlight=False)


def print_kept(
    service: str, runs: Sequence[KeptRun], mismatches: Sequence[KeptMismatch], *, more: bool
) -> None:
    """The kept runs, newest first, and the mismatches that are open; `more` says that these are not all."""
    console = _console()
    table = Table("run", "kind", "entities", "state", "verdict", "began", "seconds", "by")
    for run in runs:
        seconds = sum(entity.seconds for entity in run.entities.values())
        verdict = _styled(run.verdict) if run.verdict else ""
        began = run.started_at.isoformat(sep=" ", timespec="seconds")
        by = foreign("background" if run.background else run.run_by)
        kind = f"{run.kind.value} {run.share:g}" if run.share < 1 else run.kind.value
        row = (str(run.id), kind, ", ".join(run.chosen), run.state, verdict, began, f"{seconds:.1f}", by)
        table.add_row(*row)
    console.print(table)
    for item in mismatches:
        since = item.first_seen.isoformat(sep=" ", timespec="seconds")
        fields = f" {', '.join(item.fields)}" if item.kind not in _ONE_SIDED and item.fields else ""
        line = f"{service} {item.entity} {item.key} {item.kind.value}{fields} (run {item.first_run} to {item.last_run}, since {since})"
        console.print(escape(line), soft_wrap=True, highlight=False)
    console.print("… and more" if more else f"{len(mismatches):,} mismatches are open", highlight=False)


def kept_as_dict(runs: Sequence[KeptRun], mismatches: Sequence[KeptMismatch]) -> dict[str, object]:
    """The same for programs."""
    return {
        "runs": [
            {
                "id": run.id,
                "kind": run.kind.value,
                "share": run.share,
                "entities": list(run.chosen),
                "state": run.state,
                "verdict": run.verdict.value if run.verdict else None,
                "background": run.background,
                "run_by": run.run_by,
                "times_resumed": run.times_resumed,
                "started_at": run.started_at.isoformat(),
                "finished_at": run.finished_at.isoformat() if run.finished_at else None,
            }
            for run in runs
        ],
        "mismatches": [
            {
                "id": item.id,
                "entity": item.entity,
                "key": item.key,
                "kind": item.kind.value,
                "fields": list(item.fields),
                "first_run": item.first_run,
                "last_run": item.last_run,
                "first_seen": item.first_seen.isoformat(),
                "last_seen": item.last_seen.isoformat(),
            }
            for item in mismatches
        ],
    }


def _styled(verdict: Verdict) -> str:
    return f"[{_STYLES[verdict]}]{verdict.value}[/{_STYLES[verdict]}]"


def _print_mismatches(console: Console, item: EntityReport) -> None:
    for mismatch in item.mismatches:
        _print_mismatch(console, f"{item.service} {item.entity} {mismatch.key}", mismatch)
    if left_out := item.mismatch_count - len(item.mismatches):
        console.print(f"  {item.service} {item.entity} … and {left_out} more keys")


def _print_mismatch(console: Console, place: str, mismatch: Mismatch) -> None:
    """One key as git would show it: `-` is what legacy has, `+` is what new has."""
    if mismatch.kind is MismatchKind.MISSING_IN_NEW:
        head = f"[red]- {escape(place)}[/red]"
    elif mismatch.kind is MismatchKind.MISSING_IN_LEGACY:
        head = f"[green]+ {escape(place)}[/green]"
    else:
        head = f"[yellow]~ {escape(place)}[/yellow] {mismatch.kind.value}"
    console.print(head, soft_wrap=True, highlight=False)
    for field in mismatch.fields:
        if field.legacy is None and field.new is None:
            if mismatch.kind not in _ONE_SIDED:
                console.print(f"    {escape(field.field)}", soft_wrap=True, highlight=False)
            continue
        for sign, style, value in (("-", "red", field.legacy), ("+", "green", field.new)):
            line = f"{sign}   {escape(field.field)}: {escape(repr(value))}"
            console.print(f"[{style}]{line}[/{style}]", soft_wrap=True, highlight=False)
