"""What the tests of conflicts share: people on both sides, foreign writes to the closed one, and what is kept of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from backend.shared import Phase, Side
from backend.shared.migration.gates import GateName
from backend.shared.observability.admin_views import SettlementView
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager
from tests.support.phases import controller
from tests.support.repairs import stocked

CLOSED = {
    Phase.DUALWRITE: Side.NEW,
    Phase.SHADOW: Side.NEW,
    Phase.LIVE: Side.LEGACY,
    Phase.RAMPDOWN: Side.LEGACY,
}
Foreign = dict[Side, Sql]
"""Other programs, on either side."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A conflict as its table has it."""

    id: int
    entity: str
    key: str
    operation: str
    source_table: str
    before: Any
    after: Any
    state: str
    kept: str | None
    settled_by: str | None
    detail: str | None


async def conflicts_on(sql: Sql, *, state: str | None = None) -> list[Kept]:
    """The conflicts of a side, in the order of their numbers."""
    rows = await sql(
        "SELECT id, entity, key, operation, source_table, before::text, after::text, state, kept, settled_by, detail "
        "FROM tandem_people.conflict WHERE $1::text IS NULL OR state = $1 ORDER BY id",
        state,
    )
    return [
        Kept(
            **{
                **row,
                "before": json.loads(row["before"]) if row["before"] else None,
                "after": json.loads(row["after"]) if row["after"] else None,
            }
        )
        for row in rows
    ]


async def mark_of(sql: Sql) -> str:
    """What becomes of foreign writes, as a side's mark says."""
    (row,) = await sql("SELECT foreign_writes FROM tandem_people.mark")
    return str(row["foreign_writes"])


async def seeded(make_manager: MakeManager, on: Foreign, phase: Phase, **settings: Any) -> PeopleManager:
    """Twelve people with a city and a note each, equal on both sides."""
    return await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase, **settings)


async def settled_all(manager: PeopleManager, keep: Side) -> list[SettlementView]:
    """All conflicts, settled."""
    done: list[SettlementView] = []
    await manager.settle_conflicts(keep=keep, by="ada", on_each=done.append)
    return done


async def opened(manager: PeopleManager, to: Phase) -> None:
    """Go to `to`, through any gate."""
    await controller(manager).change(to, reason="a test", force=[name.value for name in GateName])
