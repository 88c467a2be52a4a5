"""Failures of one side on MongoDB: keys that could not be carried (R5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import UpdateOne

from backend.shared.domain.phases import Direction
from backend.shared.journal.records import ClaimedKey, Failure
from backend.shared.stores.protocol import Position

from .collections import Collection, Collections, Stored, chunks, subject
from .connection import DocumentConnection
from .journal import DocumentJournal


class DocumentFailures:
    """Reads and writes the failures of one service on one side. `number` counts them; a unique index keeps one open a key."""

    def __init__(self, collections: Collections, journal: DocumentJournal) -> None:
        self._collections = collections
        self._journal = journal

    @property
    def _failures(self) -> Collection:
        return self._collections.failure

    async def record(
        self,
        connection: DocumentConnection,
        key: ClaimedKey,
        *,
        direction: Direction,
        epoch: int,
        position: Position | None,
        reason: str,
        sqlstate: str | None,
    ) -> bool:
        """Keep a key as FAILED, once however often it fails; answers whether it was already.

        `position`: of the state that was refused. The newest that was refused stays, whoever is slow to say so: by a lower one a
        success in between would close the failure.
        """
        number = await self._collections.next_number("failure")
        told = {
            "reason": reason,
            "sqlstate": sqlstate,
            "epoch": epoch,
            "major": position.major if position else 0,
            "minor": position.minor if position else 0,
        }
        first = {
            "number": number,
            "entity": key.entity,
            "key": key.key,
            "direction": direction.value,
            "request_id": key.request_id,
            "captured_at": key.captured_at,
        }
        newer = _is_newer(told)
        changes: dict[str, Any] = {
            name: {"$cond": [newer, f"${name}", {"$literal": value}]} for name, value in told.items()
        }
        # `$ifNull` would take a null for missing, so what belongs to the first failure goes by its number.
        changes |= {
            name: {"$cond": [{"$eq": [{"$type": "$number"}, "missing"]}, {"$literal": value}, f"${name}"]}
            for name, value in first.items()
        }
        changes["attempts"] = {"$add": [{"$ifNull": ["$attempts", 0]}, key.attempts]}
        changes["first_failed_at"] = {"$ifNull": ["$first_failed_at", "$$NOW"]}
        changes["last_failed_at"] = "$$NOW"
        done = await self._failures.update_one(
            {"subject": subject(key.entity, key.key), "state": "open"},
            [{"$set": changes}],
            upsert=True,
            session=await connection.session(),
        )
        return done.matched_count > 0

    async def close(
        self,
        connection: DocumentConnection,
        keys: Mapping[tuple[str, str], Position | None],
        *,
        epoch: int,
        by: str,
    ) -> int:
        """Close the open failures of keys that have been carried; answers how many there were.

        By key, the position of what was carried. A failure of something newer stays: another relay may have read and
        failed with it since, and its journal row has ended.
        """
        session, closing = await connection.session(), []
        by_subject = {subject(*identity): position for identity, position in keys.items()}
        for part in chunks(by_subject):
            query = {"subject": {"$in": list(part)}, "state": "open"}
            async for failure in self._failures.find(query, session=session):
                carried = by_subject[failure["subject"]] or Position(major=0, minor=0)
                if _at(failure) <= (epoch, carried.major, carried.minor):
                    closing.append(failure["number"])
        await self.close_numbers(connection, closing, by=by)
        return len(closing)

    async def close_numbers(self, connection: DocumentConnection, numbers: Sequence[int], *, by: str) -> None:
        """Close these, whatever has become of them since they were read in this transaction."""
        if numbers:
            closed = {"$set": {"state": "closed", "closed_by": by}, "$currentDate": {"closed_at": True}}
            await self._failures.bulk_write(
                [UpdateOne({"number": number, "state": "open"}, closed) for number in numbers],
                session=await connection.session(),
            )

    async def page(
        self,
        connection: DocumentConnection,
        *,
        after_id: int = 0,
        limit: int = 50,
        state: str = "open",
        entity: str | None = None,
    ) -> list[Failure]:
        """Failures in order of their number, past `after_id`."""
        query: Stored = {"state": state, "number": {"$gt": after_id}} | ({"entity": entity} if entity else {})
        found = self._failures.find(query, session=await connection.reader()).sort("number", 1).limit(limit)
        return [_failure(failure) async for failure in found]

    async def some_open(self, connection: DocumentConnection, *, most: int) -> list[tuple[str, str]]:
        """Entity and key of up to `most` open failures."""
        query, session = {"state": "open"}, await connection.reader()
        found = self._failures.find(query, {"entity": 1, "key": 1}, session=session).limit(most)
        return [(row["entity"], row["key"]) async for row in found]

    async def count_by_entity(self, connection: DocumentConnection) -> dict[str, int]:
        """Open failures by entity; entities without any are left out."""
        steps: list[Stored] = [
            {"$match": {"state": "open"}},
            {"$group": {"_id": "$entity", "n": {"$sum": 1}}},
        ]
        found = await self._failures.aggregate(steps, session=await connection.reader())
        return {row["_id"]: row["n"] async for row in found}

    async def get(self, connection: DocumentConnection, failure_id: int) -> Failure | None:
        """One failure by its number."""
        found = await self._failures.find_one({"number": failure_id}, session=await connection.reader())
        return _failure(found) if found else None

    async def failed_keys(self, connection: DocumentConnection, entity: str, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that have an open failure."""
        found: set[str] = set()
        session = await connection.reader()
        for part in chunks(subject(entity, key) for key in keys):
            query = {"subject": {"$in": list(part)}, "state": "open"}
            found |= {row["key"] async for row in self._failures.find(query, {"key": 1}, session=session)}
        return found

    async def find(self, connection: DocumentConnection, entity: str, key: str) -> Failure | None:
        """The open failure of a key."""
        query = {"subject": subject(entity, key), "state": "open"}
        found = await self._failures.find_one(query, session=await connection.session())
        return _failure(found) if found else None

    async def delete_closed(
        self, connection: DocumentConnection, *, closed_before: datetime, limit: int
    ) -> int:
        """Delete up to `limit` failures that were closed before then; answers how many."""
        session, deleted = await connection.session(), 0
        query = {"state": "closed", "closed_at": {"$lt": closed_before}}
        found = await self._failures.find(query, {"_id": 1}, session=session).limit(limit).to_list()
        for part in chunks(failure["_id"] for failure in found):
            done = await self._failures.delete_many({"_id": {"$in": list(part)}}, session=session)
            deleted += done.deleted_count
        return deleted

    async def retry(
        self,
        connection: DocumentConnection,
        *,
        failure_id: int | None = None,
        entity: str | None = None,
        failed_before: datetime | None = None,
    ) -> int:
        """Journal the keys of open failures again: one, those of an entity, or all. They close when carried."""
        query: Stored = {"state": "open"}
        query |= {"number": failure_id} if failure_id is not None else {}
        query |= {"entity": entity} if entity is not None else {}
        query |= {"last_failed_at": {"$lt": failed_before}} if failed_before is not None else {}
        keys: dict[str, list[str]] = {}
        session = await connection.session()
        async for row in self._failures.find(query, {"entity": 1, "key": 1}, session=session):
            keys.setdefault(row["entity"], []).append(row["key"])
        for name, found in keys.items():
            await self._journal.add(connection, name, found)
        return sum(map(len, keys.values()))


def _at(failure: Stored) -> tuple[int, int, int]:
    return failure["epoch"], failure["major"], failure["minor"]


def _failure(found: Stored) -> Failure:
    return Failure(
        id=found["number"],
        entity=found["entity"],
        key=found["key"],
        direction=Direction(found["direction"]),
        state=found["state"],
        attempts=found["attempts"],
        reason=found["reason"],
        sqlstate=found["sqlstate"],
        request_id=found["request_id"],
        captured_at=found["captured_at"],
        first_failed_at=found["first_failed_at"],
        last_failed_at=found["last_failed_at"],
    )


def _is_newer(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whether what is kept is of a later epoch and position than `told`; what is missing is not."""
    found: Mapping[str, Any] = {"$gt": ["$minor", told["minor"]]}
    for name in ("major", "epoch"):
        same = {"$and": [{"$eq": [f"${name}", told[name]]}, found]}
        found = {"$or": [{"$gt": [f"${name}", told[name]]}, same]}
    return found
