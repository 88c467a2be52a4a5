"""Runs migrations against the service's own database: `TASK_DATABASE_URL`, else `DATABASE_URL`."""

from __future__ import annotations

import asyncio
import sys
from typing import NoReturn

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from backend.shared import ConfigurationError
from backend.shared.database import create_side_engine
from backend.shared.environment import load_environment
from backend.task_service.app.models import METADATA

VARIABLES = ("TASK_DATABASE_URL", "DATABASE_URL")
# Whoever waits for a lock holds up everybody behind her: so a migration gives up early, and is run again.
SESSION = "SET lock_timeout = '3s'; SET statement_timeout = '10min'"


def _database() -> tuple[str, str]:
    """The variable that names the database, and what it says; a program may name another one in its config."""
    given = context.config.attributes.get("database_url")
    environment = {VARIABLES[0]: given} if isinstance(given, str) else load_environment()
    for variable in VARIABLES:
        if url := environment.get(variable):
            return variable, url
    raise ConfigurationError("is not set, so there is no database to migrate", variable=VARIABLES[0])


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=METADATA, transaction_per_migration=True, compare_type=True
    )
    with context.begin_transaction():
        context.run_migrations()


async def _run() -> None:
    variable, url = _database()
    engine = create_side_engine(url, application_name="tandem-task-migration", variable=variable)
    try:
        async with engine.connect() as connection:
            for statement in SESSION.split("; "):
                await connection.execute(text(statement))
            await connection.commit()
            await connection.run_sync(_migrate)
            await connection.commit()
    except DBAPIError as error:
        raise ConfigurationError(f"the database refused: {error.orig}", variable=variable) from error
    except (OSError, TimeoutError) as error:
        raise ConfigurationError(f"not reachable ({type(error).__name__})", variable=variable) from error
    finally:
        await engine.dispose()


def _refuse(reason: object) -> NoReturn:
    sys.stderr.write(f"task migration: {' '.join(str(reason).split())}\n")
    sys.exit(2)


if context.is_offline_mode():
    _refuse("is run against a database, not written out as a script")
try:
    asyncio.run(_run())
except ConfigurationError as wrong:
    _refuse(wrong)
