"""The mark of a side: open or closed, and in which epoch. The fence and every carry go by it; only this module changes it.

Each change names the epoch that it leads to and is made only from a lower one: whoever comes late changes nothing.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Side
from backend.shared.journal.fence import FENCED, assert_open
from backend.shared.stores.postgres.errors import LOCK_NOT_AVAILABLE, describe, sqlstate_of
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.side import LockHeldError, Mark

MOST_SILENT_MS = 1000
"""So long may whoever holds a fence lock alone say nothing."""


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

    def __init__(self, names: EngineNames, engine: AsyncEngine, side: Side) -> None:
        self._names = names
        self._engine = engine
        self._side = side

    async def read(self, connection: AsyncConnection) -> Mark:
        """The mark as this statement sees it."""
        row = (
            await connection.execute(
                text(
                    "SELECT state, captures, epoch, foreign_writes, capture_change, capture_token, identity "
                    f"FROM {self._names.mark}"
                )
            )
        ).one()
        return Mark(
            is_open=row.state == "open",
            captures=row.captures,
            epoch=row.epoch,
            foreign_writes=row.foreign_writes,
            capture_change=row.capture_change,
            capture_token=row.capture_token,
            identity=row.identity,
        )

    async def lock_alone(self, connection: AsyncConnection, *, timeout_ms: int) -> None:
        """Take the fence lock alone: from then on until the transaction ends nobody writes here. `LockHeldError` in vain.

        A holder that falls silent is cut off by the server, so that a process that was stopped holds up nobody for long.
        """
        await connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {MOST_SILENT_MS}")
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(timeout_ms)}")
        try:
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._names.fence_lock})")
        except Exception as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
            raise LockHeldError(describe(error)) from error

    async def share(self, connection: AsyncConnection) -> None:
        """Take the fence lock in share mode: until the transaction ends the mark stays as it is."""
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({self._names.fence_lock})")

    async def hold_open(self, connection: AsyncConnection) -> None:
        """Keep an open side open until the transaction ends; raises `FencedError` if it is closed."""
        try:
            await connection.exec_driver_sql(assert_open(self._names))
        except Exception as error:
            if sqlstate_of(error) != FENCED:
                raise
            raise FencedError("it is closed", side=self._side, unavailable=True) from error

    async def hold_authority(self, connection: AsyncConnection, *, epoch: int) -> None:
        """Hold the fence in share mode; the row lock makes an old snapshot fail rather than see an old mark (R7).

        Raises `FencedError` unless this side is open in `epoch`.
        """
        await self.share(connection)
        found = await connection.exec_driver_sql(
            f"SELECT 1 FROM {self._names.mark} WHERE state = 'open' AND epoch = $1 FOR SHARE", (epoch,)
        )
        if found.first() is None:
            raise FencedError(
                f"not open in epoch {epoch}, so nothing may be written to it",
                side=self._side,
                unavailable=True,
            )

    async def holders(self) -> list[str]:
        """Who holds the fence lock, by what the server tells this login."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                text(
                    "SELECT a.pid, coalesce(nullif(a.application_name, ''), a.usename) AS who, "
                    "extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age "
                    "FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid, "
                    f"(SELECT ARRAY[{self._names.fence_lock}]::bigint[] AS number) AS fence "
                    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.database = "
                    "(SELECT oid FROM pg_database WHERE datname = current_database()) "
                    "AND l.classid::bigint = fence.number[1] AND l.objid::bigint = fence.number[2] & 4294967295 "
                    "ORDER BY a.xact_start LIMIT 3"
                )
            )
            return [
                f"process {row.pid} ({row.who or 'another login'}) has held a transaction on the {self._side.value} side "
                "open" + (f" for {row.age:.1f} s" if row.age is not None else "")
                for row in rows
            ]

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
