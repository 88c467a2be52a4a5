"""What every service's `migrations/env.py` does: runs its migrations against its own database."""

from __future__ import annotations

import asyncio
import sys
from typing import NoReturn

from alembic import context
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import DBAPIError

from backend.shared.database import create_side_engine
from backend.shared.domain.errors import ConfigurationError
from backend.shared.environment import load_environment

# A migration that waits for its lock makes all traffic queue up behind it: so it gives up early, and is run again.
_LIMITS = {"lock_timeout": "3s", "statement_timeout": "10min"}
_GIVEN = "database_url"


def run_migrations(service: str, metadata: MetaData | None = None) -> None:
    """Migrate the database of `CART_DATABASE_URL`, else `DATABASE_URL`, for the service `cart`; called by Alembic.

    Each migration is a transaction of its own. What cannot be done ends the process with one line and exit 2. `metadata` is
    what `alembic check` compares with. A program may name another database in its Alembic configuration, as the attribute
    `database_url`; it gets a `ConfigurationError` instead.
    """
    if context.is_offline_mode():
        _refuse(service, "is run against a database, not written out as a script")
    try:
        asyncio.run(_run(service, metadata))
    except ConfigurationError as error:
        if _GIVEN in context.config.attributes:
            raise
        _refuse(service, error)


async def _run(service: str, metadata: MetaData | None) -> None:
    variable, url = _database(service)
    engine = create_side_engine(url, application_name=f"tandem-{service}-migration", variable=variable)
    try:
        async with engine.connect() as connection:
            for name, value in _LIMITS.items():
                await connection.execute(text(f"SET {name} = '{value}'"))
            await connection.commit()
            await connection.run_sync(_migrate, metadata)
            await connection.commit()
    except DBAPIError as error:
        raise ConfigurationError(f"the database refused: {error.orig}", variable=variable) from error
    except (OSError, TimeoutError) as error:
        raise ConfigurationError(f"not reachable ({type(error).__name__})", variable=variable) from error
    finally:
        await engine.dispose()


def _database(service: str) -> tuple[str, str]:
    """The variable that names the database, and what it says."""
    variables = (f"{service.upper()}_DATABASE_URL", "DATABASE_URL")
    given = context.config.attributes.get(_GIVEN)
    environment = {variables[0]: given} if isinstance(given, str) else load_environment()
    for variable in variables:
        if url := environment.get(variable):
            return variable, url
    raise ConfigurationError("is not set, so there is no database to migrate", variable=variables[0])


def _migrate(connection: Connection, metadata: MetaData | None) -> None:
    context.configure(
        connection=connection, target_metadata=metadata, transaction_per_migration=True, compare_type=True
    )
    with context.begin_transaction():
        context.run_migrations()


def _refuse(service: str, reason: object) -> NoReturn:
    sys.stderr.write(f"{service} migration: {' '.join(str(reason).split())}\n")
    sys.exit(2)
