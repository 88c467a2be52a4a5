"""Units of work on documents: begin, the unit, commit; again after a write conflict; and asks, where an answer was lost.

The first write of the transaction is that of a stripe of the fence, so that a unit which wrote nothing else has asked too
whether its side is open. Journal rows are written by the unit itself, in the same transaction (R1).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar, cast

import structlog
from bson import ObjectId
from pymongo.asynchronous.client_session import AsyncClientSession

from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.domain.errors import ConfigurationError, outcome_unknown
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Capture
from backend.shared.stores.mongo.connection import DocumentConnection, Stripe, commit_for_sure
from backend.shared.stores.mongo.errors import (
    describe,
    is_database_error,
    says_nothing_of_a_commit,
)
from backend.shared.stores.mongo.side import MongoSide
from backend.shared.unit_repeats import Breaker, RunAgainError, repeat
from backend.shared.units import OwnJournal, Runner

T = TypeVar("T")

STATUS_WAIT_SECONDS = 30.0
_COMMIT_SECONDS = 5.0
_STATUS = {True: "committed", False: "aborted", None: "unknown"}

log = structlog.get_logger(__name__)


class DocumentUnitTransaction:
    """One transaction of a unit: begun on entering, rolled back on leaving unless it was committed inside.

    From its beginning to its commit it has `unit_seconds` of its side; then it is rolled back, and `TimeoutError` raised.
    `rows` are the numbers of the journal rows that it has written, `journalled` their keys by entity.
    """

    connection: DocumentConnection
    session: AsyncClientSession
    work: DocumentUnitOfWork

    def __init__(
        self,
        runner: DocumentUnitRunner,
        *,
        request_id: str,
        journals_touched: bool,
        only_reads: bool,
        even_if_closed: bool,
    ) -> None:
        self.committed = self.commit_sent = False
        self.rows: list[ObjectId] = []
        self.journalled: dict[str, set[str]] = {}
        self._runner = runner
        self._request_id = request_id
        self._journals = journals_touched
        self._reads = only_reads or even_if_closed
        self._even_if_closed = even_if_closed
        self._id = ObjectId()
        self._stripe: Stripe | None = None
        self._limit = asyncio.timeout(runner.store.unit_seconds)

    async def __aenter__(self) -> Self:
        runner = self._runner
        self.connection = DocumentConnection(runner.store.collections.client)
        try:
            await self._enter()
            self.session = await self.connection.begun()
        except BaseException:
            await self.connection.close()
            raise
        self.work = DocumentUnitOfWork(
            runner.store.collections.database,
            self.session,
            side=runner.side,
            catalog=runner.catalog,
            request_id=self._request_id,
            only_reads=self._reads,
        )
        await self._limit.__aenter__()
        return self

    async def _enter(self) -> None:
        store = self._runner.store
        if self._even_if_closed:
            return
        if self._reads:
            await store.marks.check_reader(self.connection)
            return

        def check(stripe: Stripe) -> None:
            store.marks.unit_check(stripe, journals=self._journals)

        await store.fence.enter(self.connection, check=check, by=self._id)
        self._stripe = self.connection.stripe

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take_off_limit()
        try:
            await self.connection.close()
        finally:
            await self._limit.__aexit__(kind, error, trace)

    def _take_off_limit(self) -> None:
        """Neither a commit nor a rollback is cut short: how it ends has to be known. Each has a limit of its own."""
        if not self._limit.expired():
            self._limit.reschedule(None)

    async def flush(self) -> None:
        """Write the journal rows of the keys touched."""
        if self._journals:
            for entity, keys in self.work.touched.items():
                self.rows += await self._runner.store.journal.add_rows(
                    self.connection, entity, keys, request_id=self._request_id
                )
                self.journalled.setdefault(entity, set()).update(keys)
            self.work.touched.clear()

    async def watch_journal(self) -> None:
        """Nothing: what is written is known."""

    async def own_journal(self) -> OwnJournal:
        """The journal rows that this transaction has written, those of keys touched included, which are written now."""
        await self.flush()
        return OwnJournal(
            ids=self.rows, keys={entity: sorted(keys) for entity, keys in self.journalled.items()}
        )

    async def commit(self) -> None:
        """Commit. Returns only if it is durable; raises `RunAgainError` if it certainly is not."""
        await self.flush()
        await self._runner.hook("before_commit")
        self._take_off_limit()
        self.commit_sent = True
        try:
            await commit_for_sure(self.session, seconds=_COMMIT_SECONDS, hook=self._runner.hook)
        except Exception as error:
            if not is_database_error(error):
                raise
            await self._ask(error)
        self.committed = True
        await self.connection.commit()

    async def _ask(self, error: Exception) -> None:
        """What became of a commit that was not answered, or answered after the first try with "no such transaction"."""
        status = "aborted" if self._stripe is None else await self._runner.status_of(self._stripe, self._id)
        log.warning("commit_answer_lost", side=self._runner.side.value, status=status)
        if status == "committed":
            return
        if status == "aborted":
            raise RunAgainError(error)
        raise outcome_unknown(self._runner.side) from error


def document_runner(
    store: MongoSide, *, catalog: EntityCatalog, breaker: Breaker, hook: Callable[[str], Awaitable[None]]
) -> Runner:
    """A runner of units on `store`, in the form in which the engine knows runners: its units are of documents."""
    return cast("Runner", DocumentUnitRunner(store, catalog=catalog, breaker=breaker, hook=hook))


class DocumentUnitRunner:
    """Runs units of work on one side of documents."""

    capture = Capture.UNIT

    def __init__(
        self,
        store: MongoSide,
        *,
        catalog: EntityCatalog,
        breaker: Breaker,
        hook: Callable[[str], Awaitable[None]] | None = None,
        status_wait_seconds: float = STATUS_WAIT_SECONDS,
    ) -> None:
        self.store = store
        self.side = store.side
        self.catalog = catalog
        self._breaker = breaker
        self._hook = hook
        self._status_wait_seconds = status_wait_seconds

    async def hook(self, step: str) -> None:
        """Pass a step that tests may stop at."""
        if self._hook is not None:
            await self._hook(step)

    async def repeat(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it goes through, while its failures are of the kind that leaves nothing behind.

        A write conflict and a connection lost before COMMIT are repeated, `MAX_RUNS` times in all, with jittered back-off.
        Raises `FencedError` where this side is closed; other database errors come out as the error type of this side.
        """
        return await repeat(attempt, engine=None, side=self.side, breaker=self._breaker)

    def transaction(
        self,
        *,
        request_id: str,
        journals_touched: bool = False,
        only_reads: bool = False,
        even_if_closed: bool = False,
        isolation: Isolation = Isolation.READ_COMMITTED,
    ) -> DocumentUnitTransaction:
        """A transaction, to be entered with `async with`; rolled back unless it was committed inside.

        One that does not say `journals_touched` is refused where changes have to be journalled. One that `only_reads` is
        refused on a closed side, unless it reads `even_if_closed`. The isolation is always `REPEATABLE_READ`.
        """
        if isolation is Isolation.SERIALIZABLE:
            raise ConfigurationError("MongoDB has no transactions that are SERIALIZABLE")
        return DocumentUnitTransaction(
            self,
            request_id=request_id,
            journals_touched=journals_touched,
            only_reads=only_reads,
            even_if_closed=even_if_closed,
        )

    @asynccontextmanager
    async def carrying(
        self, connection: DocumentConnection, *, request_id: str
    ) -> AsyncIterator[DocumentUnitOfWork]:
        """A unit of work in the open transaction of `connection`, which has entered as a carry.

        Nobody is waited for: who writes the same meets a write conflict.
        """
        yield DocumentUnitOfWork(
            self.store.collections.database,
            await connection.begun(),
            side=self.side,
            catalog=self.catalog,
            request_id=request_id,
        )

    async def status_of(self, stripe: Stripe, unit: ObjectId) -> str:
        """What became of a unit whose commit was not answered: `committed`, `aborted`, or `unknown` to a server that is away.

        A stripe keeps the ids of its last writers. First it is written once more: that cannot succeed while the unit's own
        transaction may still be committed.
        """
        deadline = time.monotonic() + self._status_wait_seconds
        while True:
            try:
                return _STATUS[await self.store.fence.settled(stripe, unit)]
            except Exception as error:
                if not is_database_error(error):
                    raise
                if says_nothing_of_a_commit(error):
                    log.debug("commit_asked_after", side=self.side.value, error=describe(error))
            if time.monotonic() > deadline:
                return "unknown"
            await asyncio.sleep(0.1)


__all__ = [
    "DocumentUnitRunner",
    "DocumentUnitTransaction",
    "document_runner",
]
