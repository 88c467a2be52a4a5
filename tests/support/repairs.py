"""What the tests of repair share: people on both sides, corruption by hand, and what a repair says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.shared import Phase, Side, SyncValidator
from backend.shared.migration.repair import Repairer
from backend.shared.migration.repair_results import KeyRepair, RepairReport, RepairRequest
from backend.shared.observability.labels import Verdict
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager

LEGACY_PEOPLE = (
    (
        "INSERT INTO folk (folk_no, mail, nm, cents, born) "
        "SELECT n, n || '@x', 'name ' || n, 100 * n, '2001-02-03' FROM generate_series(1, 12) AS n"
    ),
    "INSERT INTO folk_extra SELECT n, 'city ' || n FROM generate_series(1, 12) AS n",
    "INSERT INTO notes (note_no, folk_no, body) SELECT n, n, 'note ' || n FROM generate_series(1, 12) AS n",
)
NEW_PEOPLE = (
    (
        "INSERT INTO people (id, email, name, credit, born) "
        "SELECT n, n || '@x', 'name ' || n, n, '2001-02-03' FROM generate_series(1, 12) AS n"
    ),
    "INSERT INTO profiles SELECT n, 'city ' || n FROM generate_series(1, 12) AS n",
    "INSERT INTO notes (id, person_id, body) SELECT n, n, 'note ' || n FROM generate_series(1, 12) AS n",
)


@dataclass
class Told:
    """What a repair handed over, key by key, and its report."""

    keys: list[KeyRepair] = field(default_factory=list)
    report: RepairReport | None = None

    @property
    def outcomes(self) -> dict[str, str]:
        return {item.key: item.outcome.value for item in self.keys}

    @property
    def complete(self) -> bool:
        assert self.report is not None
        return self.report.complete

    def of(self, key: str) -> KeyRepair:
        (found,) = [item for item in self.keys if item.key == key]
        return found


async def stocked(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, phase: Phase = Phase.DUALWRITE, **settings: Any
) -> PeopleManager:
    """Twelve people with a city and a note each, equal on both sides."""
    manager = await make_manager(phase, **({"batch_size": 1000} | settings))
    to_new = phase is Phase.DUALWRITE
    for statement in LEGACY_PEOPLE if to_new else NEW_PEOPLE:
        await (legacy_sql if to_new else new_sql)(statement)
    assert await manager.relay().drain(timeout_seconds=20)
    assert await verdict(manager) is Verdict.EQUAL
    return manager


async def verdict(manager: PeopleManager) -> Verdict:
    """What a validation says now."""
    return (await SyncValidator(manager.runtime).run(patience_seconds=0.2)).verdict


async def keep_mismatches(new_sql: Sql, *identities: tuple[str, int]) -> None:
    """Mismatches as a validation keeps them."""
    for entity, number in identities:
        await new_sql(
            "INSERT INTO tandem_people.mismatch (entity, key, kind, first_run, last_run) VALUES ($1, $2, 'different', 1, 1)",
            entity,
            f"[{number}]",
        )


async def repaired(
    manager: PeopleManager,
    *,
    entity: str | None = "person",
    keys: Sequence[str] = (),
    source: Side | None = None,
    patience_seconds: float = 0.5,
    batch_keys: int = 500,
    **request: Any,
) -> Told:
    """Repair, and say what came of it."""
    told = Told()
    told.report = await Repairer(
        manager.runtime, patience_seconds=patience_seconds, batch_keys=batch_keys
    ).run(
        RepairRequest(by="tester", entity=entity, keys=keys, source=source, **request),
        on_key=told.keys.append,
    )
    return told
