"""Conflicts of what other programs write to a side of documents while it is closed, as its change stream tells them."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import UpdateOne

from backend.shared.domain.phases import Side
from backend.shared.journal.conflict_records import ConflictOperation

from .collections import Collections
from .connection import DocumentConnection
from .shapes import as_kept, ids_of
from .stream_events import ForeignChange

_OPERATIONS = {
    "insert": ConflictOperation.INSERT,
    "delete": ConflictOperation.DELETE,
    "update": ConflictOperation.UPDATE,
    "replace": ConflictOperation.UPDATE,
}
_WRITER = "another program"


async def keep_conflicts(
    collections: Collections, connection: DocumentConnection, changes: Sequence[ForeignChange], *, side: Side
) -> None:
    """A conflict for each change. What the document was before nobody knows; after is what it is now."""
    session = await connection.session()
    first = await collections.next_number("conflict", count=len(changes))
    writes = []
    for place, change in enumerate(changes):
        ((number, _),) = ids_of([change.key])
        document = await collections.database[change.collection].find_one({"_id": number}, session=session)
        told = {
            "side": side.value,
            "entity": change.entity,
            "key": change.key,
            "operation": _OPERATIONS[change.operation].value,
            "source_table": change.collection,
            "before": None,
            "after": as_kept(document) if document is not None else None,
            "written_by": _WRITER,
            "application": None,
            "state": "open",
            "detail": None,
            "kept": None,
            "settled_by": None,
        }
        writes.append(
            UpdateOne(
                {"number": first + place}, {"$set": told, "$currentDate": {"written_at": True}}, upsert=True
            )
        )
    await collections.conflict.bulk_write(writes, session=session)
