"""Carries keys for a backfill the way the relay does: good rows go, bad ones become failures, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from backend.shared.domain.mapping import EntityCatalog, EntityMapping
from backend.shared.domain.phases import Direction
from backend.shared.journal.carrier import Carrier, Hook, Outcome, Outcomes, no_hook
from backend.shared.journal.records import ClaimedKey
from backend.shared.journal.refusals import withdraw_outdated
from backend.shared.journal.sync_telling import SyncTelling
from backend.shared.migration.range_sql import EntityRanges
from backend.shared.stores.postgres.key_sql import KeyRange
from backend.shared.stores.repeating import in_transaction
from backend.shared.stores.side import Connection, SideStore

KEYS_AT_ONCE = 500
KEYS_OF_TARGET = 10_000
"""Keys of the target that are looked at in one piece: it may have any number that the source has not."""


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What became of some keys. `rows`: those that the source has; `waiting`: left to the relay, in the journal."""

    rows: int = 0
    removed: int = 0
    failed: int = 0
    waiting: int = 0


class KeyCarrier:
    """Carries keys in one direction. May be repeated, and may run beside anything: the guard decides."""

    def __init__(
        self,
        *,
        source: SideStore,
        target: SideStore,
        catalog: EntityCatalog,
        direction: Direction,
        hook: Hook = no_hook,
    ) -> None:
        self._source = source
        self._target = target
        self._catalog = catalog
        self._direction = direction
        self._carrier = Carrier(source=source, target=target, catalog=catalog, direction=direction, hook=hook)
        self._telling = SyncTelling(source=source, target=target, catalog=catalog, direction=direction)
        self._failures = source.failures
        self._journal = source.journal

    async def carry_range(self, ranges: EntityRanges, keys: KeyRange, *, epoch: int) -> Carried:
        """Carry all keys that a range has on the source or, where it means the same there, on the target."""
        statement, parameters = ranges.source_keys(keys)
        async with self._source.connect() as connection:
            rows = await connection.exec_driver_sql(statement, tuple(parameters))
            ours = {row.k for row in rows}
        done = replace(await self.carry(ranges.entity, sorted(ours), epoch=epoch), rows=len(ours))
        while ranges.exact:
            statement, parameters = ranges.target_keys(keys, most=KEYS_OF_TARGET)
            async with self._target.connect() as connection:
                rows = await connection.exec_driver_sql(statement, tuple(parameters))
                theirs = [row.k for row in rows]
            gone = [key for key in theirs if key not in ours]
            more = await self.carry(ranges.entity, gone, epoch=epoch)
            done = replace(
                done,
                removed=done.removed + len(gone) - more.failed - more.waiting,
                failed=done.failed + more.failed,
                waiting=done.waiting + more.waiting,
            )
            if len(theirs) < KEYS_OF_TARGET:
                break
            keys = replace(keys, lower=theirs[-1])
        return done

    async def carry(self, entity: EntityMapping, keys: Sequence[str], *, epoch: int) -> Carried:
        """Carry `keys`. What the target refuses is a failure at once, what waits for a parent goes into the journal."""
        failed = waiting = 0
        for start in range(0, len(keys), KEYS_AT_ONCE):
            piece = keys[start : start + KEYS_AT_ONCE]
            outcomes = await self._carrier.carry({entity.name: piece}, epoch=epoch)
            waiting += await self._leave_to_relay(outcomes)
            failed += await self._record(outcomes, epoch=epoch)
            await self._close(outcomes, epoch=epoch)
        return Carried(rows=len(keys), failed=failed, waiting=waiting)

    async def _leave_to_relay(self, outcomes: Outcomes) -> int:
        """A missing parent may be on its way: the relay knows how to wait for it."""
        waiting = [identity for identity, found in outcomes.items() if found.outcome is Outcome.WAITING]
        if waiting:

            async def journal(connection: Connection) -> None:
                for entity, key in waiting:
                    await self._journal.add(connection, entity, [key])

            await in_transaction(self._source, journal)
        return len(waiting)

    async def _record(self, outcomes: Outcomes, *, epoch: int) -> int:
        refused = {
            identity: found for identity, found in outcomes.items() if found.outcome is Outcome.REFUSED
        }
        if not refused:
            return 0
        now = datetime.now(UTC)
        await self._telling.tell_target(refused, failed=refused, epoch=epoch)

        async def record(connection: Connection) -> None:
            for (entity, key), found in refused.items():
                claimed = ClaimedKey(
                    entity=entity, key=key, captured_at=now, attempts=1, waits=0, request_id=None
                )
                await self._failures.record(
                    connection,
                    claimed,
                    direction=self._direction,
                    epoch=epoch,
                    position=found.position,
                    reason=found.reason,
                    sqlstate=found.sqlstate,
                )
            await self._telling.tell_source(connection, refused, failed=refused)

        await in_transaction(self._source, record)
        outdated = await withdraw_outdated(
            refused,
            epoch=epoch,
            source=self._source,
            target=self._target,
            catalog=self._catalog,
            by="backfill",
        )
        return len(refused) - len(outdated)

    async def _close(self, outcomes: Outcomes, *, epoch: int) -> None:
        """A success closes what had failed before."""
        gone = {
            identity: found.position
            for identity, found in outcomes.items()
            if found.outcome in (Outcome.CARRIED, Outcome.SKIPPED)
        }
        if gone:

            async def close(connection: Connection) -> None:
                await self._failures.close(connection, gone, epoch=epoch, by="backfill")

            await in_transaction(self._source, close)
