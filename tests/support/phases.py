"""Changes of the phase for tests: without the gates that take a minute, unless a test is about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend.shared import Phase
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.migration.backfill import Backfill
from backend.shared.migration.gates import GateName
from backend.shared.migration.phase_controller import PhaseController, Step
from tests.support.people import PeopleManager

SLOW_GATES = (GateName.LAG.value, GateName.VALIDATION.value, GateName.SHADOW_READS.value)


def controller(
    manager: PeopleManager,
    *,
    hook: Hook = no_hook,
    give_up_seconds: float = 5.0,
    say: Callable[[str], None] = lambda _: None,
) -> PhaseController:
    """One that asks the manager's databases."""
    return PhaseController(
        manager.runtime,
        check_schema=manager.check_schema,
        by="test",
        give_up_seconds=give_up_seconds,
        say=say,
        hook=hook,
    )


async def change(
    manager: PeopleManager,
    to: Phase,
    *,
    hook: Hook = no_hook,
    force: Sequence[str] = SLOW_GATES,
    give_up_seconds: float = 5.0,
) -> list[Step]:
    """Go to `to`; on the way up history is moved where that is asked for."""
    steps: list[Step] = []
    for phase in manager.phase.way_to(to):
        if phase is Phase.SHADOW and manager.phase is Phase.DUALWRITE:
            await Backfill(manager.runtime).run()
        steps += await controller(manager, hook=hook, give_up_seconds=give_up_seconds).change(
            phase, reason="a test", force=force
        )
    return steps
