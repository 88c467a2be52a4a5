"""The mark of a side: open or closed, and in which epoch. The fence and every carry go by it; only this module changes it.

Each change names the epoch that it leads to and is made only from a lower one: whoever comes late changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.domain.phases import Side
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.postgres.names import EngineNames

MOST_SILENT_MS = 1000
"""So long may whoever holds a fence lock alone say nothing."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A side's mark as it was read.

    `capture_token` is that of capture when the side was opened, `identity` the database and timeline it was then.
    """

    is_open: bool
    epoch: int
    foreign_writes: str
    capture_change: int
    capture_token: str
    identity: str


async def identity_of(connection: AsyncConnection) -> str:
    """Which database this is, by what changes when it is restored or another server takes its place.

    The server's system identifier and the database's number change with a restore from a dump, the timeline with recovery
    to a point in time and with the promotion of a standby. A server that only crashed keeps all three.
    """
    allowed = await connection.execute(
        text("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
    )
    system = "(SELECT system_identifier::text FROM pg_control_system())" if allowed.scalar() else "''"
    found = await connection.execute(
        text(
            f"SELECT {system} || ':' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || ':' || "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    )
    return str(found.scalar_one())


class MarkRepository:
    """Reads and changes the mark in the caller's transaction."""

    def __init__(self, names: EngineNames) -> None:
        self._names = names

    async def read(self, connection: AsyncConnection) -> Mark:
        """The mark as this statement sees it."""
        row = (
            await connection.execute(
                text(
                    "SELECT state, epoch, foreign_writes, capture_change, capture_token, identity "
                    f"FROM {self._names.mark}"
                )
            )
        ).one()
        return Mark(
            is_open=row.state == "open",
            epoch=row.epoch,
            foreign_writes=row.foreign_writes,
            capture_change=row.capture_change,
            capture_token=row.capture_token,
            identity=row.identity,
        )

    async def lock_alone(self, connection: AsyncConnection, *, timeout_ms: int) -> None:
        """Take the fence lock alone: from then on until the transaction ends nobody writes here. SQLSTATE 55P03 in vain.

        A holder that falls silent is cut off by the server, so that a process that was stopped holds up nobody for long.
        """
        await connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {MOST_SILENT_MS}")
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(timeout_ms)}")
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._names.fence_lock})")

    async def share(self, connection: AsyncConnection) -> None:
        """Take the fence lock in share mode: until the transaction ends the mark stays as it is."""
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({self._names.fence_lock})")

    async def close(self, connection: AsyncConnection, *, epoch: int) -> bool:
        """Close an open side. The caller holds the fence lock alone."""
        return await self._change(connection, "closed", epoch=epoch, only_if="state = 'open'")

    async def open(self, connection: AsyncConnection, *, epoch: int, capture_token: str) -> bool:
        """Open a closed side. The caller holds the fence lock alone."""
        return await self._change(
            connection, "open", epoch=epoch, only_if="state = 'closed'", capture_token=capture_token
        )

    async def raise_epoch(self, connection: AsyncConnection, *, epoch: int, is_open: bool) -> bool:
        """Leave an open side open, or a closed one closed, in a later epoch."""
        state = "open" if is_open else "closed"
        return await self._change(connection, state, epoch=epoch, only_if=f"state = '{state}'")

    async def _change(
        self,
        connection: AsyncConnection,
        state: str,
        *,
        epoch: int,
        only_if: str,
        capture_token: str | None = None,
    ) -> bool:
        changed = await connection.execute(
            text(
                f"UPDATE {self._names.mark} SET state = :state, epoch = :epoch, "
                "capture_token = coalesce(:token, capture_token) "
                f"WHERE epoch < :epoch AND {only_if} RETURNING epoch"
            ),
            {"state": state, "epoch": epoch, "token": capture_token},
        )
        return changed.first() is not None

    async def change_capture(self, connection: AsyncConnection, *, captures: bool, number: int) -> bool:
        """Enter a change of capture under `number`; False, with nothing changed, if a later one has been here."""
        changed = await connection.execute(
            text(
                f"UPDATE {self._names.mark} SET captures = :captures, capture_change = :number "
                "WHERE capture_change <= :number RETURNING capture_change"
            ),
            {"captures": captures, "number": number},
        )
        return changed.first() is not None

    async def note_capture(self, connection: AsyncConnection, *, token: str) -> None:
        """Keep the token of capture that was just put on an open side."""
        await connection.execute(
            text(f"UPDATE {self._names.mark} SET capture_token = :token WHERE state = 'open'"),
            {"token": token},
        )

    async def note_identity(self, connection: AsyncConnection, identity: str) -> None:
        """Keep which database this is."""
        await connection.execute(
            text(f"UPDATE {self._names.mark} SET identity = :identity"), {"identity": identity}
        )

    async def overrule(
        self, connection: AsyncConnection, *, is_open: bool, epoch: int, identity: str
    ) -> None:
        """Make the mark what it has to be after a restore, whatever it says now. The caller holds the fence lock alone."""
        await connection.execute(
            text(
                f"UPDATE {self._names.mark} SET state = :state, epoch = :epoch, capture_token = '', identity = :identity"
            ),
            {"state": "open" if is_open else "closed", "epoch": epoch, "identity": identity},
        )

    async def set_foreign_writes(self, connection: AsyncConnection, value: str) -> None:
        """Say what becomes of foreign programs' writes while the side is closed."""
        await connection.execute(
            text(f"UPDATE {self._names.mark} SET foreign_writes = :value WHERE foreign_writes <> :value"),
            {"value": value},
        )


@asynccontextmanager
async def foreign_writes_set(
    engines: Mapping[Side, AsyncEngine], names: EngineNames, value: str, sides: Iterable[Side]
) -> AsyncIterator[None]:
    """All of `sides` go by `value` from when this has ended; none, if the body or a side fails (`SideError`)."""
    async with AsyncExitStack() as stack:
        for side in sides:
            connection = await stack.enter_async_context(_transaction(engines, side))
            try:
                await MarkRepository(names).set_foreign_writes(connection, value)
            except Exception as error:
                if not is_database_error(error):
                    raise
                raise to_side_error(error, side) from error
        yield


@asynccontextmanager
async def _transaction(engines: Mapping[Side, AsyncEngine], side: Side) -> AsyncIterator[AsyncConnection]:
    try:
        async with engines[side].begin() as connection:
            yield connection
    except Exception as error:
        if not is_database_error(error):
            raise
        raise to_side_error(error, side) from error
