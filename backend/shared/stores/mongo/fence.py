"""The fence on MongoDB: stripes that every writer writes first, and a lock on all of them for whoever changes the mark.

MongoDB has no lock that a transaction could share, and to *read* a document inside a transaction keeps nobody from
changing it (write skew). So each writer writes one of several small documents, its stripe, as the first thing in its
transaction, and learns from it whether the side is open. Whoever changes that changes all of them, which conflicts with
every writer under way. Decision 0015.

What transactions write is written in transactions only: a plain write waits for them inside of the server, which not
every server bounds.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bson import ObjectId
from pymongo.asynchronous.client_session import AsyncClientSession

from backend.shared.domain.errors import FencedError, InstallationError
from backend.shared.domain.phases import Side
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.stores.side import LockHeldError

from .collections import Client, Collection, Collections
from .connection import REPEAT_SECONDS, DocumentConnection, Stripe, in_transaction, jitter
from .errors import WRITE_CONFLICT, is_repeatable, sqlstate_of

STRIPES = 32
LOCK_MS = 1500
"""So long may whoever holds the fence lock alone say nothing."""
ENTER_SECONDS = 5.0
"""So long a writer waits for a lock to be let go of; it is held for a fraction of a second."""
KEPT_WRITERS = 64
"""So many of its last writers a stripe remembers: whoever lost the answer of a COMMIT finds itself there."""
_SERVER_NOW = {"$toLong": "$$NOW"}


Check = Callable[[Stripe], None]


def stripe_id(number: int) -> str:
    """The `_id` of a stripe."""
    return f"fence:{number:02}"


class Fence:
    """Stripes and locks of one side."""

    def __init__(
        self,
        collections: Collections,
        side: Side,
        *,
        hook: Hook = no_hook,
        lock_ms: int = LOCK_MS,
    ) -> None:
        self._side = side
        self._collections = collections
        self._hook = hook
        self._lock_ms = lock_ms
        self._in_use: dict[int, int] = {}

    @property
    def _client(self) -> Client:
        return self._collections.client

    @property
    def _fence(self) -> Collection:
        return self._collections.fence

    async def enter(
        self, connection: DocumentConnection, *, check: Check, by: ObjectId | None = None
    ) -> None:
        """Write a stripe in the transaction of `connection`: until it ends, the side stays as `check` has found it.

        Where this is the first thing in the transaction, another stripe is tried after a conflict, and a lock is waited
        for. `by` is remembered by the stripe, to be asked for with `settled`. Raises what `check` does, and `FencedError` if a lock lasts.
        """
        if not connection.is_transactional:
            raise AssertionError("a stripe holds nothing without a transaction")
        if connection.stripe is not None:
            return
        fresh = not connection.in_transaction
        deadline = time.monotonic() + ENTER_SECONDS
        dead: set[str] = set()
        run = 0
        while True:
            run += 1
            number = self._pick()
            try:
                lock = await self._try_to_enter(connection, number, check=check, by=by, dead=dead)
            except Exception as error:
                if not fresh or not is_repeatable(error) or time.monotonic() > deadline:
                    raise
                await connection.rollback()
                if run > 3:
                    await asyncio.sleep(jitter(run - 3, most=0.02))
                continue
            if lock is None:
                return
            if not fresh or time.monotonic() > deadline:
                raise FencedError("the phase is being changed", side=self._side, unavailable=True)
            await connection.rollback()
            await self._hook("found_locked")
            if not await self.is_alive(lock):
                dead.add(lock)
            else:
                await asyncio.sleep(jitter(run, first=0.005, most=0.02))

    def _pick(self) -> int:
        free = [number for number in range(STRIPES) if number not in self._in_use]
        return random.choice(free or range(STRIPES))  # noqa: S311 - any will do

    async def _try_to_enter(
        self,
        connection: DocumentConnection,
        number: int,
        *,
        check: Check,
        by: ObjectId | None,
        dead: set[str],
    ) -> str | None:
        """Write the stripe; answers the token of the lock that stands in the way, if any."""
        self._hold(connection, number)
        session = await connection.session()
        # What is locked is not written, not even to be rolled back: its holder would meet a conflict. A lock whose holder
        # fell silent is taken off: from then on that one does not hold all stripes, and changes nothing any more.
        found = await self._fence.find_one_and_update(
            {"_id": stripe_id(number), "lock": {"$in": [None, *dead]}},
            {
                "$set": {"lock": None},
                "$inc": {"turn": 1},
                "$push": {"by": {"$each": [by] if by else [], "$slice": -KEPT_WRITERS}},
            },
            projection={"by": 0},
            session=session,
        )
        if found is None:
            locked = await self._fence.find_one({"_id": stripe_id(number)}, {"lock": 1}, session=session)
            if locked is None:
                raise InstallationError(f"the fence is not installed on the {self._side.value} side")
            return str(locked["lock"])
        stripe = Stripe(
            number=number,
            is_open=found["state"] == "open",
            epoch=found["epoch"],
            captures=found["captures"],
            turn=found["turn"] + 1,
        )
        check(stripe)
        connection.stripe = stripe
        return None

    def _hold(self, connection: DocumentConnection, number: int) -> None:
        self._in_use[number] = self._in_use.get(number, 0) + 1

        def let_go() -> None:
            self._in_use[number] -= 1
            if not self._in_use[number]:
                del self._in_use[number]

        connection.at_end(let_go)

    async def settled(self, stripe: Stripe, by: ObjectId) -> bool | None:
        """Whether a writer of `stripe` was committed; None where too many others have written it since.

        Waits, for a while, until its transaction has ended either way. Raises a write conflict where that lasts.
        """

        async def ask(session: AsyncClientSession) -> bool | None:
            # Written, not only read: as long as that transaction may still be committed this is a conflict.
            found = await self._fence.find_one_and_update(
                {"_id": stripe_id(stripe.number)},
                {"$inc": {"asked": 1}},
                projection={"by": 1, "turn": 1},
                session=session,
            )
            if found is None:
                return None
            if by in found["by"]:
                return True
            return False if found["turn"] < stripe.turn + KEPT_WRITERS else None

        return await in_transaction(self._client, ask)

    # The lock -----------------------------------------------------------------------------------------------------

    async def lock_alone(self, connection: DocumentConnection, *, timeout_ms: int) -> None:
        """Take all stripes: from then on until the connection lets go nobody else enters. `LockHeldError` in vain.

        A stripe that somebody writes just now is tried again until that one has ended.
        """
        if connection.in_transaction:
            raise AssertionError(
                "a lock that is taken after the snapshot says nothing of what the snapshot shows"
            )
        if connection.fence_token is not None:
            return
        token = uuid.uuid4().hex
        try:
            await self._renew(token, upsert=True)
            await self._take_all(token, deadline=time.monotonic() + timeout_ms / 1000)
        except BaseException:
            await asyncio.shield(self._release(token))
            raise
        self._held(connection, token)
        await self._hook("locked_alone")

    async def _take_all(self, token: str, *, deadline: float) -> None:
        missing: list[int] = list(range(STRIPES))
        run = 0
        while True:
            run += 1
            missing = await self._take(missing, token)
            if not missing and await self._renew(token) and await self._holds_all(token):
                return
            if time.monotonic() > deadline:
                raise LockHeldError("somebody writes, or changes the phase too")
            missing = missing or list(range(STRIPES))
            await asyncio.sleep(jitter(run, most=0.01))
            await self._renew(token, upsert=True)

    async def _take(self, numbers: Sequence[int], token: str) -> list[int]:
        """Take these stripes; answers those that are still missing. After a conflict, half of them at a time."""
        wanted = {"_id": {"$in": [stripe_id(number) for number in numbers]}}

        async def take(session: AsyncClientSession) -> set[str]:
            locks = {
                stripe["lock"] async for stripe in self._fence.find(wanted, {"lock": 1}, session=session)
            } - {None, token}
            alive = {lock for lock in locks if await self.is_alive(lock)}
            await self._fence.update_many(
                {**wanted, "lock": {"$nin": [*alive, token]}}, {"$set": {"lock": token}}, session=session
            )
            return alive

        try:
            alive = await in_transaction(self._client, take, seconds=0)
        except Exception as error:
            if not is_repeatable(error):
                raise
            if len(numbers) == 1:
                return list(numbers)
            half = len(numbers) // 2
            return [*await self._take(numbers[:half], token), *await self._take(numbers[half:], token)]
        return list(numbers) if alive else []

    async def _holds_all(self, token: str) -> bool:
        return await self._fence.count_documents({"kind": "stripe", "lock": token}) == STRIPES

    def _held(self, connection: DocumentConnection, token: str) -> None:
        renewed_at = time.monotonic()

        async def heartbeat() -> None:
            nonlocal renewed_at
            if time.monotonic() - renewed_at > self._lock_ms / 5000:
                await self._renew(token)
                renewed_at = time.monotonic()

        async def let_go() -> None:
            if connection.fence_token == token:
                self._let_go(connection)
                await asyncio.shield(self._release(token))

        connection.fence_token = token
        connection.heartbeat = heartbeat
        connection.on_close(let_go)

    @staticmethod
    def _let_go(connection: DocumentConnection) -> None:
        connection.fence_token = None
        connection.heartbeat = None

    async def _renew(self, token: str, *, upsert: bool = False) -> bool:
        """Keep a lock alive for a while from now; False if it is gone. Only its holder writes this document."""
        until = [{"$set": {"until": {"$add": ["$$NOW", self._lock_ms]}}}]
        found = await self._fence.update_one({"_id": f"lock:{token}"}, until, upsert=upsert)
        return found.matched_count > 0

    async def is_alive(self, token: str) -> bool:
        """Whether a lock still holds: its holder has been heard of."""
        query = {"_id": f"lock:{token}", "$expr": {"$gt": [{"$toLong": "$until"}, _SERVER_NOW]}}
        return await self._fence.find_one(query) is not None

    async def take_off(self, token: str, *, seconds: float = REPEAT_SECONDS) -> None:
        """Take a lock off whose holder fell silent: it does not hold all stripes any more, and changes nothing."""

        async def free(session: AsyncClientSession) -> None:
            await self._fence.update_many(
                {"kind": "stripe", "lock": token}, {"$set": {"lock": None}}, session=session
            )

        await in_transaction(self._client, free, seconds=seconds)

    async def _release(self, token: str) -> None:
        """Free what a lock holds. Its own document first: without that it is dead, whatever the stripes say."""
        await self._fence.delete_one({"_id": f"lock:{token}"})
        if await self._fence.find_one({"kind": "stripe", "lock": token}, {"_id": 1}) is None:
            return
        try:
            await self.take_off(token, seconds=0.1)
        except Exception as error:
            if not is_repeatable(error):
                raise
            # A writer has come upon it already, and does the rest.

    async def change(
        self,
        connection: DocumentConnection,
        *,
        stripes: Mapping[str, Any],
        mark: Mapping[str, Any],
        only_if: Mapping[str, Any],
    ) -> None:
        """Change mark and stripes with the commit of `connection`, which holds the lock, and let go of it.

        In the last command before the commit: a holder that is stopped anywhere before it holds up nobody once its lock
        is dead. `commit` then raises `LockHeldError`, and has changed nothing.
        """
        token = connection.fence_token
        if token is None:
            raise AssertionError("the mark is changed by whoever holds the fence lock alone")

        async def write() -> None:
            session = await connection.session()
            try:
                taken = await self._fence.update_many(
                    {"kind": "stripe", "lock": token}, {"$set": {**stripes, "lock": None}}, session=session
                )
                changed = await self._fence.update_one(
                    {"_id": "mark", **only_if}, {"$set": dict(mark)}, session=session
                )
            except Exception as error:
                if sqlstate_of(error) != WRITE_CONFLICT:
                    raise
                raise LockHeldError("the lock was lost to somebody else") from error
            if taken.matched_count != STRIPES:
                raise LockHeldError("the lock was lost: its holder had said nothing for too long")
            if not changed.matched_count:
                raise LockHeldError("the mark was changed meanwhile")
            self._let_go(connection)

        async def forget_lock() -> None:
            await self._fence.delete_one({"_id": f"lock:{token}"})

        connection.before_commit(write)
        connection.on_close(forget_lock)
