"""`tandem advance`, `tandem rollback` and `tandem history`: a service's way through its phases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from backend.shared.cli.foreign_text import foreign
from backend.shared.cli.install import ServiceArgument
from backend.shared.cli.services import managed
from backend.shared.domain.errors import ConflictError, ValidationError
from backend.shared.domain.phases import Phase, Side
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.identity import system_user
from backend.shared.migration.gates import Gate
from backend.shared.migration.phase_controller import GateShutError
from backend.shared.migration.restored import Restored
from backend.shared.observability.admin_views import GateView, PhaseChangeView, PhaseHistoryView

EXIT_GATE_SHUT = 1

ToOption = Annotated[Phase | None, typer.Option("--to", help="The phase to end in; one step, if left out.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Look at every gate, say every step, change nothing.")
]
ReasonOption = Annotated[str, typer.Option(help="Why; it is written down with the change.")]
ForceOption = Annotated[
    list[str] | None,
    typer.Option(help="Pass this gate though it is shut; may be given several times, and needs --reason."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document.")]


def advance(
    service: ServiceArgument,
    *,
    to: ToOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a service one phase up, or up to --to. Exit 1 if a gate is shut, 2 if it could not be done."""
    _change(service, _up, to, dry_run=dry_run, force=force or [], reason=reason, as_json=as_json)


def rollback(
    service: ServiceArgument,
    *,
    to: ToOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a service one phase back, or back to --to, from any phase but complete. Nothing written since is lost."""
    _change(service, _down, to, dry_run=dry_run, force=force or [], reason=reason, as_json=as_json)


def _up(now: Phase, to: Phase | None) -> Phase:
    if now.up is None:
        raise ConflictError("the service is complete: there is no phase above")
    if to is not None and now.is_above(to):
        raise ValidationError(f"{to.value} is below {now.value}: that way is `tandem rollback`")
    return to or now.up


def _down(now: Phase, to: Phase | None) -> Phase:
    if now is Phase.COMPLETE:
        raise ConflictError("the service is complete: legacy was let go, and there is no way back from there")
    if to is not None and to.is_above(now):
        raise ValidationError(f"{to.value} is above {now.value}: that way is `tandem advance`")
    if now.down is None:
        raise ConflictError("the service is off: there is no phase below")
    return to or now.down


def _change(
    service: str,
    direction: Callable[[Phase, Phase | None], Phase],
    to: Phase | None,
    *,
    dry_run: bool,
    force: Sequence[str],
    reason: str,
    as_json: bool,
) -> None:
    say: Callable[[str], None] = (lambda _: None) if as_json else (lambda line: typer.echo(f"  {line}"))

    async def run() -> PhaseChangeView:
        async with managed(service, counted=False) as manager:
            target = await _target(manager, direction, to)
            return await manager.change_phase(
                target, dry_run=dry_run, by=system_user(), reason=reason, force=force, say=say
            )

    try:
        done = asyncio.run(run())
    except GateShutError as shut:
        _refuse(service, shut, as_json=as_json)
    if as_json:
        typer.echo(json.dumps(asdict(done), default=str))
        shut_now = dry_run and any(not gate.is_open and not gate.forced for gate in done.gates)
        raise typer.Exit(EXIT_GATE_SHUT if shut_now else 0)
    _show(done)


async def _target(
    manager: DualWriteManager, direction: Callable[[Phase, Phase | None], Phase], to: Phase | None
) -> Phase:
    """Where to go. A change that is not finished is gone through with in its own direction, and taken back in the other."""
    await manager.start()
    control = manager.runtime.control
    if control.intent is None or to is not None:
        return direction(control.phase, to)
    goes_up = control.intent.to.is_above(control.intent.origin)
    return control.intent.to if goes_up is (direction is _up) else control.intent.origin


def _refuse(service: str, shut: GateShutError, *, as_json: bool) -> NoReturn:
    if as_json:
        gates = [asdict(gate) for gate in shut.gates]
        typer.echo(
            json.dumps(
                {
                    "service": service,
                    "from_phase": shut.now,
                    "to_phase": shut.to,
                    "changed": False,
                    "gates": gates,
                }
            )
        )
    else:
        typer.echo(f"{service}: not taken from {shut.now.value} to {shut.to.value}, nothing was changed")
        show_gates(shut.gates)
    raise typer.Exit(EXIT_GATE_SHUT)


def show_gates(gates: Sequence[Gate | GateView]) -> None:
    """Each gate in a line, and below those that are shut what opens them."""
    for gate in gates:
        name = str(getattr(gate.name, "value", gate.name))
        state = "open" if gate.is_open else "FORCED" if gate.forced else "SHUT"
        typer.echo(f"  {state:<6} {name:<12} {gate.figure}")
        if gate.remedy:
            typer.echo(f"         {'':<12} -> {gate.remedy}")


def _show(done: PhaseChangeView) -> None:
    if done.dry_run:
        typer.echo(
            f"{done.service}: from {done.from_phase.value} to {done.to_phase.value}, nothing is changed"
        )
        show_gates(done.gates)
        for number, step in enumerate(done.steps, start=1):
            typer.echo(f"  {number}. {step}")
        if any(not gate.is_open and not gate.forced for gate in done.gates):
            typer.echo(f"{done.service}: it would be refused")
            raise typer.Exit(EXIT_GATE_SHUT)
        return
    if not done.changed:
        typer.echo(f"{done.service}: {done.to_phase.value} already")
        return
    show_gates([gate for gate in done.gates if gate.forced])
    stall = f", no side took writes for {done.stall_ms:.0f} ms" if done.stall_ms is not None else ""
    typer.echo(f"{done.service}: {done.from_phase.value} -> {done.to_phase.value}, epoch {done.epoch}{stall}")
    for note in done.notes:
        typer.echo(f"  {note}")


def restored(
    service: ServiceArgument,
    side: Annotated[Side, typer.Argument(help="The side that was restored.", show_default=False)],
    *,
    reason: ReasonOption = "",
) -> None:
    """Go on with a side that was restored from a backup, or whose place a standby has taken.

    The epoch is raised, the side without authority is closed, and has to be copied to again.
    """

    async def run() -> Restored:
        async with managed(service, counted=False) as manager:
            return await manager.take_up_restored(side, by=system_user(), reason=reason)

    done = asyncio.run(run())
    typer.echo(f"{service}: goes on in epoch {done.epoch}")
    if done.copy_again:
        typer.echo(
            f"  the {done.copy_again.value} side has to be copied to again: `tandem backfill {service}`, "
            f"then `tandem validate {service}`"
        )


def history(
    service: ServiceArgument,
    *,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1, max=10_000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """List the changes of a service's phase, newest first: when, by whom, why, and which gates were forced."""
    found = asyncio.run(_history(service, limit))
    if as_json:
        for change in found:
            typer.echo(json.dumps(asdict(change), default=str))
        return
    if not found:
        typer.echo(f"{service}: never changed")
        return
    table = Table("when", "from", "to", "epoch", "by", "reason", "forced", "stall", "outcome")
    for change in found:
        table.add_row(
            change.changed_at.isoformat(timespec="seconds"),
            change.from_phase.value,
            change.to_phase.value,
            str(change.epoch),
            foreign(change.changed_by),
            foreign(change.reason),
            ", ".join(change.forced) or "-",
            f"{change.stall_ms:.0f} ms" if change.stall_ms is not None else "-",
            change.outcome.replace("_", " "),
        )
    Console().print(table)


async def _history(service: str, limit: int) -> list[PhaseHistoryView]:
    async with managed(service, counted=False) as manager:
        return await manager.phase_history(limit=limit)
