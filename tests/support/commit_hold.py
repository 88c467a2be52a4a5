"""A transaction that is held at its COMMIT, in another process, until a test has done to that process whatever it came for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

_LOCK = 4_711
WAIT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class CommitHold:
    """Whoever commits a row that was asked for waits, with everything else of its transaction done."""

    _connection: asyncpg.Connection
    _table: int

    async def reached(self, *, count: int = 1) -> None:
        """Returns when so many wait."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(await self._waiting()) < count:  # noqa: ASYNC110 - another process decides
                await asyncio.sleep(0.02)

    async def roll_back(self) -> None:
        """Whoever waits has never committed: its server process ends, as when its COMMIT was never sent."""
        for pid in await self._waiting():
            await self._connection.execute("SELECT pg_terminate_backend($1)", pid)
        while await self._waiting():  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.02)

    async def let_go(self) -> None:
        """Whoever waits commits, whether or not its client is still there."""
        await self._connection.execute("SELECT pg_advisory_unlock($1, $2)", _LOCK, self._table)

    async def _waiting(self) -> list[int]:
        rows = await self._connection.fetch(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::int::oid AND objid = $2::int::oid "
            "AND NOT granted",
            _LOCK,
            self._table,
        )
        return [row["pid"] for row in rows]


@asynccontextmanager
async def held_commits(url: str, table: str, *, when: str) -> AsyncIterator[CommitHold]:
    """Within the body, a transaction that writes a row of `table` for which `when` holds (of `NEW`) waits at its COMMIT."""
    connection = await asyncpg.connect(url)
    number: int = await connection.fetchval("SELECT $1::text::regclass::oid::int", table)
    name = f"test_hold_{number}"
    try:
        await connection.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN PERFORM pg_advisory_xact_lock_shared({_LOCK}, {number}); RETURN NULL; END $$"
        )
        await connection.execute("SELECT pg_advisory_lock($1, $2)", _LOCK, number)
        await connection.execute(
            f"CREATE CONSTRAINT TRIGGER {name} AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED "
            f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {name}()"
        )
        yield CommitHold(_connection=connection, _table=number)
    finally:
        await connection.execute("SELECT pg_advisory_unlock_all()")
        await connection.execute(f"DROP FUNCTION IF EXISTS {name}() CASCADE")
        await connection.close()
