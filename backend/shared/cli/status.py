"""`tandem status`: where a service stands, in one screen."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from backend.shared.cli.main import one_line
from backend.shared.cli.phase import show_gates
from backend.shared.cli.services import managed, services_set_up
from backend.shared.domain.errors import TandemError
from backend.shared.observability.admin_views import OverviewView

WATCH_SECONDS = 2.0
EXIT_NOT_KNOWN = 2


def status(
    service: Annotated[
        str | None, typer.Argument(help="Name of the service; all, if left out.", show_default=False)
    ] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every 2 s, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """Show phase, epoch, replicas, lag, failures, last validation and gates. Exit 2 if a service cannot be asked."""
    names = [service] if service else services_set_up(partial(typer.echo, err=True))
    while True:
        failed = False
        if watch and not as_json:
            Console().clear()
        for name in names:
            try:
                view = asyncio.run(_overview(name))
            except TandemError as error:
                failed = True
                typer.echo(f"{name}: {one_line(error)}", err=True)
                continue
            if as_json:
                typer.echo(json.dumps(asdict(view), default=str))
            else:
                _show(view)
        if not watch:
            raise typer.Exit(EXIT_NOT_KNOWN if failed else 0)
        try:
            time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return


async def _overview(service: str) -> OverviewView:
    async with managed(service, counted=False) as manager:
        return await manager.overview()


def _show(view: OverviewView) -> None:
    since = f" since {view.changed_at.isoformat(timespec='seconds')}" if view.changed_at else ""
    typer.echo(
        f"{view.service}: {view.phase.value}, epoch {view.epoch}, {view.authoritative.value} answers{since}"
    )
    typer.echo(f"  changed by   {view.changed_by}: {view.reason}")
    if view.unfinished:
        typer.echo(f"  UNFINISHED   {view.unfinished}: `tandem advance` or `tandem rollback` goes on")
    _show_replicas(view)
    typer.echo(f"  lag          {view.lag_seconds:.1f} s, {view.journal_rows} changes to carry")
    typer.echo(f"  failures     {view.failures_open} open; conflicts {view.conflicts_open} open")
    for item in view.validation:
        verdict = (
            f"{item.verdict}, {item.seconds_ago:.0f} s ago, {item.open_mismatches} mismatches open"
            if item.verdict
            else "never compared as a whole in this phase"
        )
        typer.echo(f"  validation   {item.entity}: {verdict}")
    if view.next_phase:
        typer.echo(f"  gates to {view.next_phase.value}:")
        show_gates(view.gates)


def _show_replicas(view: OverviewView) -> None:
    if not view.replicas:
        typer.echo("  replicas     none live")
    for item in view.replicas:
        place = f"{item.host} process {item.pid}"
        state = "follows" if item.follows else f"BEHIND, goes by {item.phase.value} in epoch {item.epoch}"
        role = ", carries" if item.relay else ""
        typer.echo(f"  replica      {place}: {state}{role}, seen {item.seconds_since_seen:.1f} s ago")
