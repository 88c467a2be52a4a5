"""Changes of the phase for tests: without the gates that take a minute, unless a test is about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend.shared import Key, Phase, Unit
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.migration.backfill import Backfill
from backend.shared.migration.gates import GateName
from backend.shared.migration.phase_controller import PhaseController, Step
from tests.support.fixtures import Sql
from tests.support.people import PeopleManager, people

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


def added(email: str, name: str = "one") -> Unit[Key]:
    return lambda work: work.insert("person", {people.c.email: email, people.c.name: name})


def named(key: Key, name: str) -> Unit[bool]:
    return lambda work: work.update("person", key, {people.c.name: name})


def removed(key: Key) -> Unit[bool]:
    return lambda work: work.delete("person", key)


def looked_at(key: Key) -> Unit[object]:
    return lambda work: work.get("person", key)


async def marks(*sides: Sql) -> list[tuple[str, int]]:
    rows = [(await sql("SELECT state, epoch FROM tandem_people.mark"))[0] for sql in sides]
    return [(row["state"], row["epoch"]) for row in rows]
