"""Settles stranded keys: what was written on the secondary side alone, while the authoritative one was away.

Of each key three states are held against each other: what the secondary side has, what it had before it was written alone,
and what the authoritative side has now. Where nobody has written the key there, the state of the secondary side is
written to it, as an ordinary captured write. Where both have changed it the newer change wins, and both states are kept as a
conflict that is settled by `newer`, in the very transaction that drops the one: so nothing is dropped unseen.

All the while the guard of the key is held, so that it stays what it was found to be. Only when the authoritative side has
what it is to have are the guard let go of and the key forgotten, in one transaction. A crash anywhere leaves the key
stranded, and to settle it again finds the two sides the same, or what another program has done since.
"""

from __future__ import annotations

import asyncio

import structlog

from backend.shared.domain.errors import FencedError, TandemError
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.mapping import EntityMapping, decode_key
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.conflict_records import SettledConflict
from backend.shared.journal.stranded_records import StrandedKey
from backend.shared.pausing import pause
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import describe, is_database_error
from backend.shared.stores.postgres.projection_sql import table_name
from backend.shared.stores.protocol import StateBatch, UnfitKeysError
from backend.shared.stores.repeating import in_transaction
from backend.shared.stores.side import Connection, SideStore
from backend.shared.stores.state_images import batch_of_image, differing, documents_by_table
from backend.shared.units import Transaction

SETTLED_BY = "newer"
PAUSE_SECONDS = 1.0
KEYS_AT_ONCE = 100
KEY_SECONDS = 2.0
"""So long a key may take: whoever writes it on the authoritative side may wait for its guard, which is held here."""

log = structlog.get_logger(__name__)


