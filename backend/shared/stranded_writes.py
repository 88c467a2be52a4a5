"""Writes on the secondary side alone, while the authoritative one is away (`DUAL_WRITE_AVAILABILITY=any`).

One transaction, which enters as a carry does: so it holds the fence, and fails where this side is not closed in the epoch
that the caller goes by. It runs the unit, parks the guards of the keys that it has touched, so that no carry writes over
them, and keeps what this side held of them before. `stranded` settles them when the authoritative side answers again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from backend.shared.domain.errors import outcome_unknown
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Direction
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.journal.stranded_records import PARKED_EPOCH
from backend.shared.stores.errors import is_database_error, says_nothing_of_a_commit
from backend.shared.stores.protocol import Position
from backend.shared.stores.side import Connection, SideStore
from backend.shared.stores.state_images import image_of
from backend.shared.units import Runner, Unit

T = TypeVar("T")
PARKED = (PARKED_EPOCH, Position(major=0, minor=0))
_MOST_AT_ONCE = 8


class StrandedWriter:
    """Runs units on the secondary side alone. `hook` is for tests."""

    def __init__(
        self,
        *,
        runner: Runner,
        target: SideStore,
        catalog: EntityCatalog,
        direction: Direction,
        timeout_seconds: Callable[[], float],
        hook: Hook = no_hook,
    ) -> None:
        self._runner = runner
        self._target = target
        self._catalog = catalog
        self._direction = direction
        self._timeout_seconds = timeout_seconds
        self._hook = hook
        # Each holds a connection and needs another one: of a full pool all would wait for themselves.
        pool = target.pool()
        self._places = asyncio.Semaphore(max(1, pool.size // 2) if pool else _MOST_AT_ONCE)

    async def run(self, unit: Unit[T], *, request_id: str, epoch: int) -> T:
        """Run `unit`; durable on the secondary side when this returns.

        Raises `FencedError` where that side is not closed in `epoch`, `SideError` where it refuses or does not answer, and
        what the unit raises.
        """

        async def attempt() -> T:
            async with self._places, self._target.connect() as connection:
                async with asyncio.timeout(self._timeout_seconds()):
                    value = await self._write(connection, unit, request_id=request_id, epoch=epoch)
                await self._hook("before_stranded_commit")
                await self._commit(connection)
            await self._hook("after_stranded_commit")
            return value

        return await self._runner.repeat(attempt)

    async def _write(self, connection: Connection, unit: Unit[T], *, request_id: str, epoch: int) -> T:
        target = self._target
        await target.state.enter(connection, self._direction, epoch=epoch)
        async with self._runner.carrying(connection, request_id=request_id) as work:
            value = await unit(work)
            touched = {entity: sorted(keys) for entity, keys in work.touched.items()}
        for name in sorted(touched, key=self._catalog.rank):
            entity, keys = self._catalog[name], touched[name]
            await target.state.lock_guards(connection, entity, keys=keys)
            # What was committed last is what was there before: these keys are this transaction's now.
            async with target.reading() as before:
                stored = await target.state.read_stored(before, entity, self._direction, keys=keys)
            await target.stranded.keep(
                connection, name, {key: image_of(stored, key) for key in keys}, request_id=request_id
            )
            await target.state.set_guards(connection, entity, keys=keys, guard=PARKED, epoch=epoch)
        if target.sync_columns is not None:
            await target.sync_columns.tell_alone(connection, touched)
        return value

    async def _commit(self, connection: Connection) -> None:
        try:
            await connection.commit()
        except Exception as error:
            if not is_database_error(error) or not says_nothing_of_a_commit(error):
                raise
            raise outcome_unknown(self._direction.target) from error
