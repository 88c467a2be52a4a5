"""What a side on MongoDB keeps for somebody to decide (I8)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from pymongo import UpdateOne

from backend.shared.domain.phases import Side
from backend.shared.journal.conflict_records import (
    Conflict,
    ConflictOperation,
    FailedKey,
    OpenFailureKey,
    SettledConflict,
)
from backend.shared.stores.side import LockHeldError

from .collections import Collection, Collections, Stored, chunks
from .connection import DocumentConnection
from .errors import WRITE_CONFLICT, sqlstate_of
from .failures import DocumentFailures
from .journal import COUNT_LIMIT


class DocumentConflicts:
    """Reads and writes the conflicts of one service on one side; the caller owns the transactions."""

    def __init__(self, collections: Collections, failures: DocumentFailures) -> None:
        self._collections = collections
        self._failures = failures

    @property
    def _conflicts(self) -> Collection:
        return self._collections.conflict

    async def count(self, connection: DocumentConnection) -> int:
        """How many are open; a longer list is counted up to `COUNT_LIMIT`."""
        return await self._conflicts.count_documents(
            {"state": "open"}, limit=COUNT_LIMIT, session=await connection.reader()
        )

    async def page(
        self,
        connection: DocumentConnection,
        *,
        after_id: int = 0,
        limit: int = 50,
        entity: str | None = None,
        state: str = "open",
    ) -> list[Conflict]:
        """Conflicts in the order of their numbers, past `after_id`."""
        query: Stored = {"state": state, "number": {"$gt": after_id}}
        query |= {"entity": entity} if entity else {}
        found = self._conflicts.find(query, session=await connection.reader()).sort("number", 1).limit(limit)
        return [_conflict(conflict) async for conflict in found]

    async def get(self, connection: DocumentConnection, number: int) -> Conflict | None:
        """One conflict, open or not."""
        found = await self._conflicts.find_one({"number": number}, session=await connection.reader())
        return _conflict(found) if found else None

    async def hold(self, connection: DocumentConnection, number: int) -> Conflict | None:
        """One conflict, held until the transaction ends; `LockHeldError` if somebody else holds it."""
        try:
            found = await self._conflicts.find_one_and_update(
                {"number": number}, {"$inc": {"holders": 1}}, session=await connection.session()
            )
        except Exception as error:
            if sqlstate_of(error) != WRITE_CONFLICT:
                raise
            raise LockHeldError("somebody else decides about it just now") from error
        return _conflict(found) if found else None

    async def hold_free(self, connection: DocumentConnection, numbers: Sequence[int]) -> set[int]:
        """Hold those open ones of `numbers` that nobody else holds, until the transaction ends: the first thing in it.

        One that somebody holds is a write conflict, which ends the transaction: it is begun again without that one.
        """
        left = list(numbers)
        while True:
            free: set[int] = set()
            for number in left:
                try:
                    held = await self.hold(connection, number)
                except LockHeldError:
                    left.remove(number)
                    await connection.rollback()
                    break
                if held is not None and held.state == "open":
                    free.add(number)
            else:
                return free

    async def last_id(self, connection: DocumentConnection) -> int:
        """The highest number that is open now, or 0."""
        found = await self._conflicts.find_one(
            {"state": "open"}, sort=[("number", -1)], session=await connection.reader()
        )
        return int(found["number"]) if found else 0

    async def written_since(self, connection: DocumentConnection, conflict: Conflict) -> bool:
        """Whether a foreign program has written the same key again after this conflict."""
        later = {"state": "open", "number": {"$gt": conflict.id}, "entity": conflict.entity}
        found = await self._conflicts.find_one(
            later | {"key": conflict.key}, {"_id": 1}, session=await connection.reader()
        )
        return found is not None

    async def claim_settlement(
        self, connection: DocumentConnection, conflict: Conflict, *, kept: Side, by: str
    ) -> bool:
        """Say, in the transaction that writes it here, that `conflict` was settled so; False if one has done so before.

        Of two that do so at once one meets a write conflict.
        """
        told = (conflict.side.value, str(conflict.id), conflict.written_at.isoformat(), kept.value)
        done = await self._collections.settlement.update_one(
            {"_id": " ".join(told)},
            {"$setOnInsert": {"settled_by": by}},
            upsert=True,
            session=await connection.session(),
        )
        return done.upserted_id is not None

    async def settle(
        self,
        connection: DocumentConnection,
        numbers: Sequence[int],
        *,
        kept: Side,
        by: str,
        detail: str,
    ) -> None:
        """Close conflicts, and say which side's state was kept, and by whom."""
        settled = {"state": "settled", "kept": kept.value, "settled_by": by, "detail": detail or None}
        change = {"$set": settled, "$currentDate": {"settled_at": True}}
        for part in chunks(numbers):
            await self._conflicts.update_many(
                {"number": {"$in": list(part)}, "state": "open"}, change, session=await connection.session()
            )

    async def note(self, connection: DocumentConnection, number: int, detail: str) -> None:
        """Keep why a conflict could not be settled."""
        await self._conflicts.update_one(
            {"number": number, "state": "open"},
            {"$set": {"detail": detail}},
            session=await connection.session(),
        )

    async def open_failures(
        self, connection: DocumentConnection, *, after_id: int, limit: int
    ) -> list[OpenFailureKey]:
        """FAILED keys of this side, past number `after_id`."""
        found = await self._failures.page(connection, after_id=after_id, limit=limit)
        return [
            OpenFailureKey(id=item.id, entity=item.entity, key=item.key, reason=item.reason) for item in found
        ]

    async def keep_failed(
        self, connection: DocumentConnection, failed: Iterable[FailedKey], *, side: Side, by: str
    ) -> None:
        """Make conflicts of FAILED keys of `side`, and close their failures."""
        wanted = {item.failure_id: item for item in failed}
        await connection.session()  # what is open is looked at in the transaction that closes it
        still_open = [
            number
            for number in sorted(wanted)
            if (found := await self._failures.get(connection, number)) and found.state == "open"
        ]
        if not still_open:
            return
        await self._failures.close_numbers(connection, still_open, by=by)
        first = await self._collections.next_number("conflict", count=len(still_open))
        await self._conflicts.bulk_write(
            [
                UpdateOne(
                    {"number": first + place},
                    {
                        "$set": _of_failed(wanted[number], side=side, by=by),
                        "$currentDate": {"written_at": True},
                    },
                    upsert=True,
                )
                for place, number in enumerate(still_open)
            ],
            session=await connection.session(),
        )

    async def keep_settled(self, connection: DocumentConnection, settled: SettledConflict) -> None:
        """Keep a conflict that is settled already, so that what was dropped can be seen."""
        number = await self._collections.next_number("conflict")
        row = {
            "side": settled.side.value,
            "entity": settled.entity,
            "key": settled.key,
            "operation": ConflictOperation.STRANDED.value,
            "source_table": settled.source_table,
            "before": _joined(settled.kept_rows),
            "after": _joined(settled.dropped_rows),
            "written_by": settled.settled_by,
            "application": None,
            "state": "settled",
            "detail": settled.detail,
            "kept": settled.side.other.value,
            "settled_by": settled.settled_by,
        }
        await self._conflicts.update_one(
            {"number": number},
            {"$set": row, "$currentDate": {"written_at": True, "settled_at": True}},
            upsert=True,
            session=await connection.session(),
        )


def _of_failed(item: FailedKey, *, side: Side, by: str) -> Stored:
    return {
        "side": side.value,
        "entity": item.entity,
        "key": item.key,
        "operation": ConflictOperation.FAILED.value,
        "source_table": item.source_table,
        "before": _joined(item.there),
        "after": _joined(item.here),
        "written_by": by,
        "application": None,
        "state": "open",
        "detail": item.reason,
        "kept": None,
        "settled_by": None,
    }


def _joined(tables: Mapping[str, str]) -> str:
    """Rows by table, as one JSON document; the rows stay as the server wrote them."""
    return "{" + ", ".join(f"{json.dumps(name)}: {rows}" for name, rows in tables.items()) + "}"


def _conflict(found: Stored) -> Conflict:
    kept = found["kept"]
    return Conflict(
        id=found["number"],
        side=Side(found["side"]),
        entity=found["entity"],
        key=found["key"],
        operation=ConflictOperation(found["operation"]),
        source_table=found["source_table"],
        before=found["before"],
        after=found["after"],
        written_at=found["written_at"],
        written_by=found["written_by"],
        application=found["application"],
        state=found["state"],
        detail=found["detail"],
        kept=Side(kept) if kept else None,
        settled_by=found["settled_by"],
    )