class StrandedKeys:
    """Settles the stranded keys of one service. Any number may run, and beside anything."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._runtime = runtime

    async def run(self, stop: asyncio.Event) -> None:
        """Settle what there is, until `stop` is set. Trouble with a side is waited out."""
        while not stop.is_set():
            try:
                settled = await self.settle()
            except Exception as error:
                if not is_database_error(error) and not isinstance(error, TandemError):
                    raise
                log.debug("stranded_keys_held", service=self._runtime.service, error=describe(error))
                settled = 0
            if not settled:
                await pause(stop, PAUSE_SECONDS)

    async def count(self) -> int:
        """How many there are on the secondary side."""
        direction = self._runtime.phase.policy.direction
        if direction is None:
            return 0
        target = self._runtime.stores[direction.target]
        async with target.reading() as connection:
            return await target.stranded.count(connection)

    async def settle(self) -> int:
        """Try to settle those that have been there for longest; answers how many of them were.

        Raises what a database does when it does not answer. A key that cannot be settled is logged, and stays.
        """
        runtime, direction = self._runtime, self._runtime.phase.policy.direction
        if direction is None or any(breaker.is_open for breaker in runtime.breakers.values()):
            return 0
        target = runtime.stores[direction.target]
        async with target.reading() as connection:
            found = await target.stranded.page(connection, limit=KEYS_AT_ONCE)
        if not found:
            return 0
        await runtime.stores[direction.source].ping()
        settled = 0
        for item in found:
            settled += await self._settle_one(item, direction)
        if settled:
            runtime.relays[direction].wake()
        return settled

    async def _settle_one(self, item: StrandedKey, direction: Direction) -> bool:
        runtime = self._runtime
        told = {"service": runtime.service, "entity": item.entity, "key": item.key}
        if item.entity not in runtime.catalog:
            log.error("stranded_key_unknown", **told)
            return False
        try:
            async with asyncio.timeout(KEY_SECONDS):
                done = await _Settling(runtime, direction, item).run()
        except FencedError as error:
            log.warning("stranded_key_held", **told, reason=str(error))
            return False
        except Exception as error:
            if not is_database_error(error) and not isinstance(error, TandemError | UnfitKeysError):
                raise
            log.warning("stranded_key_held", **told, reason=describe(error))
            return False
        if done:
            log.info("stranded_key_settled", **told, request_id=item.request_id)
        return done


class _Settling:
    """One key."""

    def __init__(self, runtime: ServiceRuntime, direction: Direction, item: StrandedKey) -> None:
        self._runtime = runtime
        self._direction = direction
        self._entity: EntityMapping = runtime.catalog[item.entity]
        self._key = item.key
        self._epoch = runtime.control.epoch
        self._source: SideStore = runtime.stores[direction.source]
        self._target: SideStore = runtime.stores[direction.target]

    async def run(self) -> bool:
        """False if somebody else has settled it."""
        target, keys = self._target, [self._key]
        async with target.connect() as held:
            await target.state.enter(held, self._direction, epoch=self._epoch)
            await target.state.lock_guards(held, self._entity, keys=keys)
            stranded = await target.stranded.get(held, self._entity.name, self._key)
            if stranded is None:
                return False
            there = await target.state.read_stored(held, self._entity, self._direction, keys=keys)
            await self._runtime.hook("stranded_held")
            stronger = await self._write(stranded, there, held)
            await self._runtime.hook("stranded_written")
            await self._let_go(held, there, stronger)
        await self._runtime.hook("stranded_settled")
        return True

    # The authoritative side -------------------------------------------------------------------------------------------

    async def _write(self, stranded: StrandedKey, there: StateBatch, held: Connection) -> StateBatch | None:
        """Bring the state of the secondary side to the authoritative one; else what that has, and is newer."""
        runner = self._runtime.runners[self._source.side]

        async def attempt() -> StateBatch | None:
            # Whoever writes the key after this has read it makes the write fail, and it is looked at again.
            async with runner.transaction(
                request_id=stranded.request_id or "stranded",
                journals_touched=self._runtime.journals_touched(self._source.side),
                isolation=Isolation.REPEATABLE_READ,
            ) as transaction:
                now = await self._source.state.read_uncommitted(
                    transaction.connection, self._entity, self._direction, keys=[self._key]
                )
                await self._runtime.hook("stranded_compared")
                if not differing(now, there):
                    return None
                if differing(now, self._before(stranded)):
                    changed_at = await self._source.journal.changed_at(
                        transaction.connection, self._entity.name, self._key
                    )
                    if changed_at is not None and changed_at > stranded.changed_at:
                        return now
                    await self._keep_dropped(transaction.connection, self._source, now, kept=there)
                await self._put(transaction, held)
                await transaction.commit()
            return None

        return await runner.repeat(attempt)

    def _before(self, stranded: StrandedKey) -> StateBatch:
        return batch_of_image(stranded.before, self._entity, self._direction, key=self._key)

    async def _put(self, transaction: Transaction, held: Connection) -> None:
        back = Direction.towards(self._source.side)
        state = await self._target.state.read_state(held, self._entity, back, keys=[self._key])
        await self._source.state.write(
            transaction.connection, [state], {self._entity.name: frozenset([self._key])}
        )
        transaction.work.touch(self._entity.name, decode_key(self._key))

    # The secondary side -----------------------------------------------------------------------------------------------

    async def _let_go(self, held: Connection, there: StateBatch, stronger: StateBatch | None) -> None:
        """Let the guard go, and forget the key.

        The guard goes to where the authoritative side was read: a carry of something older stays without effect. Where the
        two differ the key is journalled *after* that, so that whoever claims that row has read something newer.
        """
        final = await self._final_state()
        if stronger is not None or differing(final, there):
            await self._journal()
        if stronger is not None:
            await self._keep_dropped(held, self._target, there, kept=stronger)
        await self._target.state.set_guards(
            held, self._entity, keys=[self._key], guard=(self._epoch, final.position), epoch=self._epoch
        )
        await self._target.stranded.end(held, self._entity.name, self._key)
        await self._runtime.hook("stranded_letting_go")
        await held.commit()

    async def _final_state(self) -> StateBatch:
        async with self._source.reading() as connection:
            state = await self._source.state.read_state(
                connection, self._entity, self._direction, keys=[self._key]
            )
            await self._source.state.make_durable(connection)
        return state

    async def _journal(self) -> None:
        async def add(connection: Connection) -> None:
            await self._source.journal.add(connection, self._entity.name, [self._key])

        await in_transaction(self._source, add)

    async def _keep_dropped(
        self, connection: Connection, store: SideStore, dropped: StateBatch, *, kept: StateBatch
    ) -> None:
        """Keep both states on the side whose state is about to be written over, in that transaction."""
        winner: Side = store.side.other
        await store.conflicts.keep_settled(
            connection,
            SettledConflict(
                side=store.side,
                entity=self._entity.name,
                key=self._key,
                source_table=table_name(self._entity.sources(store.side)[0].table),
                kept_rows=documents_by_table(kept, self._key),
                dropped_rows=documents_by_table(dropped, self._key),
                settled_by=SETTLED_BY,
                detail=f"changed on both sides while they did not see each other; newer on the {winner.value} side",
            ),
        )
        log.warning(
            "stranded_key_conflicted",
            service=self._runtime.service,
            entity=self._entity.name,
            key=self._key,
            kept=winner.value,
        )


__all__ = ["SETTLED_BY", "StrandedKeys"]
