"""Where a backfill to a side keeps how far it has come: on that side, or where that keeps no tables, on the other."""

from __future__ import annotations

from backend.shared.domain.phases import Side
from backend.shared.migration.backfill_state import BackfillRepository, EntityProgress
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.side import SideStore, StoreKind


def keeper_of(runtime: ServiceRuntime, towards: Side) -> SideStore:
    """The side that keeps the progress of a backfill to `towards`."""
    there = runtime.stores[towards]
    return there if there.kind is StoreKind.POSTGRES else runtime.stores[towards.other]


def repository_of(runtime: ServiceRuntime, towards: Side) -> BackfillRepository:
    """The progress of a backfill to `towards`, to be asked on a connection of `keeper_of`."""
    kept_away = runtime.stores[towards].kind is not StoreKind.POSTGRES
    return BackfillRepository(runtime.names, prefix=f"{towards.value}:" if kept_away else "")


async def progress_towards(runtime: ServiceRuntime, towards: Side) -> dict[str, EntityProgress]:
    """All entities that a backfill to `towards` was begun of, by name."""
    async with keeper_of(runtime, towards).connect() as connection:
        return await repository_of(runtime, towards).progress(connection)
