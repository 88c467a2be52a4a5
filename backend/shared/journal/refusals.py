"""Keys that the target refuses: kept as FAILED, unless a newer state has been carried meanwhile."""

from __future__ import annotations

from collections.abc import Collection

from backend.shared.domain.mapping import EntityCatalog
from backend.shared.journal.carrier import Outcomes
from backend.shared.journal.stranded_records import PARKED_EPOCH
from backend.shared.stores.protocol import Position
from backend.shared.stores.repeating import in_transaction
from backend.shared.stores.side import Connection, SideStore


async def withdraw_outdated(
    failed: Outcomes,
    *,
    epoch: int,
    source: SideStore,
    target: SideStore,
    catalog: EntityCatalog,
    by: str,
) -> Collection[tuple[str, str]]:
    """Close those of the `failed` that were outdated when they were recorded; answers them.

    Whoever carries a newer state closes failures after the carry is durable, and this looks at the guard after the
    failure is: so whichever came last sees the other.
    """
    outdated: dict[tuple[str, str], Position | None] = {}
    for (entity, key), outcome in failed.items():
        if outcome.position is None:
            continue
        async with target.connect() as connection:
            guards = await target.state.read_guards(connection, catalog[entity], keys=[key])
        newest = _newest(guards, key, outcome.position)
        # The guard of a stranded key says nothing of what was carried.
        if newest[0] != PARKED_EPOCH and newest > (epoch, outcome.position):
            outdated[entity, key] = outcome.position
    if outdated:

        async def close(connection: Connection) -> None:
            await source.failures.close(connection, outdated, epoch=epoch, by=by)

        await in_transaction(source, close)
    return outdated


def _newest(guards: dict[str, tuple[int, Position]], key: str, position: Position) -> tuple[int, Position]:
    return guards.get(key, (0, position))
