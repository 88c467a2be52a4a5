"""`tandem validate SERVICE`: says whether both sides hold the same, and which keys do not."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from backend.shared.cli.install import ServiceArgument
from backend.shared.cli.services import managed, manager_class
from backend.shared.cli.validation_output import kept_as_dict, print_kept
from backend.shared.cli.validation_run import Wanted, compare_and_exit, or_exit
from backend.shared.domain.errors import ValidationError
from backend.shared.sync_validator import SyncValidator
from backend.shared.validation.mismatches import KeptMismatch
from backend.shared.validation.run_records import KeptRun

LISTED = 1_000

EntityOption = Annotated[str | None, typer.Option(help="Only this entity.")]
ChangedOption = Annotated[
    bool,
    typer.Option(
        "--changed",
        help="Only keys changed since the last full run. Cannot see what others have changed on the secondary side.",
    ),
]
SampleOption = Annotated[
    float,
    typer.Option("--sample", help="A random sample of this share of the rows, such as 0.01.", metavar="R"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ValuesOption = Annotated[
    bool, typer.Option("--show-values", help="Print values that differ, but never secret ones.")
]


def validate(
    service: ServiceArgument,
    *,
    entity: EntityOption = None,
    changed: ChangedOption = False,
    sample: SampleOption = 1.0,
    as_json: JsonOption = False,
    show_values: ValuesOption = False,
    listing: Annotated[
        bool, typer.Option("--list", help="List the runs kept and the mismatches open; compare nothing.")
    ] = False,
) -> None:
    """Compare both sides of a service. Exit 0: equal, 1: different, 2: incomplete, or could not run.

    A run that was interrupted in the last day is resumed.
    """
    catalog = manager_class(service).catalog()
    if entity is not None:
        catalog[entity]
    if not listing:
        wanted = Wanted(
            services=[service], entity=entity, changed=changed, share=sample, show_values=show_values
        )
        compare_and_exit(wanted, as_json=as_json, program="tandem")
    if changed or sample != 1 or show_values:
        raise ValidationError("--list compares nothing: it goes with --entity and --json only")
    runs, mismatches = or_exit(_kept(service, entity), program="tandem")
    if as_json:
        typer.echo(json.dumps(kept_as_dict(runs, mismatches), indent=2))
    else:
        print_kept(service, runs, mismatches[:LISTED], more=len(mismatches) > LISTED)


async def _kept(service: str, entity: str | None) -> tuple[list[KeptRun], list[KeptMismatch]]:
    async with managed(service) as manager:
        await manager.start()
        validator = SyncValidator(manager.runtime)
        return await validator.latest_runs(), await validator.open_mismatches(limit=LISTED + 1, entity=entity)
