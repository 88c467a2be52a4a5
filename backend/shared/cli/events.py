"""`tandem events`: what services tell each other, messages that one could not take in, and what is kept of others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from backend.shared.cli.foreign_text import foreign
from backend.shared.cli.rebuild import rebuild, views
from backend.shared.cli.services import managed, service_names
from backend.shared.database import DatabaseLimits, create_side_engine
from backend.shared.domain.errors import ConfigurationError, ValidationError
from backend.shared.environment import load_environment
from backend.shared.events.asyncapi import asyncapi_document
from backend.shared.events.dead_letters import DeadLetter, DeadLetters, Replayed
from backend.shared.events.message_api import MessageApi
from backend.shared.events.tables import EventRoom
from backend.shared.events.transport import transport_for
from backend.shared.local_units import LocalUnits

ROOMS_GROUP = "tandem.messages"
"""Each value is the `EventRoom` of the service of that name."""
APIS_GROUP = "tandem.message_apis"
"""Each value is a function that answers the `MessageApi` of the service of that name."""
ID_CHARACTERS = 36

events = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Messages between services: those that could not be taken in, and what is kept of them.",
)
events.command()(rebuild)
events.command()(views)
Service = Annotated[str, typer.Argument(help="The service that could not take them in.", show_default=False)]


@events.command()
def dead(
    service: Service,
    *,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1, max=10_000)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """List what could not be taken in. Exit 1 if there is anything."""
    found = asyncio.run(_dead(service, limit))
    if as_json:
        for letter in found:
            typer.echo(json.dumps(_shown(letter)))
    elif found:
        table = Table()
        # However narrow the terminal is: `replay` is to be given all of it.
        table.add_column("id", no_wrap=True, overflow="fold", min_width=ID_CHARACTERS)
        for title in ("type", "of", "attempts", "since", "reason"):
            table.add_column(title, overflow="fold")
        for letter in found:
            table.add_row(
                letter.message_id,
                foreign(letter.envelope.type),
                foreign(f"{letter.envelope.aggregate_type} {letter.envelope.aggregate_id}"),
                str(letter.attempts),
                letter.failed_at.isoformat(timespec="seconds"),
                foreign(letter.reason),
            )
        Console().print(table)
    else:
        typer.echo(f"{service}: no dead letters")
    raise typer.Exit(1 if found else 0)


@events.command()
def replay(
    service: Service,
    message_id: Annotated[str | None, typer.Argument(help="One of them; see `tandem events dead`.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Put one, or all, back on their way. Whoever has taken one in already passes over it.

    What can only be kept as a stand-in stays: nobody could take it in. Exit 2 if it is asked for by its id.
    """
    if (message_id is None) is not everything:
        raise ValidationError("say which, by its id, or --all")
    done = asyncio.run(_replay(service, message_id))
    left = f", {done.stand_ins} are stand-ins and stay: see `tandem events discard`" if done.stand_ins else ""
    typer.echo(f"{service}: {done.told} on their way again{left}")


@events.command()
def discard(
    service: Service,
    message_id: Annotated[str, typer.Argument(help="See `tandem events dead`.", show_default=False)],
) -> None:
    """Delete one, for good, with all that is kept of the message."""
    asyncio.run(_discard(service, message_id))
    typer.echo(f"{service}: deleted")


@events.command()
def schema(
    service: Annotated[str, typer.Argument(help="Whose messages.", show_default=False)],
) -> None:
    """Print what a service tells and hears, as AsyncAPI. The broker is that of BROKER_URL, if it is set."""
    api = _entry(APIS_GROUP, service)()
    if not isinstance(api, MessageApi):
        raise ConfigurationError(f"the entry point {service!r} of {APIS_GROUP} answers no MessageApi")
    broker_url = load_environment().get("BROKER_URL", "").strip() or None
    if broker_url is not None:
        transport_for(broker_url)  # says what is wrong with it, and connects to nothing
    document = asyncapi_document(
        api,
        title=f"Tandem {service} service",
        version=version("tandem"),
        broker_url=broker_url,
    )
    typer.echo(json.dumps(document.to_jsonable(), indent=2))


async def _dead(service: str, limit: int) -> list[DeadLetter]:
    async with _letters(service, counted=False) as letters:
        return await letters.page(limit=limit)


async def _replay(service: str, message_id: str | None) -> Replayed:
    async with _letters(service) as letters:
        if message_id is None:
            return await letters.replay_all()
        await letters.replay(message_id)
        return Replayed(told=1)


async def _discard(service: str, message_id: str) -> None:
    async with _letters(service) as letters:
        await letters.discard(message_id)


@asynccontextmanager
async def _letters(service: str, *, counted: bool = True) -> AsyncIterator[DeadLetters]:
    room = _room(service)
    if service in service_names():
        async with managed(service, counted=counted) as manager:
            yield DeadLetters(room, manager.run_unit)
        return
    found, variable = load_environment(), f"{service.upper()}_DATABASE_URL"
    url = found.get(variable) or found.get("DATABASE_URL")
    if not url:
        raise ConfigurationError("is not set", variable=variable)
    engine = create_side_engine(
        url, application_name="tandem-events", variable=variable, limits=DatabaseLimits.from_env(service)
    )
    try:
        yield DeadLetters(room, LocalUnits(engine))
    finally:
        await engine.dispose()


def _room(service: str) -> EventRoom:
    room = _entry(ROOMS_GROUP, service)
    if not isinstance(room, EventRoom):
        raise ConfigurationError(f"the entry point {service!r} of {ROOMS_GROUP} is no EventRoom")
    return room


def _entry(group: str, service: str) -> Any:
    found = {entry.name: entry for entry in entry_points(group=group)}
    if service not in found:
        raise ValidationError(
            f"{service!r} has no messages; these have: {', '.join(sorted(found)) or 'none'}"
        )
    return found[service].load()


def _shown(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.message_id,
        "consumer": letter.consumer,
        "attempts": letter.attempts,
        "failed_at": letter.failed_at.isoformat(),
        "reason": letter.reason,
        "stand_in": letter.is_stand_in,
        "message": letter.envelope.model_dump(mode="json"),
    }
