"""Makes the tables of messages in a migration.

They are made as this version has them, and as the library of the queue has its own: whoever changes either adds a migration that brings
older databases there, and finds that in newer ones already.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import MetaData

from .tables import EventTables


def create_message_tables() -> None:
    """Version 1: record, queue, inbox and dead letters."""
    metadata = MetaData()
    EventTables.within(metadata)
    metadata.create_all(op.get_bind())


def drop_message_tables() -> None:
    """Undo it."""
    metadata = MetaData()
    EventTables.within(metadata)
    metadata.drop_all(op.get_bind())
