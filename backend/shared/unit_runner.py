"""Runs units of work: begin, the unit, commit; again after a deadlock; and asks, where an answer was lost.

The transaction is driven on the driver's own connection, since that takes BEGIN and the unit's mark in one round trip.
The capture trigger tells the transaction's id by a notice, which arrives with the answer of the write itself: so that
asking `pg_xact_status` after a lost COMMIT costs no round trip before it.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from backend.shared.breaker import CircuitBreaker
from backend.shared.database import XID
from backend.shared.domain.errors import SideError, side_error
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Side
from backend.shared.stores.postgres.errors import (
    describe,
    is_connection_loss,
    is_database_error,
    is_repeatable,
    to_side_error,
)
from backend.shared.stores.postgres.names import UNIT_SETTING
from backend.shared.unit_of_work import UnitOfWork

T = TypeVar("T")
Unit = Callable[[UnitOfWork], Awaitable[T]]

MAX_RUNS = 5
STATUS_WAIT_SECONDS = 30.0
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:@-]")

log = structlog.get_logger(__name__)


class _RunAgain(Exception):
    """The transaction left nothing behind and may be repeated."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class UnitTransaction:
    """One open transaction of a unit. `xid` is known once something captured has been written."""

    def __init__(self, runner: UnitRunner, connection: AsyncConnection, driver: Any, request_id: str) -> None:
        self.connection = connection
        self.committed = False
        self._runner = runner
        self._driver = driver
        self.session = AsyncSession(bind=connection, expire_on_commit=False, autoflush=True)
        self.work = UnitOfWork(
            self.session, side=runner.side, catalog=runner.catalog, request_id=request_id
        )

    @property
    def xid(self) -> int | None:
        """The transaction's id, as the capture trigger told it."""
        found = self.connection.sync_connection.info.get(XID) if self.connection.sync_connection else None
        return int(found) if found is not None else None

    async def commit(self) -> None:
        """Commit. Returns only if it is durable; raises `_RunAgain` if it certainly is not."""
        await self.session.flush()
        try:
            tag = await self._driver.execute("COMMIT")
        except Exception as error:
            if not is_connection_loss(error):
                raise
            await self._ask(error)
        else:
            if tag != "COMMIT":
                raise side_error(self._runner.side, "rolled back at commit: a statement before had failed")
        self.committed = True

    async def _ask(self, error: Exception) -> None:
        xid = self.xid
        if xid is None:
            raise side_error(
                self._runner.side, "connection lost at COMMIT, outcome unknown", unavailable=True
            ) from error
        status = await self._runner.status_of(xid)
        log.warning("commit_answer_lost", side=self._runner.side.value, xid=xid, status=status)
        if status == "aborted":
            raise _RunAgain(error)
        if status != "committed":
            raise side_error(
                self._runner.side, f"connection lost at COMMIT, transaction {xid} is {status}", unavailable=True
            ) from error


class UnitRunner:
    """Runs units of work on one side."""

    def __init__(
        self, engine: AsyncEngine, side: Side, catalog: EntityCatalog, breaker: CircuitBreaker
    ) -> None:
        self.side = side
        self.catalog = catalog
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._breaker = breaker

    async def repeat(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it goes through, while its failures are of the kind that leaves nothing behind.

        Deadlock, serialization failure and a connection lost before COMMIT are repeated, `MAX_RUNS` times in all, with
        jittered back-off. Database errors come out as the error type of this side.
        """
        for run in range(1, MAX_RUNS + 1):
            self._breaker.check()
            try:
                result = await attempt()
            except Exception as error:
                cause = error.cause if isinstance(error, _RunAgain) else error
                if not is_database_error(cause) and not isinstance(error, _RunAgain):
                    raise
                lost = is_connection_loss(cause)
                if lost:
                    self._breaker.failed()
                    await self._engine.dispose()
                if run == MAX_RUNS or not (lost or is_repeatable(cause) or isinstance(error, _RunAgain)):
                    raise to_side_error(cause, self.side) from cause
                log.info("unit_repeated", side=self.side.value, run=run, error=describe(cause))
                await asyncio.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**run)
            else:
                self._breaker.succeeded()
                return result
        raise AssertionError("unreachable: the last run returns or raises")

    @asynccontextmanager
    async def transaction(self, *, request_id: str) -> AsyncIterator[UnitTransaction]:
        """An open transaction, rolled back unless it was committed inside."""
        async with self._autocommit.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            if connection.sync_connection is not None:
                connection.sync_connection.info.pop(XID, None)
            transaction = UnitTransaction(self, connection, driver, request_id)
            try:
                await driver.execute(f"BEGIN; SET LOCAL {UNIT_SETTING} = '{_UNSAFE.sub('', request_id)}'")
                yield transaction
            except BaseException:
                await self._abandon(transaction, driver)
                raise
            finally:
                await transaction.session.close()
            if not transaction.committed:
                await driver.execute("ROLLBACK")

    @staticmethod
    async def _abandon(transaction: UnitTransaction, driver: Any) -> None:
        """Leave a transaction that failed; a connection that does not even roll back is thrown away."""
        if transaction.committed:
            return
        try:
            async with asyncio.timeout(5):
                await driver.execute("ROLLBACK")
        except Exception as error:
            log.debug("rollback_failed", error=describe(error))
            await transaction.connection.invalidate()

    async def status_of(self, xid: int) -> str:
        """What became of a transaction: `committed`, `aborted`, `in progress` or `unknown`; waits for the server."""
        deadline = asyncio.get_running_loop().time() + STATUS_WAIT_SECONDS
        status = "unknown"
        while asyncio.get_running_loop().time() < deadline:
            try:
                async with self._engine.connect() as connection:
                    found = await connection.execute(text(f"SELECT pg_xact_status('{xid}'::xid8)"))
                    status = found.scalar_one() or "unknown"
            except Exception as error:
                if not is_database_error(error):
                    raise
                await self._engine.dispose()
            if status in ("committed", "aborted"):
                return str(status)
            await asyncio.sleep(0.1)
        return str(status)


__all__ = ["SideError", "Unit", "UnitRunner", "UnitTransaction"]
