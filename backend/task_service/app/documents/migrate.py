"""`python -m backend.task_service.app.documents.migrate`: what Alembic does for rows, for the collections.

Gives each its validator, as the settings say, and its indexes. May be repeated, beside running services: what is there
already is left alone, and no document is looked at.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping

from pymongo.errors import PyMongoError

from backend.shared import ConfigurationError
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.errors import describe

from ..adapters.mongo.indexes import create_indexes
from ..core.settings import TaskSettings, documents_address
from .validators import apply_validators

EXIT_BAD_INPUT = 2


async def migrate(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Migrate the documents that the environment names; answers the collections whose validator was changed.

    Each collection is a step by itself: after an error, run it again. Raises ConfigurationError, with the variable, for a
    setting that is missing or wrong, and for a server that is away or refuses.
    """
    settings, address = TaskSettings.from_env(environment), documents_address(environment)
    client = create_client(
        address.url,
        limits=settings.document_limits,
        application_name="tandem-task-migration",
        variable=address.variable,
    )
    rules = settings.document_rules
    try:
        database = client.get_default_database()
        changed = await apply_validators(
            database, level=rules.level, action=rules.action, unknown=rules.unknown_in_documents
        )
        await create_indexes(database)
    except PyMongoError as error:
        raise ConfigurationError(describe(error), variable=address.variable) from error
    finally:
        await client.close()
    return changed


def main() -> int:
    """Exit 0 when the collections are as wanted, 2 with one line when they cannot be made so."""
    try:
        changed = asyncio.run(migrate())
    except ConfigurationError as error:
        sys.stderr.write(f"task documents: {' '.join(str(error).split())}\n")
        return EXIT_BAD_INPUT
    told = f"validators changed: {', '.join(changed)}" if changed else "nothing to change"
    sys.stdout.write(f"task documents: {told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
