"""Runs units of work: begin, the unit, commit; again after a deadlock; and asks, where an answer was lost.

The transaction is driven on the driver's own connection, since that takes BEGIN and the unit's mark in one round trip;
SQLAlchemy is told meanwhile that the connection commits by itself. Its own ways of saying so (an engine with that
isolation level, a task for each close) cost as much time as a quarter of the whole write, so they are gone round here.
The capture trigger tells the transaction's id by a notice, which arrives with the answer of the write itself: so that
asking `pg_xact_status` after a lost COMMIT costs no round trip before it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import structlog
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from backend.shared.breaker import CircuitBreaker
from backend.shared.database import XID, distrust_pool
from backend.shared.domain.errors import SideError, outcome_unknown, side_error
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Capture, Side
from backend.shared.journal.fence import assert_open
from backend.shared.journal.repository import JournalRepository
from backend.shared.stores.errors import (
    describe,
    is_database_error,
    says_nothing_of_a_commit,
    sqlstate_of,
)
from backend.shared.stores.postgres.names import UNIT_SETTING, EngineNames
from backend.shared.unit_of_work import UnitOfWork
from backend.shared.unit_repeats import RunAgainError, repeat
from backend.shared.units import OwnJournal, Runner, Transaction, Unit

T = TypeVar("T")

STATUS_WAIT_SECONDS = 30.0
CARRYING_LOCK_MS = 100
_BEGINS = {level: f"BEGIN ISOLATION LEVEL {level}" for level in Isolation} | {
    Isolation.READ_COMMITTED: "BEGIN"
}
_XID_IN_THE_FUTURE = "22023"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:@-]")

log = structlog.get_logger(__name__)


class UnitTransaction:
    """One transaction of a unit: begun on entering, rolled back on leaving unless it was committed inside.

    `xid` is known once something captured has been written.
    """

    connection: AsyncConnection
    session: AsyncSession
    work: UnitOfWork

    def __init__(
        self,
        runner: UnitRunner,
        *,
        request_id: str,
        journals_touched: bool,
        only_reads: bool,
        even_if_closed: bool,
        isolation: Isolation,
    ) -> None:
        self.committed = self.commit_sent = False
        self._first_id = 0
        self._runner = runner
        self._request_id = request_id
        self._journals_touched = journals_touched
        # Where triggers are the fence they look at each write; whoever has none, or reads only, looks at once.
        unfenced = runner.capture is Capture.UNIT
        self._asserts_first = (only_reads or unfenced) and not even_if_closed
        self._assertion = assert_open(runner.names, journals=only_reads or journals_touched or not unfenced)
        self._begin = _BEGINS[isolation]
        if only_reads or even_if_closed:
            # Of one moment, so that what it reads fits together; and no fence would keep it from writing to a closed side.
            self._begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        self._journalled_as: int | None = None
        self._wrote = False
        self._begun_at = time.monotonic()

    async def __aenter__(self) -> Self:
        runner, names = self._runner, self._runner.names
        self.connection = await runner.engine.connect()
        self._pooled = self._sync_connection.connection
        self._driver = cast("Any", self._pooled.driver_connection)
        self._set_autocommit(on=True)
        self._sync_connection.info.pop(XID, None)
        self.session = AsyncSession(bind=self.connection, expire_on_commit=False, autoflush=True)
        self.work = UnitOfWork(
            self.session, side=runner.side, catalog=runner.catalog, request_id=self._request_id
        )
        try:
            await self._driver.execute(
                f"{self._begin}; SET LOCAL {UNIT_SETTING} = '{names.unit_mark(_UNSAFE.sub('', self._request_id))}'"
                + (f"; {self._assertion}" if self._asserts_first else "")
            )
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        """Roll back if need be; a connection that does not even do that is thrown away."""
        try:
            if not self.committed:
                await self._roll_back()
        finally:
            # Without anything to send this does not wait, so that no cancellation can come in between.
            await self.session.run_sync(self._close)

    async def _roll_back(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._driver.execute("ROLLBACK")
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is not to be used again
            log.debug("rollback_failed", error=describe(error))
            await self.connection.invalidate()
        except BaseException:
            # Cancelled again, as task groups do until a task ends: ROLLBACK may not even have been sent, and whoever got
            # this connection next would go on in this transaction.
            await self.connection.invalidate()
            raise

    def _close(self, session: Session) -> None:
        try:
            session.close()
        finally:
            self._set_autocommit(on=False)
            self._sync_connection.close()

    def _set_autocommit(self, *, on: bool) -> None:
        adapter: Any = self._pooled.dbapi_connection
        if adapter is not None:  # else it was thrown away
            adapter.autocommit = on

    @property
    def _sync_connection(self) -> Connection:
        connection = self.connection.sync_connection
        if connection is None:
            raise AssertionError("the connection has been made")
        return connection

    @property
    def xid(self) -> int | None:
        """The transaction's id, as the capture trigger or the journal row told it."""
        if self._journalled_as is not None:
            return self._journalled_as
        found = self._sync_connection.info.get(XID)
        return int(found) if found is not None else None

    async def flush(self) -> None:
        """Send what the session still holds, unless the unit has to be run again; where no trigger captures, write the journal rows of the keys touched."""
        self.work.check()
        if next(iter(self.session.sync_session), None) is not None:  # else it holds no object at all
            await self.session.flush()
        self._wrote = self._wrote or bool(self.work.touched)
        if self._journals_touched:
            for entity, keys in self.work.touched.items():
                self._journalled_as = await self._runner.journal.add(self.connection, entity, keys)
            self.work.touched.clear()

    async def watch_journal(self) -> None:
        """To be called before the unit, if `own_journal` is to be asked."""
        self._first_id = await self._runner.journal.last_id(self.connection)

    async def own_journal(self) -> OwnJournal:
        """The journal rows that this transaction has written, those of keys touched included, which are written now."""
        await self.flush()
        ids, keys = await self._runner.journal.own_rows(self.connection, after_id=self._first_id)
        return OwnJournal(ids=ids, keys=keys)

    async def commit(self) -> None:
        """Commit. Returns only if it is durable; raises `RunAgainError` if it certainly is not.

        A unit that wrote nothing has met no fence yet, and asks now whether its side is open, in the same message.
        """
        await self.flush()
        wrote = self.xid is not None or self._wrote
        self.commit_sent = True
        try:
            tag = await self._driver.execute(
                "COMMIT" if wrote or self._asserts_first else f"{self._assertion}; COMMIT"
            )
        except Exception as error:
            if not says_nothing_of_a_commit(error):
                raise
            xid = self.xid
            await self.connection.invalidate()
            await self._ask(xid, error)
        else:
            if tag != "COMMIT":
                raise side_error(self._runner.side, "rolled back at commit: a statement before had failed")
        self.committed = True

    async def _ask(self, xid: int | None, error: Exception) -> None:
        if xid is None:
            raise outcome_unknown(self._runner.side) from error
        status = await self._runner.status_of(xid, begun_at=self._begun_at)
        log.warning("commit_answer_lost", side=self._runner.side.value, xid=xid, status=status)
        if status == "aborted":
            raise RunAgainError(error)
        if status != "committed":
            raise side_error(
                self._runner.side,
                f"connection lost at COMMIT, transaction {xid} is {status}",
                unavailable=True,
                outage=Outage.NO_ANSWER,
            ) from error


