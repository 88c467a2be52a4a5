#!/usr/bin/env python
"""Say whether both sides of each service hold the same. A shell round what `tandem validate` does, for all services.

Finds the embedded stack by itself when it is up, else takes the URLs from the environment. Exit 0: all equal; 1:
something differs; 2: incomplete, or could not run.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from backend.shared.cli.services import manager_class, service_names, services_set_up
from backend.shared.cli.validate import ChangedOption, EntityOption, JsonOption, SampleOption, ValuesOption
from backend.shared.cli.validation_output import COULD_NOT_RUN
from backend.shared.cli.validation_run import Wanted, compare_and_exit
from backend.shared.domain.errors import ConfigurationError, TandemError
from backend.shared.observability.logging import configure_logging

PROGRAM = "validate_data_sync"


def main(
    *,
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    entity: EntityOption = None,
    changed: ChangedOption = False,
    sample: SampleOption = 1.0,
    as_json: JsonOption = False,
    show_values: ValuesOption = False,
) -> None:
    """Hold both sides of all services, or of one, against each other."""
    configure_logging(PROGRAM, level="ERROR")  # what is logged must not stand between the lines of the answer
    try:
        services = _chosen(service, entity)
    except TandemError as error:
        typer.echo(f"{PROGRAM}: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(COULD_NOT_RUN) from None
    wanted = Wanted(services=services, entity=entity, changed=changed, share=sample, show_values=show_values)
    compare_and_exit(wanted, as_json=as_json, program=PROGRAM)


def _chosen(service: str | None, entity: str | None) -> list[str]:
    """The services that are meant; those that have `entity`, if no service is named."""
    if not service_names():
        raise ConfigurationError("there is no service installed")
    if entity is None:
        return [service] if service else services_set_up(partial(typer.echo, err=True))
    names = [service] if service else service_names()
    chosen = [name for name in names if entity in manager_class(name).catalog()]
    if not chosen:
        known = ", ".join(item.name for name in names for item in manager_class(name).catalog().ordered)
        raise ConfigurationError(f"there is no entity {entity!r}; there are: {known}")
    return chosen


if __name__ == "__main__":
    typer.run(main)
