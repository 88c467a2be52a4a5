"""Whether a service's own database has every migration that this version needs."""

from __future__ import annotations

from pathlib import Path

import structlog
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.errors import InstallationError

log = structlog.get_logger(__name__)


async def check_schema_version(engine: AsyncEngine, *, service: str, migrations: Path) -> None:
    """Raise `InstallationError` when a migration of those in the folder `migrations` is missing.

    A database that is ahead of this version will do: migrations only add while an older version may still run.
    """
    script = ScriptDirectory(str(migrations))
    wanted = script.get_current_head()
    async with engine.connect() as connection:
        found = await connection.run_sync(_revision)
    if found == wanted:
        return
    if found is None or found in {item.revision for item in script.walk_revisions()}:
        raise InstallationError(
            f"the new side is at migration {found or 'none'}, this version needs {wanted}: "
            f"run `alembic -c backend/{service}_service/alembic.ini upgrade head`",
            variable=f"{service.upper()}_DATABASE_URL",
        )
    log.warning("schema_newer_than_service", service=service, found=found, wanted=wanted)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
