"""`tandem events rebuild SERVICE [MODEL]` and `tandem events views SERVICE`: what a service keeps of others' aggregates."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Annotated, Any, TypeVar

import typer

from backend.shared.cli.services import managed
from backend.shared.domain.errors import ConfigurationError, ValidationError
from backend.shared.events.aggregates import Aggregates
from backend.shared.events.read_models import Held, ReadModel
from backend.shared.events.rebuild import GIVE_UP_SECONDS, Rebuild, Rebuilt

MODELS_GROUP = "tandem.read_models"
"""Each value is a tuple of `ReadModel`: what the service of that name keeps."""
AGGREGATES_GROUP = "tandem.aggregates"
"""Each value is a tuple of `Aggregates`: what the service of that name tells anew when it is asked to."""
LINE_SECONDS = 5.0

T = TypeVar("T")
Service = Annotated[str, typer.Argument(help="The service that keeps it.", show_default=False)]
Model = Annotated[str | None, typer.Argument(help="One of what it keeps; else all.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line.")]


def rebuild(
    service: Service,
    model: Model = None,
    *,
    give_up: Annotated[
        float, typer.Option(help="Give up when for so many seconds nothing was taken in.", min=1)
    ] = GIVE_UP_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Build anew what a service keeps of others, while both are in use: the others tell of everything once more.

    May be repeated, and broken off. Exit 0: it holds what its owner has; 2: not complete, or could not run.
    """
    for found in _chosen(service, model):
        done, held = asyncio.run(_rebuild(found, give_up, say=_progress(found, quiet=as_json)))
        shown = {"told": done.told, "taken_in": done.taken_in, "removed": done.removed, **_shown(found, held)}
        if as_json:
            typer.echo(json.dumps(shown))
        else:
            typer.echo(
                f"{service} {found.name}: {found.owner} told of {done.told:,}, {done.removed:,} removed; "
                f"{held.rows:,} rows as of {shown['as_of']}"
            )


def views(service: Service, model: Model = None, *, as_json: AsJson = False) -> None:
    """List what a service keeps of others: of whom, how many rows, and when the latest of it was told."""
    for found in _chosen(service, model):
        shown = _shown(found, asyncio.run(_held(found)))
        if as_json:
            typer.echo(json.dumps(shown))
        else:
            typer.echo(
                f"{service} {found.name}: told by {found.owner}, {shown['rows']:,} rows as of {shown['as_of']}"
            )


async def _rebuild(
    model: ReadModel[Any], give_up_seconds: float, *, say: Callable[[Rebuilt], None]
) -> tuple[Rebuilt, Held]:
    aggregates = _aggregates(model)
    async with managed(model.owner) as owner, managed(model.service) as reader:
        work = Rebuild(
            model,
            aggregates,
            owner=owner.run_unit,
            reader=reader.run_unit,
            say=say,
            give_up_seconds=give_up_seconds,
        )
        return await work.run(), await reader.read(model.held, operation="count_read_model")


async def _held(model: ReadModel[Any]) -> Held:
    async with managed(model.service, counted=False) as reader:
        return await reader.read(model.held, operation="count_read_model")


def _progress(model: ReadModel[Any], *, quiet: bool) -> Callable[[Rebuilt], None]:
    """A line now and then, on stderr."""
    said_at = time.monotonic()

    def say(done: Rebuilt) -> None:
        nonlocal said_at
        if not quiet and time.monotonic() - said_at >= LINE_SECONDS:
            said_at = time.monotonic()
            typer.echo(
                f"{model.service} {model.name}: told of {done.told:,}, {done.taken_in:,} taken in", err=True
            )

    return say


def _chosen(service: str, model: str | None) -> Sequence[ReadModel[Any]]:
    found = _all(MODELS_GROUP, service, ReadModel)
    if not found:
        names = sorted({entry.name for entry in entry_points(group=MODELS_GROUP)})
        raise ValidationError(
            f"{service!r} keeps nothing of other services; these do: {', '.join(names) or 'none'}"
        )
    if model is None:
        return found
    if chosen := [item for item in found if item.name == model]:
        return chosen
    raise ValidationError(f"{service} keeps no {model!r}; it keeps: {', '.join(item.name for item in found)}")


def _aggregates(model: ReadModel[Any]) -> Aggregates:
    for found in _all(AGGREGATES_GROUP, model.owner, Aggregates):
        if found.kind is model.kind:
            return found
    raise ConfigurationError(f"{model.owner} does not tell anew of what {model.service} {model.name} keeps")


def _all(group: str, service: str, kind: type[T]) -> Sequence[T]:
    """What is registered in a group under the name of a service."""
    for entry in entry_points(group=group):
        if entry.name == service:
            loaded = entry.load()
            if not (isinstance(loaded, tuple) and all(isinstance(item, kind) for item in loaded)):
                raise ConfigurationError(f"{entry.value} is no tuple of {kind.__name__}")
            return loaded
    return ()


def _shown(model: ReadModel[Any], held: Held) -> dict[str, Any]:
    return {
        "service": model.service,
        "model": model.name,
        "owner": model.owner,
        "rows": held.rows,
        "as_of": None if held.as_of is None else held.as_of.isoformat(),
    }
