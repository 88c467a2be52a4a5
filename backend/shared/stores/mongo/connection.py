"""A connection to MongoDB: a session whose transaction begins with the first thing that it writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import pymongo
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_concern import ReadConcern

from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.pausing import backoff

from .collections import MAJORITY, Client
from .errors import is_repeatable, says_nothing_of_a_commit

T = TypeVar("T")
Step = Callable[[], Awaitable[None]]

COMMIT_SECONDS = 10.0
"""For so long a commit whose answer was lost is sent again; MongoDB takes a second one for the first."""
REPEAT_SECONDS = 5.0
"""For so long a short transaction of the engine's own is repeated after write conflicts."""
ABORT_SECONDS = 2.0
"""So long a server is given to hear of a rollback."""
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Stripe:
    """What a stripe of the fence said when it was written. `turn` counts its writers."""

    number: int
    is_open: bool
    epoch: int
    captures: bool
    turn: int


class DocumentConnection:
    """A session of documents: leaving it rolls back what was not committed.

    Not `transactional`: each command stands by itself. `TransientTransactionError` comes out as it is: what the body had
    done is gone, and whoever holds the body repeats it.
    """

    def __init__(self, client: Client, *, transactional: bool = True) -> None:
        self.client = client
        self.fence_token: str | None = None
        """Set while this connection holds the fence lock alone."""
        self.stripe: Stripe | None = None
        """The stripe that the transaction has written."""
        self.heartbeat: Step | None = None
        self._transactional = transactional
        self._session: AsyncClientSession | None = None
        self._before_commit: list[Step] = []
        self._at_end: list[Callable[[], None]] = []
        self._on_close: list[Step] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_transactional(self) -> bool:
        """Whether what is asked through it is one transaction."""
        return self._transactional

    @property
    def in_transaction(self) -> bool:
        """Whether something was written since the last commit or rollback."""
        return self._session is not None and self._session.in_transaction

    async def session(self) -> AsyncClientSession | None:
        """The session for the next command, in a transaction; None where each command stands by itself."""
        if self.heartbeat is not None:
            await self.heartbeat()
        return await self.begun() if self._transactional else None

    async def reader(self) -> AsyncClientSession | None:
        """The session for a command that only reads: it begins no transaction, and belongs to one that has begun.

        So what is read before the first write is as new as the reading, as with READ COMMITTED.
        """
        if self.heartbeat is not None:
            await self.heartbeat()
        return self._session if self.in_transaction else None

    async def begun(self) -> AsyncClientSession:
        """The session, in a transaction."""
        if self._session is None:
            self._session = self.client.start_session()
        if not self._session.in_transaction:
            await self._session.start_transaction(
                read_concern=ReadConcern("snapshot"), write_concern=MAJORITY
            )
        return self._session

    def before_commit(self, step: Step) -> None:
        """Do `step` in the transaction as the last thing before it is committed; what it raises is raised by `commit`."""
        self._before_commit.append(step)

    def at_end(self, step: Callable[[], None]) -> None:
        """Call `step` once, when the transaction has ended, one way or the other."""
        self._at_end.append(step)

    def on_close(self, step: Step) -> None:
        """Do `step` when the connection is left."""
        self._on_close.append(step)

    async def commit(self) -> None:
        """Commit, if there is anything to. A commit whose answer was lost is sent again, for a while."""
        try:
            while self._before_commit:
                await self._before_commit.pop(0)()
            if self._session is not None and self._session.in_transaction:
                await commit_for_sure(self._session)
        except BaseException:
            await self.rollback()
            raise
        self._ended()

    async def rollback(self) -> None:
        """Forget what was written since the last commit."""
        self._before_commit.clear()
        try:
            if self._session is not None and self._session.in_transaction:
                # If the server does not hear it, it aborts by itself once the transaction has lived too long.
                with pymongo.timeout(ABORT_SECONDS):
                    await self._session.abort_transaction()
        finally:
            self._ended()

    async def close(self) -> None:
        """Roll back, and give everything back."""
        try:
            await self.rollback()
        finally:
            while self._on_close:
                await self._on_close.pop()()
            if self._session is not None:
                await self._session.end_session()
                self._session = None

    def _ended(self) -> None:
        self.stripe = None
        while self._at_end:
            self._at_end.pop()()


async def commit_for_sure(
    session: AsyncClientSession, *, seconds: float = COMMIT_SECONDS, hook: Hook = no_hook
) -> None:
    """Commit; again as long as the answer is lost. Raises the last error where nothing was to be learnt in time.

    After an answer that was lost, "no such transaction" may come from a server that was started anew and has forgotten it:
    whoever has to know asks for what the transaction wrote.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            await session.commit_transaction()
        except Exception as error:
            if not says_nothing_of_a_commit(error) or time.monotonic() > deadline:
                raise
            await hook("commit_answer_lost")
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


async def in_transaction(
    client: Client, body: Callable[[AsyncClientSession], Awaitable[T]], *, seconds: float = REPEAT_SECONDS
) -> T:
    """Run `body` in a transaction of its own and commit it; again after write conflicts. `body` may run several times."""
    deadline = time.monotonic() + seconds
    run = 0
    while True:
        run += 1
        try:
            async with client.start_session() as session:
                await session.start_transaction(read_concern=ReadConcern("snapshot"), write_concern=MAJORITY)
                result = await body(session)
                await commit_for_sure(session)
        except Exception as error:
            if not is_repeatable(error) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(jitter(run))
        else:
            return result


def jitter(run: int, *, first: float = 0.002, most: float = 0.1) -> float:
    """Seconds to wait after the `run`th conflict: doubling, between half and all of it at random."""
    return backoff(run, first=first, most=most)
