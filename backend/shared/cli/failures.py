"""`tandem failures SERVICE` and `tandem retry SERVICE`: what could not be carried, and another try for it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from backend.shared.cli.foreign_text import foreign
from backend.shared.cli.install import ServiceArgument
from backend.shared.cli.services import managed
from backend.shared.observability.admin_views import FailureView

EntityOption = Annotated[str | None, typer.Option(help="Only this entity.")]


def failures(
    service: ServiceArgument,
    *,
    entity: EntityOption = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1, max=10_000)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """List the keys that could not be carried. Exit 1 if there are any."""
    found = asyncio.run(_failures(service, entity=entity, limit=limit))
    if as_json:
        for failure in found:
            typer.echo(json.dumps(asdict(failure), default=str))
    elif found:
        table = Table("id", "entity", "key", "direction", "attempts", "since", "error")
        for item in found:
            since = item.first_failed_at.isoformat(timespec="seconds")
            table.add_row(
                str(item.id),
                item.entity,
                foreign(item.key),
                item.direction,
                str(item.attempts),
                since,
                foreign(item.error),
            )
        Console().print(table)
    else:
        typer.echo(f"{service}: no failures")
    raise typer.Exit(1 if found else 0)


async def _failures(service: str, *, entity: str | None, limit: int) -> list[FailureView]:
    async with managed(service) as manager:
        return list(await manager.list_failures(limit=limit, entity=entity))


def retry(
    service: ServiceArgument,
    failure_id: Annotated[int | None, typer.Argument(help="Number of one failure; all, if left out.")] = None,
    *,
    entity: EntityOption = None,
) -> None:
    """Put failed keys back on their way: one, those of an entity, or all."""
    count = asyncio.run(_retry(service, failure_id, entity=entity))
    typer.echo(f"{service}: {count} on their way again")


async def _retry(service: str, failure_id: int | None, *, entity: str | None) -> int:
    async with managed(service) as manager:
        if failure_id is None:
            return await manager.retry_failures(entity=entity)
        await manager.retry_failure(failure_id)
        return 1
