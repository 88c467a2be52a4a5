"""Capture by change stream, for collections that other programs write too (R1 on MongoDB).

One process at a time, by lease, reads the service's stream. What others wrote is journalled while the side is open, and kept
as conflicts while it is closed, in one transaction with the token to go on from. A cutover puts a marker into the stream
once the fence is locked, and is not drained before the marker has been read. What comes after it waits until the lock is
gone, and then goes by the mark: so nothing is journalled on a side that has been drained.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pymongo
import structlog
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Side
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.pausing import backoff, pause
from backend.shared.stores.side import CaptureGap

from .collections import Collections, Stored
from .connection import DocumentConnection, in_transaction, jitter
from .errors import describe, is_database_error, is_repeatable
from .fence import Fence
from .journal import DocumentJournal
from .stream_events import MARKER, EventReader, Read, Token, watched
from .stream_writes import keep_conflicts

LEASE_SECONDS = 15.0
"""After so long a process that says nothing has lost the stream to another one."""
BATCH_CHANGES = 500
WAIT_MS = 200
"""So long the server waits for an event before it says that there is none."""
TOLD_SECONDS = 2.0
"""So long somebody waits who has to know that nothing is on its way."""
BEAT_SECONDS = 10.0
"""As often a marker is put into a quiet stream: on some servers a token ages while nothing happens."""
KEPT_MARKERS = 64
CLOSE_SECONDS = 2.0
"""So long a server is given to hear that a stream is read no more; then it forgets it by itself."""
_HISTORY_LOST = frozenset({280, 286, 260, 136})
"""Codes of a token that cannot be gone on from: the oplog no longer reaches back to it, or the stream cannot be."""
_SERVER_NOW = {"$toLong": "$$NOW"}
_ROW = {"_id": "capture"}

log = structlog.get_logger(__name__)


class StreamLostError(PyMongoError):
    """Another process reads the stream now: nothing of this was kept."""


class ChangeCapture:
    """The change stream of one side. Every public method may be repeated, in any number of processes."""

    def __init__(
        self,
        collections: Collections,
        catalog: EntityCatalog,
        side: Side,
        *,
        fence: Fence,
        journal: DocumentJournal,
        service: str,
        hook: Hook = no_hook,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.on_gap: Callable[[CaptureGap], None] | None = None
        self._collections = collections
        self._catalog = catalog
        self._side = side
        self._fence = fence
        self._journal = journal
        self._service = service
        self._hook = hook
        self._lease_ms = int(lease_seconds * 1000)
        self._me = uuid.uuid4().hex
        self._reader: EventReader | None = None
        self._generation = -1
        self._token: Token | None = None
        self._marked: dict[str, str] = {}
        self._one_at_a_time = asyncio.Lock()

    # The state of capture -------------------------------------------------------------------------------------------

    async def generation(self) -> int | None:
        """How often a token of now has been taken; None before the first time."""
        found = await self._collections.stream.find_one(_ROW, {"generation": 1})
        return found["generation"] if found else None

    async def establish(self, *, after: int | None) -> None:
        """From now on nothing is missed: keep a token of now. What was before is for a backfill to copy.

        Changes nothing where it has been done since generation `after`: what that token has to tell would be skipped.
        """
        token = await self._now()
        told = {
            "token": {"$literal": token},
            "generation": {"$add": [{"$ifNull": ["$generation", 0]}, 1]},
            "lease": {"$ifNull": ["$lease", None]},
            "until": {"$ifNull": ["$until", "$$NOW"]},
            "seen": [],
            "held_by": None,
            "gaps": {"$ifNull": ["$gaps", 0]},
            "mended": {"$ifNull": ["$mended", 0]},
            "reason": {"$ifNull": ["$reason", ""]},
        }
        same = {**_ROW, "generation": after}
        with suppress(DuplicateKeyError):  # another generation is there
            await self._collections.stream.update_one(same, [{"$set": told}], upsert=after is None)

    async def is_established(self) -> bool:
        """Whether there is a token to go on from."""
        found = await self._collections.stream.find_one({**_ROW, "token": {"$ne": None}}, {"_id": 1})
        return found is not None

    async def open_gap(self) -> CaptureGap | None:
        """The last gap, unless a backfill has copied since what it may have hidden."""
        found = await self._collections.stream.find_one({**_ROW, "$expr": {"$gt": ["$gaps", "$mended"]}})
        return CaptureGap(number=found["gaps"], reason=found["reason"]) if found else None

    async def mended(self, gap: CaptureGap) -> None:
        """A backfill that began after `gap` is complete."""
        await self._collections.stream.update_one(_ROW, {"$max": {"mended": gap.number}})

    async def behind(self, connection: DocumentConnection) -> str | None:
        """Why a side whose fence lock `connection` holds cannot be drained yet; None once the stream has come to the lock.

        Reads on itself where no other process does.
        """
        lock = connection.fence_token
        if lock is None:
            return None
        if lock not in self._marked:
            self._marked = {lock: await self._put_marker(lock=lock)}
        if await self._has_seen(self._marked[lock]):
            return None
        await self.pump()
        if await self._has_seen(self._marked[lock]):
            return None
        return "the change stream has not come to the lock yet"

    async def has_told(self, *, within_seconds: float = TOLD_SECONDS) -> bool:
        """Whether everything that was written before this call has been journalled; waits for that, for a while."""
        marker, clock = await self._put_marker(lock=None), asyncio.get_running_loop().time
        deadline = clock() + within_seconds
        while not await self._has_seen(marker):
            if clock() > deadline:
                return False
            if not await self.pump():
                await asyncio.sleep(0.01)
        return True

    async def _put_marker(self, *, lock: str | None) -> str:
        marker = f"{MARKER}{uuid.uuid4().hex}"
        await self._collections.stream.insert_one({"_id": marker, "lock": lock})
        return marker

    async def _has_seen(self, marker: str) -> bool:
        return await self._collections.stream.find_one({**_ROW, "seen": marker}, {"_id": 1}) is not None

    # The loop -------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, *, paused: Callable[[], bool] = lambda: False) -> None:
        """Read until `stop` is set. Trouble with the server slows it down and is logged, and never ends it."""
        trouble, beaten_at = 0, 0.0
        clock = asyncio.get_running_loop().time
        while not stop.is_set():
            try:
                has_it = not paused() and await self.pump()
                if has_it and clock() - beaten_at > BEAT_SECONDS:
                    beaten_at = clock()
                    await self._beat()
                trouble = 0
            except Exception as error:
                if not is_database_error(error):
                    raise
                trouble += 1
                log.warning(
                    "change_stream_held",
                    service=self._service,
                    side=self._side.value,
                    error=describe(error),
                )
                await self.let_go()
                has_it = False
            if not has_it:
                await pause(stop, 0.25 if not trouble else backoff(trouble, first=0.25, most=5.0))
        await self.let_go()
        await self._give_back()

    async def pump(self) -> bool:
        """Read what there is, once; False where another process is at it."""
        async with self._one_at_a_time:
            return await self._pump()

    async def _pump(self) -> bool:
        row = await self._acquire()
        if row is None:
            await self.let_go()
            return False
        if row["held_by"] is not None:
            if await self._fence.is_alive(row["held_by"]):
                await asyncio.sleep(0.01)
                return True
            # It may wake up: from now on it cannot close the side behind what is read next.
            await self._fence.take_off(row["held_by"])
            await self._write(row, {"held_by": None})
        try:
            await self._read_and_keep(row)
        except OperationFailure as error:
            if error.code not in _HISTORY_LOST:
                raise
            await self._lost(row, describe(error))
        return True

    async def _read_and_keep(self, row: Stored) -> None:
        try:
            reader = await self._reading(row)
            found = await reader.read(most=BATCH_CHANGES)
            await self._hook("stream_read")
            if found.changes or found.markers or (found.token is not None and found.token != row["token"]):
                await self._keep(row, found)
                await self._hook("stream_kept")
        except BaseException:
            # However it ended, the driver's stream is past what was read: the next one begins where it was kept.
            await self.let_go()
            raise
        if found.lost is not None:
            await self._lost(row, found.lost)

    async def let_go(self) -> None:
        """Close the stream, if it is open; the next `pump` opens it where it was kept."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            try:
                with pymongo.timeout(CLOSE_SECONDS):
                    await reader.stream.close()
            except PyMongoError as error:
                log.debug("change_stream_not_closed", error=describe(error))

    async def _acquire(self) -> Stored | None:
        """The row of the stream, ours for a while; None where it is another's, or there is no stream."""
        mine = {
            "$or": [
                {"$eq": ["$lease", None]},
                {"$eq": ["$lease", self._me]},
                {"$lte": [{"$toLong": "$until"}, _SERVER_NOW]},
            ]
        }
        found: Stored | None = await self._collections.stream.find_one_and_update(
            {**_ROW, "token": {"$ne": None}, "$expr": mine},
            [{"$set": {"lease": self._me, "until": {"$add": ["$$NOW", self._lease_ms]}}}],
            return_document=ReturnDocument.AFTER,
        )
        return found

    async def _give_back(self) -> None:
        try:
            await self._collections.stream.update_one({**_ROW, "lease": self._me}, {"$set": {"lease": None}})
        except PyMongoError as error:
            log.debug("change_stream_not_given_back", error=describe(error))

    async def _reading(self, row: Stored) -> EventReader:
        # Another process may have read on meanwhile: what it has kept is not to be read once more.
        is_there = self._generation == row["generation"] and self._token == row["token"]
        if self._reader is not None and is_there:
            return self._reader
        await self.let_go()
        stream = await self._collections.database.watch(
            watched(self._collections, self._catalog), resume_after=row["token"], max_await_time_ms=WAIT_MS
        )
        self._generation, self._token = row["generation"], row["token"]
        self._reader = EventReader(stream, collections=self._collections, catalog=self._catalog)
        return self._reader

    async def _now(self) -> Token:
        """A token from which everything is told that is written from now on."""
        async with await self._collections.database.watch(
            watched(self._collections, self._catalog), max_await_time_ms=1
        ) as stream:
            token: Token | None = stream.resume_token
            if token is None:
                await stream.try_next()
                token = stream.resume_token
        if token is None:
            raise OperationFailure("the server tells no token to go on from")
        return token

    async def _beat(self) -> None:
        """A marker that nobody waits for; older ones go."""
        markers = {"_id": {"$regex": f"^{MARKER}"}, "lock": None}
        await self._collections.stream.delete_many(markers)
        await self._put_marker(lock=None)

    # What is kept ---------------------------------------------------------------------------------------------------

    async def _keep(self, row: Stored, found: Read) -> None:
        """Journal rows or conflicts, and the token behind them, in one transaction; again after a conflict."""
        for run in range(1, 9):
            try:
                return await self._try_to_keep(row, found)
            except Exception as error:
                if isinstance(error, StreamLostError) or run == 8 or not is_repeatable(error):
                    await self.let_go()
                    raise
                await asyncio.sleep(jitter(run))
        return None

    async def _try_to_keep(self, row: Stored, found: Read) -> None:
        async with DocumentConnection(self._collections.client) as connection:
            changes: dict[str, Any] = {"seen": found.markers, "held_by": found.lock}
            if found.token is not None:
                changes["token"] = found.token
            await self._write(row, changes, connection=connection)
            if found.changes:
                mark = await self._collections.fence.find_one(
                    {"_id": "mark"}, session=await connection.session()
                )
                if mark is not None and mark["state"] == "open":
                    await self._journal_rows(connection, found)
                else:
                    await keep_conflicts(self._collections, connection, found.changes, side=self._side)
            await self._hook("stream_keeping")
            await connection.commit()
        row["token"] = self._token = found.token or row["token"]

    async def _journal_rows(self, connection: DocumentConnection, found: Read) -> None:
        keys: dict[str, set[str]] = {}
        for change in found.changes:
            keys.setdefault(change.entity, set()).add(change.key)
        for entity, touched in keys.items():
            await self._journal.add_rows(connection, entity, touched, request_id=None)

    async def _write(
        self, row: Stored, changes: dict[str, Any], *, connection: DocumentConnection | None = None
    ) -> None:
        """Write the row of the stream, if it is still ours."""
        told: dict[str, Any] = {
            name: {"$literal": value} for name, value in changes.items() if name != "seen"
        }
        if "seen" in changes:
            seen = {"$concatArrays": ["$seen", {"$literal": changes["seen"]}]}
            told["seen"] = {"$slice": [seen, -KEPT_MARKERS]}
        told["until"] = {"$add": ["$$NOW", self._lease_ms]}
        done = await self._collections.stream.update_one(
            {**_ROW, "lease": self._me, "generation": row["generation"]},
            [{"$set": told}],
            session=await connection.session() if connection is not None else None,
        )
        if not done.matched_count:
            raise StreamLostError("the change stream is another process's now")

    async def _lost(self, row: Stored, reason: str) -> None:
        """Go on from now, and say that changes may have been missed: what was copied or compared until now is void."""
        await self.let_go()
        token = await self._now()

        async def enter(session: Any) -> None:
            done = await self._collections.stream.update_one(
                {**_ROW, "lease": self._me, "generation": row["generation"]},
                {
                    "$set": {"token": token, "reason": reason, "held_by": None},
                    "$inc": {"generation": 1, "gaps": 1},
                },
                session=session,
            )
            if not done.matched_count:
                raise StreamLostError("the change stream is another process's now")
            await self._collections.counter.update_one(
                {"_id": "capture_gap"}, {"$inc": {"n": 1}}, upsert=True, session=session
            )

        await in_transaction(self._collections.client, enter)
        gap = CaptureGap(number=row["gaps"] + 1, reason=reason)
        log.critical(
            "change_stream_broken",
            service=self._service,
            side=self._side.value,
            reason=reason,
            gap=gap.number,
            remedy=f"changes may have been missed: a backfill has to copy them (tandem backfill {self._service})",
        )
        if self.on_gap is not None:
            self.on_gap(gap)


__all__ = ["ChangeCapture", "StreamLostError"]
