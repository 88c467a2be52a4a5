"""What the relay tells the rows of a side, where they have columns that say how they stand to their documents."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Direction
from backend.shared.domain.sync_status import SyncStatus
from backend.shared.journal.carrier import Hook, KeyOutcome, Outcome, Outcomes, no_hook
from backend.shared.stores.postgres.sync_columns import Identity, Standing
from backend.shared.stores.side import Connection, SideStore

BUSY = "its row is being written just now"


class SyncTelling:
    """Tells rows what became of their keys. Where neither side has the columns it does nothing."""

    def __init__(
        self,
        *,
        source: SideStore,
        target: SideStore,
        catalog: EntityCatalog,
        direction: Direction,
        hook: Hook = no_hook,
    ) -> None:
        self._hook = hook
        self._source = source
        self._target = target
        self._catalog = catalog
        self._direction = direction

    async def tell_source(
        self, connection: Connection, outcomes: Outcomes, *, failed: Collection[Identity]
    ) -> set[Identity]:
        """In the transaction that ends journal rows, as the last thing in it: SYNCED is what went over, FAILED what did
        not for the last time. Answers keys whose journal rows must not end yet, since nobody can say it of them.
        """
        columns = self._source.sync_columns
        if columns is None:
            return set()
        standings = {
            identity: _standing(outcome, failed=identity in failed)
            for identity, outcome in outcomes.items()
            if identity in failed or outcome.outcome in (Outcome.CARRIED, Outcome.SKIPPED)
        }
        return await columns.tell_source(connection, standings)

    async def tell_target(self, outcomes: Outcomes, *, failed: Collection[Identity], epoch: int) -> None:
        """In a small transaction of its own: what did not go over is FAILED, or PENDING while it is tried again.

        It comes before the failure is kept, so that a crash in between leads to another try.
        """
        columns = self._target.sync_columns
        if columns is None:
            return
        standings = {
            identity: _standing(outcome, failed=identity in failed)
            for identity, outcome in outcomes.items()
            if columns.has(identity[0]) and outcome.outcome in (Outcome.REFUSED, Outcome.WAITING)
        }
        if not standings:
            return
        await self._hook("before_telling")
        async with self._target.begin() as connection:
            await self._target.state.enter(connection, self._direction, epoch=epoch)
            for entity in self._catalog.ordered:
                keys = [key for name, key in standings if name == entity.name]
                if keys:
                    await self._target.state.lock_guards(connection, entity, keys=keys)
            await columns.tell_target(connection, standings, epoch=epoch)


async def tell_synced(source: SideStore, connection: Connection, carried: Iterable[Identity]) -> None:
    """Tell rows of the source that their keys went over, in the transaction that has ended their journal rows.

    A key whose row somebody writes just now is journalled again: the relay will tell it.
    """
    if source.sync_columns is not None:
        synced = Standing(status=SyncStatus.SYNCED)
        for entity, key in await source.sync_columns.tell_source(connection, dict.fromkeys(carried, synced)):
            await source.journal.add(connection, entity, [key])


def _standing(outcome: KeyOutcome, *, failed: bool) -> Standing:
    if outcome.outcome in (Outcome.CARRIED, Outcome.SKIPPED):
        return Standing(status=SyncStatus.SYNCED)
    return Standing(
        status=SyncStatus.FAILED if failed else SyncStatus.PENDING,
        error=outcome.reason or None,
        position=outcome.position,
    )


__all__ = ["SyncTelling", "tell_synced"]
