"""What settling a conflict does on the authoritative side, whatever kind of database that is: one transaction each time.

Each asserts the epoch in which it was decided, under the fence (R7): so nothing is written on a side that is, or was, closed
since. What is written is claimed in that same transaction: so a crash before the conflict is closed does not make it happen
twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from backend.shared.domain.isolation import Isolation
from backend.shared.domain.mapping import decode_key
from backend.shared.domain.phases import Side
from backend.shared.journal.conflict_records import Conflict
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.side import Connection

TRIES = 10


class ConflictAuthority:
    """Writes on `side`, which is believed to be the authoritative one in `epoch`."""

    def __init__(self, runtime: ServiceRuntime, *, side: Side, epoch: int, by: str) -> None:
        self._runtime = runtime
        self._side = side
        self._epoch = epoch
        self._by = by
        self._store = runtime.stores[side]
        self._runner = runtime.runners[side]

    async def journal(self, conflict: Conflict) -> None:
        """Put a key on its way once more. Raises `FencedError` if the authority has moved."""

        async def attempt() -> None:
            async with self._store.begin() as connection:
                await self._store.marks.hold_authority(connection, epoch=self._epoch)
                await self._store.journal.add(connection, conflict.entity, [conflict.key])

        await self._runner.repeat(attempt)

    async def write(
        self, conflict: Conflict, body: Callable[[Connection], Awaitable[bool]], *, keep: Side
    ) -> bool:
        """Write what `body` does, as a captured write; not again where that was done before.

        False, with nothing kept, if `body` answers so: what it was decided by is no longer the case. `body` may run several
        times. Raises what it does, `FencedError` if the authority has moved, and `SideError` if the side refuses it.
        """

        async def attempt() -> bool:
            # Whoever writes the same after this has read it makes it fail, and `body` sees what has changed.
            async with self._runner.transaction(
                request_id="settle", journals_touched=True, isolation=Isolation.REPEATABLE_READ
            ) as transaction:
                connection = transaction.connection
                await self._store.marks.hold_authority(connection, epoch=self._epoch)
                claimed = await self._store.conflicts.claim_settlement(
                    connection, conflict, kept=keep, by=self._by
                )
                if not claimed:
                    return True
                if not await body(connection):
                    return False
                transaction.work.touch(conflict.entity, decode_key(conflict.key))
                await transaction.commit()
            return True

        return await self._runner.repeat(attempt)
