"""One connection of a side for a run of many scans: they follow each other in few transactions, on one core of the server."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.stores.postgres.session_settings import PRINTED_ALIKE, set_locally

_READING = PRINTED_ALIKE | {"transaction_read_only": "on", "lc_monetary": "C"}
READING_ALIKE = set_locally(_READING)
"""First statement of a transaction that only reads, and in which equal values print alike."""
SCAN_SECONDS = 3600.0
"""The most that one statement may take that goes through many rows."""
# One core of a server at a time, whatever is free there; and room to group by some thousand parts without the disk.
_SCANS = {
    "statement_timeout": f"{SCAN_SECONDS * 1000:.0f}",
    "max_parallel_workers_per_gather": "0",
    "work_mem": "32MB",
    "jit": "off",
}
_BEGIN_SCANNING = f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {set_locally(_READING | _SCANS)}"
TRANSACTION_SECONDS = 1.0
"""After so long a transaction is ended before its next statement: it holds no snapshot, but a lock that DDL waits for."""
IDLE_SECONDS = 0.1
"""After so long without a statement it is ended too."""


class Lane:
    """Scans one after the other, in the order in which they are asked for, each with a snapshot of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._lock = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._begun_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def scan(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """The rows of `statement`. Whatever goes wrong, the connection goes back to no pool in a transaction."""
        async with self._lock:
            self._forget_timer()
            try:
                driver = await self._driver()
                # The pool's own limit for a command would end it; only the driver can be given another.
                rows = list(await driver.fetch(statement, *parameters, timeout=SCAN_SECONDS + 5))
            except BaseException:
                await self._drop()
                raise
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_soon)
            return rows

    async def close(self) -> None:
        """End the transaction and give the connection back; a close that is cancelled throws it away."""
        self._forget_timer()
        try:
            if self._ending is not None:
                await self._ending
            await self._end()
        except BaseException:
            await self._drop()
            raise
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _driver(self) -> Any:
        """The driver's connection, in a transaction that is not old."""
        if self._connection is None:
            self._connection = await self._engine.connect()
        driver: Any = (await self._connection.get_raw_connection()).driver_connection
        if self._begun_at is not None and time.monotonic() - self._begun_at > TRANSACTION_SECONDS:
            await driver.execute("COMMIT")
            self._begun_at = None
        if self._begun_at is None:
            await driver.execute(_BEGIN_SCANNING)
            self._begun_at = time.monotonic()
        return driver

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_soon(self) -> None:
        self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        async with self._lock:
            if self._connection is None or self._begun_at is None:
                return
            try:
                driver: Any = (await self._connection.get_raw_connection()).driver_connection
                await driver.execute("COMMIT")
                self._begun_at = None
            except Exception:  # noqa: BLE001 - what was read is read; the next scan gets a connection of its own
                await self._drop()

    async def _drop(self) -> None:
        connection, self._connection, self._begun_at = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                await connection.invalidate()
            await connection.close()
