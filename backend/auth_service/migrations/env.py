"""Runs migrations against the database of `AUTH_DATABASE_URL`, else `DATABASE_URL`."""

from __future__ import annotations

import asyncio
import sys
from typing import NoReturn

from alembic import context
from sqlalchemy import Connection, text

from backend.auth_service.app.models import METADATA
from backend.shared import ConfigurationError
from backend.shared.database import create_side_engine
from backend.shared.environment import load_environment

# A migration that waits for a lock keeps everybody behind it waiting: so it gives up early, and is run again.
LOCK_TIMEOUT = "3s"
STATEMENT_TIMEOUT = "10min"


def _database_url() -> str:
    given = context.config.attributes.get("database_url")
    if isinstance(given, str):  # of a program that migrates another database than the environment's
        return given
    environment = load_environment()
    url = environment.get("AUTH_DATABASE_URL") or environment.get("DATABASE_URL")
    if not url:
        raise ConfigurationError(
            "is not set, so there is no database to migrate", variable="AUTH_DATABASE_URL"
        )
    return url


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=METADATA, transaction_per_migration=True, compare_type=True
    )
    with context.begin_transaction():
        context.run_migrations()


async def _run() -> None:
    engine = create_side_engine(
        _database_url(), application_name="auth-migration", variable="AUTH_DATABASE_URL"
    )
    try:
        async with engine.connect() as connection:
            await connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
            await connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
            await connection.commit()
            await connection.run_sync(_migrate)
            await connection.commit()
    finally:
        await engine.dispose()


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(f"auth migration: {reason}\n")
    sys.exit(2)


if context.is_offline_mode():
    _refuse("runs against a database only, not as a script")
try:
    asyncio.run(_run())
except ConfigurationError as wrong:
    _refuse(str(wrong))
except OSError as wrong:
    _refuse(f"AUTH_DATABASE_URL: the new side is not reachable ({type(wrong).__name__})")
