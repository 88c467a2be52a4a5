"""What an operator asks of a manager about its phase: to change it, to see it in one screen, and to know how it came about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from backend.shared.domain.phases import Phase, Side
from backend.shared.journal.on_sides import count_open_conflicts
from backend.shared.migration.cutover import GIVE_UP_SECONDS
from backend.shared.migration.gates import Gate, Gates
from backend.shared.migration.phase_controller import PhaseController, Step
from backend.shared.migration.restored import Restored, take_up_restored
from backend.shared.observability.admin_views import (
    EntityStandingView,
    GateView,
    OverviewView,
    PhaseChangeView,
    PhaseHistoryView,
    ReplicaView,
)
from backend.shared.runtime import ServiceRuntime
from backend.shared.sync_validator import SyncValidator


class PhaseOperations(ABC):
    """The part of `AdminOperations` that is about phases."""

    service: ClassVar[str]

    @property
    @abstractmethod
    def runtime(self) -> ServiceRuntime:
        """The running parts: engines, breakers, relays."""

    @abstractmethod
    async def start(self, *, relay: bool = False) -> None:
        """Connect and check both sides."""

    @abstractmethod
    async def check_schema(self) -> None:
        """Raise `InstallationError` when a migration is missing."""

    async def change_phase(
        self,
        to: Phase,
        *,
        dry_run: bool = False,
        by: str = "api",
        reason: str = "",
        force: Sequence[str] = (),
        give_up_seconds: float = GIVE_UP_SECONDS,
        say: Callable[[str], None] = lambda _: None,
    ) -> PhaseChangeView:
        """Go to phase `to`, a step at a time; with `dry_run` only look at the gates and say each step.

        A change that was begun and not finished is finished first. Raises `GateShutError` where a gate is shut,
        `ChangeGivenUpError` with the phase as it was, and `ValidationError` for a step that cannot be.
        """
        await self.start()
        before = self.runtime.phase
        controller = PhaseController(
            self.runtime,
            check_schema=self.check_schema,
            by=by,
            give_up_seconds=give_up_seconds,
            say=say,
            hook=self.runtime.hook,
        )
        steps = await controller.change(to, reason=reason, force=force, dry_run=dry_run)
        return self._change_view(before, to, steps, dry_run=dry_run)

    def _change_view(
        self, before: Phase, to: Phase, steps: Sequence[Step], *, dry_run: bool
    ) -> PhaseChangeView:
        stalls = [step.stall_ms for step in steps if step.stall_ms is not None]
        notes = [note for step in steps for note in step.notes]
        notes += [
            f"{replica.name} has not followed yet: the fence holds it off"
            for step in steps[-1:]
            for replica in step.behind
        ]
        return PhaseChangeView(
            service=self.service,
            from_phase=steps[0].origin if steps else before,
            to_phase=to,
            dry_run=dry_run,
            changed=any(step.changed for step in steps),
            epoch=self.runtime.control.epoch,
            steps=tuple(action for step in steps for action in step.actions),
            gates=tuple(gate_view(gate) for step in steps[:1] for gate in step.gates),
            stall_ms=max(stalls) if stalls else None,
            notes=tuple(notes),
        )

    async def take_up_restored(self, side: Side, *, by: str = "api", reason: str = "") -> Restored:
        """Go on with a side that was restored from a backup, or whose place a standby has taken. May be repeated."""
        await self.runtime.reach_both()  # it may lack what a start asks for
        return await take_up_restored(self.runtime, side, by=by, reason=reason)

    async def overview(self) -> OverviewView:
        """The service in one screen, measured now."""
        await self.start()
        runtime = self.runtime
        await runtime.following.refresh()
        control, phase = runtime.control, runtime.phase
        depth = await runtime.measure()
        following = phase.up
        gates = Gates(runtime, check_schema=self.check_schema)
        standing = await SyncValidator(runtime).standing() if phase.policy.validates else []
        unfinished = control.intent
        return OverviewView(
            service=self.service,
            phase=phase,
            epoch=control.epoch,
            authoritative=phase.policy.authoritative,
            changed_at=control.changed_at,
            changed_by=control.changed_by,
            reason=control.reason,
            unfinished=(
                f"from {unfinished.origin.value} to {unfinished.to.value}, begun by {unfinished.by}"
                if unfinished
                else None
            ),
            replicas=tuple(
                ReplicaView(
                    host=item.host,
                    pid=item.pid,
                    phase=item.phase,
                    epoch=item.epoch,
                    follows=item.follows(control),
                    relay=item.relay,
                    seconds_since_seen=item.seconds_since_seen,
                )
                for item in await runtime.replicas.live()
            ),
            lag_seconds=depth.lag_seconds,
            journal_rows=depth.rows,
            failures_open=depth.failures,
            conflicts_open=sum((await count_open_conflicts(runtime.stores, runtime.sides_in_use)).values()),
            validation=tuple(
                EntityStandingView(
                    entity=item.entity,
                    verdict=item.verdict.value if item.verdict else None,
                    seconds_ago=item.seconds_ago,
                    open_mismatches=item.open_mismatches,
                )
                for item in standing
            ),
            next_phase=following,
            gates=tuple(gate_view(gate) for gate in await gates.look(phase, following)) if following else (),
        )

    async def phase_history(self, *, limit: int = 50) -> list[PhaseHistoryView]:
        """The latest changes of the phase, newest first."""
        await self.start()
        return [
            PhaseHistoryView(
                service=self.service,
                changed_at=change.changed_at,
                from_phase=change.from_phase,
                to_phase=change.to_phase,
                epoch=change.epoch,
                changed_by=change.changed_by,
                reason=change.reason,
                forced=change.forced,
                outcome=change.outcome,
                stall_ms=change.stall_ms,
            )
            for change in await self.runtime.controls.changes(limit=limit)
        ]


def gate_view(gate: Gate) -> GateView:
    """A gate as it is shown."""
    return GateView(
        name=gate.name.value,
        is_open=gate.is_open,
        figure=gate.figure,
        remedy=gate.remedy,
        forced=gate.forced,
    )