class UnitRunner:
    """Runs units of work on one side."""

    def __init__(
        self,
        engine: AsyncEngine,
        side: Side,
        *,
        names: EngineNames,
        catalog: EntityCatalog,
        breaker: CircuitBreaker,
        capture: Capture = Capture.TRIGGER,
    ) -> None:
        self.side = side
        self.capture = capture
        self.names = names
        self.journal = JournalRepository(names)
        self.catalog = catalog
        self.engine = engine
        self._breaker = breaker

    async def repeat(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it goes through, while its failures are of the kind that leaves nothing behind.

        Deadlock, serialization failure and a connection lost before COMMIT are repeated, `MAX_RUNS` times in all, with
        jittered back-off. Raises `FencedError` where this side is closed; other database errors come out as the error type
        of this side.
        """
        return await repeat(attempt, engine=self.engine, side=self.side, breaker=self._breaker)

    def transaction(
        self,
        *,
        request_id: str,
        journals_touched: bool = False,
        only_reads: bool = False,
        even_if_closed: bool = False,
        isolation: Isolation = Isolation.READ_COMMITTED,
    ) -> UnitTransaction:
        """A transaction, to be entered with `async with`; rolled back unless it was committed inside.

        With `journals_touched` the unit itself writes the journal, for databases that take no trigger. One that `only_reads`
        is refused on a closed side, unless it reads `even_if_closed`; it sees one moment, and the database lets it write
        nothing, whatever `isolation` says.
        """
        return UnitTransaction(
            self,
            request_id=request_id,
            journals_touched=journals_touched,
            only_reads=only_reads,
            even_if_closed=even_if_closed,
            isolation=isolation,
        )

    @asynccontextmanager
    async def carrying(self, connection: AsyncConnection, *, request_id: str) -> AsyncIterator[UnitOfWork]:
        """A unit of work in the open transaction of `connection`, which has entered as a carry; all is sent at the end.

        It waits for nobody's locks longer than `CARRYING_LOCK_MS`.
        """
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {CARRYING_LOCK_MS}")
        async with AsyncSession(
            bind=connection, expire_on_commit=False, join_transaction_mode="rollback_only"
        ) as session:
            work = UnitOfWork(session, side=self.side, catalog=self.catalog, request_id=request_id)
            yield work
            work.check()
            await session.flush()
        await connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")

    async def status_of(self, xid: int, *, begun_at: float) -> str:
        """What became of a transaction begun at `begun_at` (monotonic): waits for the server to say so.

        `committed`, `aborted`, `in progress` or `unknown`. A server that crashed in between may have given the number
        to somebody else since, if nothing of the first owner had reached the disk: then only the transaction's own
        journal row proves that it was committed, and without it the outcome is unknown.
        """
        deadline = asyncio.get_running_loop().time() + STATUS_WAIT_SECONDS
        status = "unknown"
        while asyncio.get_running_loop().time() < deadline:
            try:
                async with self.engine.connect() as connection:
                    row = (
                        await connection.exec_driver_sql(
                            self._status_sql, (str(xid), time.monotonic() - begun_at)
                        )
                    ).one()
                status = "unknown" if row.restarted and not row.journalled else row.status or "unknown"
            except Exception as error:
                if not is_database_error(error):
                    raise
                if sqlstate_of(error) == _XID_IN_THE_FUTURE:
                    return "aborted"
                distrust_pool(self.engine)
            if status in ("committed", "aborted"):
                return str(status)
            await asyncio.sleep(0.1)
        return str(status)

    @property
    def _status_sql(self) -> str:
        # The checkpointer is started anew whenever the server recovers; a login without the right to see it still
        # sees when the server itself was started.
        return (
            "SELECT pg_xact_status($1::text::xid8) AS status, "
            "greatest(pg_postmaster_start_time(), (SELECT max(backend_start) FROM pg_stat_activity "
            "WHERE backend_type = 'checkpointer')) > clock_timestamp() - make_interval(secs => $2 + 1) AS restarted, "
            f"EXISTS (SELECT 1 FROM {self.names.journal} WHERE xid = $1::text::xid8) AS journalled"
        )


__all__ = ["Runner", "SideError", "Transaction", "Unit", "UnitRunner", "UnitTransaction"]
