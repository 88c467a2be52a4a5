"""Whether the service's own database has been migrated to what this version needs."""

from __future__ import annotations

from pathlib import Path

import structlog
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared import InstallationError

MIGRATIONS = Path(__file__).parent.parent / "migrations"

log = structlog.get_logger(__name__)


async def check_schema_version(engine: AsyncEngine) -> None:
    """Raise `InstallationError` if a migration is missing. A database that is ahead of this version will do."""
    script = ScriptDirectory(str(MIGRATIONS))
    wanted = script.get_current_head()
    async with engine.connect() as connection:
        found = await connection.run_sync(_revision)
    if found == wanted:
        return
    if found is not None and found not in {item.revision for item in script.walk_revisions()}:
        # Migrations only add while an older version may still run: so the one before can be put back at any time.
        log.warning("schema_newer_than_service", found=found, wanted=wanted)
        return
    raise InstallationError(
        f"the new side is at migration {found or 'none'}, this version needs {wanted}: "
        "run `alembic -c backend/auth_service/alembic.ini upgrade head`",
        variable="AUTH_DATABASE_URL",
    )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
