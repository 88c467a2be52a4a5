"""The unit of work over one SQL database, through SQLAlchemy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL, Connection, event, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from backend.shared import InstallationError
from backend.shared.database import DatabaseLimits, create_side_engine

from ...core.settings import Address
from ...models import METADATA
from ...ports import Repositories
from ..rows.address import sqlite_path
from ..rows.errors import explain_row_error, is_repeatable_row_error
from .statements import sqlalchemy_repositories
from .tables import sqlite_metadata

_ONLY_READS = "only_reads"


def open_transactions(address: Address, *, limits: DatabaseLimits) -> SqlAlchemyTransactions:
    """Transactions on the database at `address`, PostgreSQL or SQLite. Connects to nothing yet."""
    path = sqlite_path(address)
    if path is not None:
        return SqlAlchemyTransactions(create_sqlite_engine(path, limits=limits), address)
    engine = create_side_engine(
        address.url, application_name="tandem-task", variable=address.variable, limits=limits
    )
    return SqlAlchemyTransactions(engine, address)


def create_sqlite_engine(path: str, *, limits: DatabaseLimits | None = None) -> AsyncEngine:
    """An engine on a file. Writers come one after the other: each waits for the one before, up to `lock_seconds`."""
    limits = limits or DatabaseLimits()
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=path),
        pool_size=limits.pool_size,
        max_overflow=limits.max_overflow,
        pool_timeout=limits.pool_wait_seconds,
        hide_parameters=True,
        connect_args={"timeout": limits.lock_seconds},
    )
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    # The driver would begin by itself, later than is wanted; see SQLAlchemy's page on SQLite, "Serializable isolation".
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    only_reads = connection.get_execution_options().get(_ONLY_READS, False)
    # A writer that begins as a reader could not become one any more after somebody else has written.
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


class SqlAlchemyTransactions:
    """A session and a transaction for each unit of work. Owns the engine."""

    def __init__(self, engine: AsyncEngine, address: Address) -> None:
        self._engine = engine
        self._address = address
        self._kind = "SQLite" if engine.dialect.name == "sqlite" else "PostgreSQL"

    @asynccontextmanager
    async def begin(self, *, only_reads: bool = False) -> AsyncIterator[Repositories]:
        async with AsyncSession(self._engine, expire_on_commit=False) as session, session.begin():
            await session.connection(execution_options={_ONLY_READS: only_reads})
            yield sqlalchemy_repositories(session)

    def explain(self, error: Exception) -> Exception | None:
        return explain_row_error(error, store=self._kind, packages=("sqlalchemy",))

    def is_repeatable(self, error: Exception) -> bool:
        return is_repeatable_row_error(error)

    async def start(self) -> None:
        """A file gets its tables, if it lacks them; a server's tables come by migration, and are only looked for."""
        async with self._engine.begin() as connection:
            if self._kind == "SQLite":
                await connection.run_sync(sqlite_metadata().create_all)
            elif missing := set(METADATA.tables) - set(await connection.run_sync(_names)):
                raise InstallationError(
                    f"the database has no table {min(missing)}: run its migrations",
                    variable=self._address.variable,
                )

    async def check(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self._engine.dispose()


def _names(connection: Connection) -> list[str]:
    return inspect(connection).get_table_names()
