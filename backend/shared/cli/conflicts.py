"""`tandem conflicts SERVICE` and `tandem settle ID`: what foreign programs wrote to a closed side, and a decision on it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from backend.shared.cli.foreign_text import foreign
from backend.shared.cli.install import ServiceArgument
from backend.shared.cli.services import managed
from backend.shared.domain.errors import ValidationError
from backend.shared.domain.phases import Side
from backend.shared.identity import system_user
from backend.shared.migration.conflicts import ConflictId
from backend.shared.observability.admin_views import ChangedFieldView, ConflictView, SettlementView

EXIT_SOMETHING_LEFT = 1
ValuesOption = Annotated[
    bool, typer.Option("--values", help="Show values before and after, but never secret ones.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document a line.")]


def conflicts(
    service: ServiceArgument,
    *,
    entity: Annotated[str | None, typer.Option(help="Only this entity.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1, max=10_000)] = 100,
    settled: Annotated[bool, typer.Option("--settled", help="Those that were settled, instead.")] = False,
    values: ValuesOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what other programs wrote to the side without authority. Exit 1 if there is any."""
    found = asyncio.run(_conflicts(service, entity=entity, limit=limit, values=values, settled=settled))
    if as_json:
        for conflict in found:
            typer.echo(json.dumps(asdict(conflict), default=str, ensure_ascii=False))
    elif found:
        _show(found, values=values)
    else:
        typer.echo(f"{service}: no conflicts")
    raise typer.Exit(EXIT_SOMETHING_LEFT if found and not settled else 0)


async def _conflicts(
    service: str, *, entity: str | None, limit: int, values: bool, settled: bool
) -> list[ConflictView]:
    async with managed(service, counted=False) as manager:
        return list(
            await manager.list_conflicts(limit=limit, entity=entity, show_values=values, settled=settled)
        )


def _show(found: list[ConflictView], *, values: bool) -> None:
    table = Table("id", "entity", "key", "what", "fields", "when", "by", "detail")
    for item in found:
        by = item.written_by + (f" ({item.application})" if item.application else "")
        table.add_row(
            item.id,
            item.entity,
            foreign(item.key),
            f"{item.operation} {item.table}",
            foreign("\n".join(_field(field, values=values) for field in item.fields)),
            item.written_at.isoformat(timespec="seconds"),
            foreign(by),
            foreign(item.detail or ""),
        )
    Console().print(table)


def _field(field: ChangedFieldView, *, values: bool) -> str:
    if not values:
        return field.field
    before, after = ("(no row)" if cell is None else cell for cell in (field.before, field.after))
    return f"{field.field}: {before} -> {after}"


def settle(
    conflict_id: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="As `tandem conflicts` shows it: cart-legacy-12.", show_default=False
        ),
    ] = None,
    *,
    keep: Annotated[Side, typer.Option(help="The side whose state is right: the other one gets it.")],
    every: Annotated[
        str | None,
        typer.Option("--all", metavar="SERVICE", help="All conflicts of a service, instead of one."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    values: ValuesOption = False,
    by: Annotated[str | None, typer.Option(help="Who, for the record; by default login and host.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Settle a conflict: the state of one side becomes that of both.

    Exit 0: settled (a dry run: it could be planned); 1: not, and it says why; 2: could not be tried.
    """
    if (conflict_id is None) is (every is None):
        raise ValidationError(
            "name one conflict, or all of a service: `tandem settle ID` or `tandem settle --all SERVICE`"
        )
    if every is not None:
        if dry_run:
            raise ValidationError("a dry run is of one conflict: name its id")
        raise typer.Exit(asyncio.run(_settle_all(every, keep, by or system_user(), as_json=as_json)))
    done = asyncio.run(_settle(str(conflict_id), keep, by or system_user(), dry_run=dry_run, values=values))
    _tell(done, values=values, as_json=as_json)
    raise typer.Exit(0 if done.settled or (dry_run and done.outcome == "planned") else EXIT_SOMETHING_LEFT)


async def _settle(conflict_id: str, keep: Side, by: str, *, dry_run: bool, values: bool) -> SettlementView:
    async with managed(ConflictId.parse(conflict_id).service, counted=False) as manager:
        return await manager.settle_conflict(
            conflict_id, keep=keep, by=by, dry_run=dry_run, show_values=values
        )


async def _settle_all(service: str, keep: Side, by: str, *, as_json: bool) -> int:
    counts: Counter[str] = Counter()

    def on_each(done: SettlementView) -> None:
        counts[done.outcome] += 1
        if as_json or not done.settled:
            _tell(done, values=False, as_json=as_json)

    async with managed(service, counted=False) as manager:
        await manager.settle_conflicts(keep=keep, by=by, on_each=on_each)
    if not as_json:
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "no conflicts"
        typer.echo(f"{service}: {said}")
    return EXIT_SOMETHING_LEFT if set(counts) - {"settled", "settled already"} else 0


def _tell(done: SettlementView, *, values: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(done), default=str, ensure_ascii=False))
        return
    detail = f": {done.detail}" if done.detail else ""
    typer.echo(f"{done.id} ({done.entity} {done.key}), keep {done.keep.value}: {done.outcome}{detail}")
    for field in done.fields:
        typer.echo(f"  {_field(field, values=values)}")
