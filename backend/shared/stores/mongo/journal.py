"""The journal of one side on MongoDB: a claim is a lease that its ending names (R5).

A MongoDB transaction cannot skip documents that others hold, so a claim is not an uncommitted delete as on PostgreSQL. One
document lists the rows that somebody has claimed, and until when; it is made in a transaction of its own, and deleted with
the rows in the transaction of the body. So a claim costs the same however many rows it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.journal.records import Claim, ClaimedKey, JournalDepth, Remainder, folded
from backend.shared.stores.side_records import LockHeldError

from .collections import Client, Collection, Collections, Stored, chunks, subject
from .connection import DocumentConnection, in_transaction
from .errors import WRITE_CONFLICT, sqlstate_of

COUNT_LIMIT = 100_000
"""Journal rows are counted up to here; a longer journal is reported as this many."""
LEASE_SECONDS = 30.0
"""After so long a claim that was not ended is free again. A pass takes far less."""
CLAIM_SECONDS = 5.0
"""For so long a claim is tried again because others claim too."""
_RELEASE_SECONDS = 5.0
_SLACK = timedelta(seconds=5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SERVER_NOW = {"$toLong": "$$NOW"}


class LeaseLostError(PyMongoError):
    """A claim took longer than its lease, and somebody else has its rows: nothing of it was kept."""


class _Window:
    """Up to which time rows are looked for.

    Some servers sort all that a query finds before they cut it to its limit: so a query asks for hardly more than it needs.
    From how dense the last rows were follows how far the next one has to look.
    """

    def __init__(self) -> None:
        self.upper: datetime | None = None
        self._span = timedelta(seconds=1)

    def start(self, now: datetime) -> datetime:
        return min(self.upper, now) if self.upper is not None else now

    def wider(self, upper: datetime, now: datetime) -> datetime:
        self._span *= 4
        return min(now, upper + self._span)

    def learn(self, rows: Sequence[Stored], now: datetime) -> None:
        if not rows:
            self.upper, self._span = None, timedelta(seconds=1)
            return
        first, last = rows[0]["due_at"], rows[-1]["due_at"]
        self._span = max(last - first, timedelta(milliseconds=1))
        self.upper = min(now, last + self._span)


class DocumentJournal:
    """Reads and writes the journal of one service on one side."""

    def __init__(
        self,
        collections: Collections,
        *,
        hook: Hook = no_hook,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.behind: Callable[[DocumentConnection], Awaitable[str | None]] | None = None
        """Why what other programs have written may not be journalled yet, where a change stream does that."""
        self.has_told: Callable[[], Awaitable[bool]] | None = None
        """Whether what was written before is journalled by now, where a change stream does that."""
        self._collections = collections
        self._hook = hook
        self._lease_ms = int(lease_seconds * 1000)
        self._window = _Window()
        self._clock: tuple[float, timedelta] | None = None

    @property
    def _client(self) -> Client:
        return self._collections.client

    @property
    def _rows(self) -> Collection:
        return self._collections.journal

    @asynccontextmanager
    async def claiming(self, *, limit: int) -> AsyncIterator[tuple[DocumentConnection, Claim]]:
        """Take up to `limit` rows that are due, oldest first; they end with what the body writes, in one transaction.

        If the body raises, all are there again at once; if this process dies, after `LEASE_SECONDS`. Raises
        `LeaseLostError`, with nothing kept, where that was over before the body was.
        """
        lease = ObjectId()
        rows = await in_transaction(
            self._client, lambda session: self._claim(session, lease, limit=limit), seconds=CLAIM_SECONDS
        )
        await self._hook("claimed")
        async with DocumentConnection(self._client) as connection:
            try:
                yield connection, folded(map(_claimed, rows))
                if rows:
                    await self._end(connection, [row["_id"] for row in rows], lease)
                await connection.commit()
            except BaseException:
                await connection.rollback()
                if rows:
                    await self._release(lease)
                raise

    async def _claim(self, session: AsyncClientSession, lease: ObjectId, *, limit: int) -> list[Stored]:
        """Take rows that are due and in nobody's lease. Who does so at the same time conflicts, and looks again."""
        leases = self._collections.lease
        held: set[ObjectId] = set()
        over: list[ObjectId] = []
        steps: list[Stored] = [
            {"$match": {"kind": "lease"}},
            {"$set": {"over": {"$lte": [{"$toLong": "$until"}, _SERVER_NOW]}}},
        ]
        async for other in await leases.aggregate(steps, session=session):
            if other["over"]:
                over.append(other["_id"])
            else:
                held.update(other["rows"])
        rows = await self._oldest_due(session, limit, held)
        if rows:
            # Who looks for nothing writes nothing; of two who have found something, one conflicts here.
            await leases.update_one({"_id": "turn"}, {"$inc": {"n": 1}}, upsert=True, session=session)
            if over:
                await leases.delete_many({"_id": {"$in": over}}, session=session)
            await leases.update_one(
                {"_id": lease},
                [
                    {
                        "$set": {
                            "kind": "lease",
                            "rows": [row["_id"] for row in rows],
                            "until": {"$add": ["$$NOW", self._lease_ms]},
                        }
                    }
                ],
                upsert=True,
                session=session,
            )
        return rows

    async def _oldest_due(self, session: AsyncClientSession, limit: int, held: set[ObjectId]) -> list[Stored]:
        now = await self._about_now()
        upper = self._window.start(now)
        while True:
            steps: list[Stored] = [
                {"$match": {"due_at": {"$gte": _EPOCH, "$lte": upper}}},
                {"$match": {"$expr": {"$lte": [{"$toLong": "$due_at"}, _SERVER_NOW]}}},
                {"$sort": {"due_at": 1}},
                {"$limit": limit + len(held)},
            ]
            found = await self._rows.aggregate(steps, session=session)
            rows = [row async for row in found if row["_id"] not in held][:limit]
            if len(rows) >= limit or upper >= now:
                self._window.learn(rows, now)
                return rows
            upper = self._window.wider(upper, now)

    async def _end(self, connection: DocumentConnection, ids: Sequence[ObjectId], lease: ObjectId) -> None:
        session = await connection.session()
        if not (await self._collections.lease.delete_one({"_id": lease}, session=session)).deleted_count:
            raise LeaseLostError("the claim took longer than its lease")
        for part in chunks(ids):
            await self._rows.delete_many({"_id": {"$in": list(part)}}, session=session)

    async def _release(self, lease: ObjectId) -> None:
        """Give the rows back, or leave that to the lease's end where the server does not answer."""

        async def free(session: AsyncClientSession) -> None:
            await self._collections.lease.delete_one({"_id": lease}, session=session)

        self._window.learn([], _EPOCH)
        with contextlib.suppress(PyMongoError, TimeoutError):
            async with asyncio.timeout(_RELEASE_SECONDS):
                await asyncio.shield(asyncio.ensure_future(in_transaction(self._client, free)))

    async def _about_now(self) -> datetime:
        """A little later than the server's time: only to choose a window, since what is due the server decides."""
        if self._clock is None or time.monotonic() - self._clock[0] > 60:
            hello = await self._collections.database.command("hello")
            told: datetime = hello["localTime"]
            self._clock = (
                time.monotonic(),
                (told if told.tzinfo else told.replace(tzinfo=UTC)) - datetime.now(UTC),
            )
        return datetime.now(UTC) + self._clock[1] + _SLACK

    async def requeue(
        self, connection: DocumentConnection, key: ClaimedKey, *, delay_seconds: float, error: str
    ) -> None:
        """Write a claimed key back, to be tried again after `delay_seconds`; its age is kept."""
        due = {"$add": ["$$NOW", int(delay_seconds * 1000)]}
        row = {
            **_row(key.entity, key.key, request_id=key.request_id),
            "captured_at": key.captured_at,
            "changed_at": key.changed_at,
            "attempts": key.attempts,
            "waits": key.waits,
            "waiting": True,
            "last_error": error,
        }
        literal: dict[str, Any] = {name: {"$literal": value} for name, value in row.items()}
        await self._rows.update_one(
            {"_id": ObjectId()},
            [{"$set": {**literal, "due_at": due}}],
            upsert=True,
            session=await connection.session(),
        )

    async def add(
        self,
        connection: DocumentConnection,
        entity: str,
        keys: Iterable[str],
        *,
        request_id: str | None = None,
    ) -> None:
        """Journal `keys` by hand; nothing has a number here that could be asked after."""
        await self.add_rows(connection, entity, keys, request_id=request_id)

    async def add_rows(
        self, connection: DocumentConnection, entity: str, keys: Iterable[str], *, request_id: str | None
    ) -> list[ObjectId]:
        """Journal `keys`; answers the numbers of the rows."""
        rows = {ObjectId(): _row(entity, key, request_id=request_id) for key in sorted(set(keys))}
        if rows:
            await self._rows.bulk_write(
                [
                    UpdateOne({"_id": number}, {"$set": row, "$currentDate": _DATES}, upsert=True)
                    for number, row in rows.items()
                ],
                ordered=False,
                session=await connection.session(),
            )
        return list(rows)

    async def end(self, connection: DocumentConnection, ids: Sequence[ObjectId]) -> None:
        """End exactly these rows; those that a relay holds are its own to end."""
        session = await connection.session()
        held: set[ObjectId] = set()
        async for lease in self._collections.lease.find({"kind": "lease"}, session=session):
            held.update(lease["rows"])
        for part in chunks(number for number in ids if number not in held):
            await self._rows.delete_many({"_id": {"$in": list(part)}}, session=session)

    async def changed_at(self, connection: DocumentConnection, entity: str, key: str) -> datetime | None:
        """When a key was last changed, as its open journal rows say; None where it has none."""
        rows = self._rows.find({"subject": subject(entity, key)}, session=await connection.session())
        return max([_claimed(row).last_changed_at async for row in rows], default=None)

    async def open_keys(self, connection: DocumentConnection, entity: str, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that have an open journal row, or may get one for a change that has been made already."""
        if self.has_told is not None and not await self.has_told():
            return set(keys)
        found: set[str] = set()
        session = await connection.reader()
        for part in chunks(subject(entity, key) for key in keys):
            rows = self._rows.find({"subject": {"$in": list(part)}}, {"key": 1}, session=session)
            found |= {row["key"] async for row in rows}
        return found

    async def some(self, connection: DocumentConnection, *, most: int) -> list[tuple[str, str]]:
        """Entity and key of up to `most` rows."""
        rows = self._rows.find({}, {"entity": 1, "key": 1}, session=await connection.reader()).limit(most)
        return [(row["entity"], row["key"]) async for row in rows]

    async def depth(self, connection: DocumentConnection) -> JournalDepth:
        """How much is waiting, without reading a long journal to its end."""
        session = await connection.reader()
        fresh = await self._oldest_age(session, waiting=False)
        waiting = await self._oldest_age(session, waiting=True)
        return JournalDepth(
            rows=await self._rows.count_documents({}, limit=COUNT_LIMIT, session=session),
            lag_seconds=max(0.0, fresh, waiting),
            failures=await self._collections.failure.count_documents({"state": "open"}, session=session),
            fresh_lag_seconds=max(0.0, fresh),
        )

    async def _oldest_age(self, session: AsyncClientSession | None, *, waiting: bool) -> float:
        """Seconds since the oldest row was captured, by the server's clock."""
        steps: list[Stored] = [
            {"$match": {"waiting": waiting}},
            {"$sort": {"captured_at": 1}},
            {"$limit": 1},
            {"$project": {"age": {"$subtract": [_SERVER_NOW, {"$toLong": "$captured_at"}]}}},
        ]
        found = await (await self._rows.aggregate(steps, session=session)).to_list()
        return float(found[0]["age"]) / 1000 if found else 0.0

    async def remainder(self, connection: DocumentConnection) -> Remainder:
        """What is left to carry, seen later than any lock that this connection holds, and outside of its transaction."""
        # Before the rows are counted: what the stream has told by then is among them.
        behind = await self.behind(connection) if self.behind is not None else None
        if connection.heartbeat is not None:
            await connection.heartbeat()
        rows = await self._rows.count_documents({})
        if behind is not None:
            return Remainder(rows=rows + 1, waiting=1, reason=behind)
        if not rows:
            return Remainder(rows=0)
        waiting = await self._rows.count_documents({"waiting": True})
        last = await self._rows.find_one({"waiting": True}, {"last_error": 1}, sort=[("captured_at", -1)])
        return Remainder(rows=rows, waiting=waiting, reason=last["last_error"] if last else None)

    async def forget(self, connection: DocumentConnection) -> None:
        """Delete every row: whoever goes on from here copies everything again. `LockHeldError` if somebody writes one."""
        try:
            await self._rows.delete_many({}, session=await connection.session())
        except Exception as error:
            if sqlstate_of(error) != WRITE_CONFLICT:
                raise
            raise LockHeldError("the journal is being written") from error


_DATES = {"captured_at": True, "due_at": True}


def _row(entity: str, key: str, *, request_id: str | None) -> Stored:
    """A row without its dates: `captured_at`, and `due_at`, from when on it may be claimed."""
    return {
        "subject": subject(entity, key),
        "entity": entity,
        "key": key,
        "request_id": request_id,
        "attempts": 0,
        "waits": 0,
        "waiting": False,
        "last_error": None,
    }


def _claimed(row: Stored) -> ClaimedKey:
    return ClaimedKey(
        entity=row["entity"],
        key=row["key"],
        captured_at=row["captured_at"],
        changed_at=row.get("changed_at"),
        attempts=row["attempts"],
        waits=row["waits"],
        request_id=row["request_id"],
    )
