"""Whether the service's own database has every migration that this version needs."""

from __future__ import annotations

from pathlib import Path

import structlog
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared import InstallationError

_MIGRATIONS = Path(__file__).parent.parent / "migrations"

log = structlog.get_logger(__name__)


async def check_schema_version(engine: AsyncEngine) -> None:
    """Raise `InstallationError` when a migration is missing.

    A database that is ahead of this version will do: migrations only add while an older version may still run.
    """
    script = ScriptDirectory(str(_MIGRATIONS))
    wanted = script.get_current_head()
    async with engine.connect() as connection:
        found = await connection.run_sync(_revision)
    if found == wanted:
        return
    if found is None or found in {item.revision for item in script.walk_revisions()}:
        raise InstallationError(
            f"the new side is at migration {found or 'none'}, this version needs {wanted}: "
            "run `alembic -c backend/cart_service/alembic.ini upgrade head`",
            variable="CART_DATABASE_URL",
        )
    log.warning("schema_newer_than_service", found=found, wanted=wanted)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
