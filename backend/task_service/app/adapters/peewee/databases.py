"""Peewee's databases with the bounds of the settings, which tell a full pool from a server that is away."""

from __future__ import annotations

from typing import Any

from playhouse.pwasyncio import AsyncPostgresqlDatabase, AsyncSqliteDatabase  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from backend.shared.database import DatabaseLimits


class SqliteFile(AsyncSqliteDatabase):  # type: ignore[misc]  # the package has no types
    """A file. Writers come one after the other: each waits for the one before, up to `lock_seconds`."""

    def __init__(self, path: str, *, limits: DatabaseLimits) -> None:
        super().__init__(
            path,
            pragmas={"foreign_keys": 1, "journal_mode": "wal"},
            timeout=limits.lock_seconds,
            pool_size=limits.pool_size + limits.max_overflow,
            acquire_timeout=limits.pool_wait_seconds,
        )

    async def _pool_acquire(self, pool: Any) -> Any:
        try:
            return await super()._pool_acquire(pool)
        except TimeoutError:
            raise PoolTimeoutError("no connection free in time") from None


class PostgresqlServer(AsyncPostgresqlDatabase):  # type: ignore[misc]  # the same
    """A server. Connections beyond the first are made when they are needed, and closed when idle for `pool_recycle_seconds`."""

    def __init__(self, url: str, *, limits: DatabaseLimits) -> None:
        milliseconds = {
            "statement_timeout": limits.statement_seconds,
            "lock_timeout": limits.lock_seconds,
            "idle_in_transaction_session_timeout": limits.idle_in_transaction_seconds,
        }
        super().__init__(
            url,
            pool_size=limits.pool_size + limits.max_overflow,
            acquire_timeout=limits.pool_wait_seconds,
            max_inactive_connection_lifetime=float(limits.pool_recycle_seconds),
            timeout=limits.connect_seconds,
            # A little longer than the server's own limit, whose error says more.
            command_timeout=limits.statement_seconds + min(5.0, limits.statement_seconds),
            server_settings={
                "application_name": "tandem-task",
                "timezone": "UTC",
                **{name: str(int(seconds * 1000)) for name, seconds in milliseconds.items()},
            },
        )

    async def _pool_acquire(self, pool: Any) -> Any:
        try:
            return await super()._pool_acquire(pool)
        except TimeoutError:
            # Else there was room for one more, and the server did not take it.
            if pool.get_size() >= pool.get_max_size() and pool.get_idle_size() == 0:
                raise PoolTimeoutError("no connection free in time") from None
            raise
