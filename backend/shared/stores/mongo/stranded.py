"""Keys that were written on a MongoDB side alone, while it was secondary and the other side was away."""

from __future__ import annotations

from collections.abc import Mapping

from pymongo import UpdateOne

from backend.shared.journal.stranded_records import StrandedKey

from .collections import Collections, Stored, subject
from .connection import DocumentConnection


class DocumentStranded:
    """Reads and writes the stranded keys of one service on one side; the caller owns the transactions."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    async def keep(
        self,
        connection: DocumentConnection,
        entity: str,
        images: Mapping[str, str],
        *,
        request_id: str | None,
    ) -> None:
        """Keep the keys of `images` with their state before. Of one that is kept already, only the time changes."""
        changes = [
            UpdateOne(
                {"_id": subject(entity, key)},
                [
                    {
                        "$set": {
                            "entity": {"$literal": entity},
                            "key": {"$literal": key},
                            "before": {"$ifNull": ["$before", {"$literal": images[key]}]},
                            "stranded_at": {"$ifNull": ["$stranded_at", "$$NOW"]},
                            "changed_at": "$$NOW",
                            "request_id": {"$literal": request_id},
                        }
                    }
                ],
                upsert=True,
            )
            for key in sorted(images)
        ]
        if changes:
            await self._collections.stranded.bulk_write(changes, session=await connection.session())

    async def page(self, connection: DocumentConnection, *, limit: int) -> list[StrandedKey]:
        """Those that have been there for longest."""
        found = (
            self._collections.stranded.find({}, session=await connection.session())
            .sort("stranded_at", 1)
            .limit(limit)
        )
        return [_stranded(row) async for row in found]

    async def get(self, connection: DocumentConnection, entity: str, key: str) -> StrandedKey | None:
        """One key, if it is stranded."""
        found = await self._collections.stranded.find_one(
            {"_id": subject(entity, key)}, session=await connection.session()
        )
        return _stranded(found) if found else None

    async def count(self, connection: DocumentConnection) -> int:
        """How many there are."""
        return await self._collections.stranded.count_documents({}, session=await connection.reader())

    async def end(self, connection: DocumentConnection, entity: str, key: str) -> None:
        """Forget one."""
        await self._collections.stranded.delete_one(
            {"_id": subject(entity, key)}, session=await connection.session()
        )


def _stranded(row: Stored) -> StrandedKey:
    return StrandedKey(
        entity=row["entity"],
        key=row["key"],
        before=row["before"],
        changed_at=row["changed_at"],
        request_id=row["request_id"],
    )
