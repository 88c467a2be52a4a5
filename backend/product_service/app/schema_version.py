"""Whether the service's own database has every migration that this version needs."""

from __future__ import annotations

from pathlib import Path

import structlog
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared import InstallationError

_FOLDER = Path(__file__).parent.parent / "migrations"

log = structlog.get_logger(__name__)


async def check_schema_version(engine: AsyncEngine) -> None:
    """Raise `InstallationError` when a migration is missing. A newer schema is accepted: it only adds."""
    script = ScriptDirectory(str(_FOLDER))
    needed = script.get_current_head()
    async with engine.connect() as connection:
        there = await connection.run_sync(_revision)
    if there == needed:
        return
    if there is not None and there not in {item.revision for item in script.walk_revisions()}:
        log.warning("schema_newer_than_service", found=there, needed=needed)
        return
    raise InstallationError(
        f"the new side is at migration {there or 'none'}, and this version needs {needed}: "
        "run `alembic -c backend/product_service/alembic.ini upgrade head`",
        variable="PRODUCT_DATABASE_URL",
    )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
