"""The unit of work over one SQL database, through Peewee."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from peewee import SqliteDatabase
from playhouse.pwasyncio import AsyncDatabaseMixin  # type: ignore[import-untyped]  # it ships no types

from backend.shared import ConfigurationError, InstallationError
from backend.shared.database import DatabaseLimits, goes_through_pgbouncer, plain_url

from ...core.settings import Address
from ...models import METADATA
from ...ports import Repositories
from ..rows.address import sqlite_path
from ..rows.errors import explain_row_error, is_repeatable_row_error
from ..sqlalchemy.tables import sqlite_metadata
from ..sqlalchemy.transactions import create_sqlite_engine
from .databases import PostgresqlServer, SqliteFile
from .statements import peewee_repositories


def open_transactions(address: Address, *, limits: DatabaseLimits) -> PeeweeTransactions:
    """Transactions on the database at `address`, PostgreSQL or SQLite. Connects to nothing yet."""
    path = sqlite_path(address)
    if path is not None:
        return PeeweeTransactions(SqliteFile(path, limits=limits), address)
    if goes_through_pgbouncer(address.url, variable=address.variable):
        raise ConfigurationError(
            "goes through PgBouncer, which forgets the statements that Peewee prepares",
            variable=address.variable,
        )
    url = plain_url(address.url, variable=address.variable)
    return PeeweeTransactions(PostgresqlServer(url, limits=limits), address)


class PeeweeTransactions:
    """A connection and a transaction for each unit of work. Owns the database."""

    def __init__(self, database: AsyncDatabaseMixin, address: Address) -> None:
        self._database = database
        self._address = address
        self._on_sqlite = isinstance(database, SqliteDatabase)

    @asynccontextmanager
    async def begin(self, *, only_reads: bool = False) -> AsyncIterator[Repositories]:
        # A writer that begins as a reader could not become one any more after somebody else has written.
        how = ("IMMEDIATE",) if self._on_sqlite and not only_reads else ()
        try:
            async with self._database.transaction(*how):
                yield peewee_repositories(self._database)
        finally:
            # Peewee would keep the connection until the task ends.
            await self._database.aclose()

    def explain(self, error: Exception) -> Exception | None:
        kind = "SQLite" if self._on_sqlite else "PostgreSQL"
        return explain_row_error(error, store=kind, packages=("peewee", "sqlalchemy"))

    def is_repeatable(self, error: Exception) -> bool:
        return is_repeatable_row_error(error)

    async def start(self) -> None:
        """A file gets its tables, if it lacks them; a server's tables come by migration, and are only looked for."""
        if self._on_sqlite:
            await self._create_tables()
            return
        try:
            names = await self._database.run(self._database.get_tables)
        finally:
            await self._database.aclose()
        if missing := set(METADATA.tables) - set(names):
            raise InstallationError(
                f"the database has no table {min(missing)}: run its migrations",
                variable=self._address.variable,
            )

    async def _create_tables(self) -> None:
        # One declaration of the tables is enough: this is the one that knows their rules.
        engine = create_sqlite_engine(self._database.database)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(sqlite_metadata().create_all)
        finally:
            await engine.dispose()

    async def check(self) -> None:
        try:
            await self._database.aexecute_sql("SELECT 1")
        finally:
            await self._database.aclose()

    async def close(self) -> None:
        await self._database.close_pool()
