"""How a row stands to its document: three columns of an entity's root table, where it has them.

They say what was known at `last_synced_at`. A document that was changed on the other side since then, and has not been
carried yet, is still SYNCED here: only asking both sides tells.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Table

from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Side

SYNC_COLUMNS = ("sync_status", "sync_error", "last_synced_at")


class SyncStatus(StrEnum):
    """How the two sides of one key stand to each other."""

    SYNCED = "SYNCED"
    PENDING = "PENDING"
    """A change is on its way, or has been refused and is tried again."""
    FAILED = "FAILED"
    """A change could not be carried, and waits for somebody to decide."""


def sync_root(entity: EntityMapping, side: Side) -> Table | None:
    """The root table of an entity that is a document on the other side, if it has the three columns."""
    if entity.document is None:
        return None
    root = entity.sources(side)[0].table
    return root if all(name in root.c for name in SYNC_COLUMNS) else None


__all__ = ["SYNC_COLUMNS", "SyncStatus", "sync_root"]
