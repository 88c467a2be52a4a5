"""`tandem diff DSN_A TABLE_A DSN_B TABLE_B`: what differs between any two tables."""

from __future__ import annotations

import asyncio
import csv
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer

from backend.shared.validation.any_tables.compare import DiffRequest, diff_tables
from backend.shared.validation.any_tables.errors import DiffError
from backend.shared.validation.any_tables.plan import Choice
from backend.shared.validation.any_tables.results import DiffReport, Fields, RowDifference, RowKind

EXIT_DIFFERENT = 1
FROM_ENVIRONMENT = "env:"

_DSN = "postgresql://… or env:NAME, the environment variable that holds it."
_TABLE = "Table or view, as SQL writes it: schema.name, with double quotes where it needs them."


def diff(
    dsn_a: Annotated[str, typer.Argument(help=f"Database of A: {_DSN}")],
    table_a: Annotated[str, typer.Argument(help=_TABLE)],
    dsn_b: Annotated[str, typer.Argument(help="Database of B.")],
    table_b: Annotated[str, typer.Argument(help="Table or view of B.")],
    *,
    key: Annotated[
        str | None, typer.Option(help="Columns of the key, C,C; by default the primary key.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Compare these columns only, C,C.")] = None,
    exclude: Annotated[str | None, typer.Option(help="Leave these columns out, C,C.")] = None,
    where: Annotated[str | None, typer.Option(help="Compare only rows under this SQL condition.")] = None,
    limit: Annotated[int | None, typer.Option(help="Print at most this many rows.", min=0)] = None,
    again: Annotated[
        float | None, typer.Option(help="Look again after so many seconds at what differs.", min=0)
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print counts of rows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """Compare two tables, row by row and field by field: - what A has, + what B has.

    Exit 0: equal; 1: different; 2: could not compare.
    """
    if columns is not None and exclude is not None:
        raise DiffError("--columns and --exclude cannot go together")
    request = DiffRequest(
        dsn_a=_dsn(dsn_a),
        table_a=table_a,
        dsn_b=_dsn(dsn_b),
        table_b=table_b,
        choice=Choice(
            key=_names(key, "--key"),
            columns=_names(columns, "--columns"),
            exclude=_names(exclude, "--exclude") or (),
            where=where,
        ),
        again_seconds=again,
    )
    printer = _Printer(limit=limit, as_json=as_json)
    report = asyncio.run(diff_tables(request, tell=printer.row))
    printer.end(report, stats=stats)
    raise typer.Exit(0 if report.is_equal else EXIT_DIFFERENT)


def _dsn(text: str) -> str:
    if not text.startswith(FROM_ENVIRONMENT):
        return text
    name = text.removeprefix(FROM_ENVIRONMENT)
    if not os.environ.get(name):
        raise DiffError(f"the environment variable {name} is not set")
    return os.environ[name]


def _names(text: str | None, option: str) -> tuple[str, ...] | None:
    """Names between commas, as the columns are called; one in double quotes may hold commas."""
    if text is None:
        return None
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not names or not all(names) or len(set(names)) < len(names):
        raise DiffError(f"{option} wants names between commas, each once")
    return tuple(names)


@dataclass
class _Printer:
    limit: int | None
    as_json: bool
    _printed: int = 0

    def row(self, row: RowDifference) -> None:
        """Print a row, unless there have been enough."""
        if self.limit is not None and self._printed >= self.limit:
            return
        self._printed += 1
        if self.as_json:
            typer.echo(json.dumps(row.to_dict(), ensure_ascii=False))
            return
        for sign, fields in (("-", row.a), ("+", row.b)):
            if fields is not None:
                shown = fields if row.kind is not RowKind.CHANGED else {**row.key, **fields}
                typer.echo(f"{sign} {_line(shown)}")

    def end(self, report: DiffReport, *, stats: bool) -> None:
        """Print what differs but rows, and the counts."""
        if self.as_json:
            typer.echo(json.dumps({"kind": "summary", **report.to_dict()}, ensure_ascii=False))
            return
        for line in _last_lines(report, printed=self._printed, stats=stats):
            typer.echo(line)


def _last_lines(report: DiffReport, *, printed: int, stats: bool) -> Iterable[str]:
    counts = report.counts
    if counts.differing > printed:
        yield f"… {counts.differing - printed} more rows differ"
    yield from (f"! {difference}" for difference in report.plan.differences)
    yield from (f"note: {note}" for note in report.plan.notes)
    if stats:
        figures = {
            "rows in A": counts.rows_a,
            "rows in B": counts.rows_b,
            "equal": counts.equal,
            "changed": counts.changed,
            "only in A": counts.only_in_a,
            "only in B": counts.only_in_b,
            **{f"changed in {name}": count for name, count in sorted(counts.by_column.items())},
        }
        width = max(map(len, figures))
        yield from (f"{name:<{width}}  {count}" for name, count in figures.items())
    key = ", ".join(report.plan.key)
    verdict = "equal" if report.is_equal else "different"
    yield f"{verdict}: {counts.rows_a} rows in A, {counts.rows_b} in B, by key ({key})"


def _line(fields: Fields) -> str:
    return "  ".join(
        f"{name}={'NULL' if value is None else json.dumps(value, ensure_ascii=False)}"
        for name, value in fields.items()
    )
