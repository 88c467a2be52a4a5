"""What slows a backfill down, and which of it holds it now."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog

from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.phases import Direction
from backend.shared.migration.backfill_state import BackfillControl, BackfillRepository
from backend.shared.stores.errors import describe, is_database_error
from backend.shared.stores.side import SideStore

CHECK_SECONDS = 0.5
RATE_SECONDS = 10.0
"""The rate that is shown is that of the last so many seconds."""

log = structlog.get_logger(__name__)


class Throttle:
    """Holds the workers of one backfill process back. `held_by` says what holds them now, or None.

    Reads what the backfill is told, the relay's lag and the servers' connections every half second, and gives a sign of
    life in the same breath. Trouble with a database holds everybody until the next reading succeeds.
    """

    def __init__(
        self,
        *,
        source: SideStore,
        target: SideStore,
        keeper: SideStore,
        direction: Direction,
        state: BackfillRepository,
        by: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stores = (source, target)
        self._source, self._keeper = source, keeper
        self._direction = direction
        self._state = state
        self._by = by
        self._clock = clock
        self._free_at = clock()
        self._copied: deque[tuple[float, int]] = deque()
        self._held: str | None = None
        self._trouble: str | None = None
        self._failed: Exception | None = None
        self.control = BackfillControl()

    @property
    def held_by(self) -> str | None:
        """What holds the backfill now: the first of pause, trouble, lag, connections, rows per second."""
        if self.control.paused:
            return "paused"
        if self._trouble or self._held:
            return self._trouble or self._held
        if self._clock() < self._free_at:
            return f"rows per second (at most {self.control.limits.max_rows_per_second:g})"
        return None

    @property
    def rows_per_second(self) -> float:
        """Rows copied lately by this process."""
        now = self._clock()
        while self._copied and self._copied[0][0] < now - RATE_SECONDS:
            self._copied.popleft()
        if not self._copied:
            return 0.0
        return sum(rows for _, rows in self._copied) / max(now - self._copied[0][0], CHECK_SECONDS)

    async def watch(self) -> None:
        """Look again and again, until cancelled. Whatever else ends it is raised by `ready`: nobody would let go any more."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(CHECK_SECONDS)
        except Exception as error:  # noqa: BLE001 - raised by `ready`
            self._failed = error

    async def look(self) -> None:
        """Look once. Raises nothing that a database says: it holds the backfill instead."""
        try:
            await self._look()
        except ConfigurationError as error:
            log.warning("limits_ignored", error=str(error))  # kept by another version; those from before stay
        except Exception as error:
            if not is_database_error(error):
                raise
            self.trouble(error)
        else:
            self._trouble = None

    async def _look(self) -> None:
        async with self._keeper.connect() as connection:
            self.control = await self._state.control(connection)
        limits, held = self.control.limits, None
        if limits.max_connection_share is not None:
            held = await self._crowded(limits.max_connection_share)
        if limits.max_lag_seconds is not None:
            async with self._source.connect() as connection:
                # What waits for a parent or for a refusal to be settled is no load, and may wait for this very copy.
                lag = (await self._source.journal.depth(connection)).fresh_lag_seconds
            if lag > limits.max_lag_seconds:
                held = f"relay lag ({lag:.1f} s, at most {limits.max_lag_seconds:g} s)"
        if held and held.split("(", maxsplit=1)[0] != (self._held or "").split("(", maxsplit=1)[0]:
            log.info("backfill_held", by=held)
        self._held = held
        async with self._keeper.begin() as connection:
            await self._state.beat(
                connection, held_by=self.held_by, rows_per_second=self.rows_per_second, by=self._by
            )

    async def _crowded(self, most: float) -> str | None:
        for store in self._stores:
            share = await store.connection_share()
            if share > most:
                return f"connections ({share:.0%} of the {store.side.value} server's are in use, at most {most:.0%})"
        return None

    def trouble(self, error: BaseException) -> None:
        """Hold everybody until the databases answer again."""
        if self._trouble is None:
            log.warning("backfill_held", by=describe(error))
        self._trouble = describe(error)

    async def ready(self) -> None:
        """Wait until nothing holds the backfill. Raises what `watch` has ended with."""
        while True:
            if self._failed is not None:
                raise self._failed
            if self.held_by is None:
                return
            until = self._free_at - self._clock()
            # Short, since what holds may change at any time.
            await asyncio.sleep(min(max(until, 0.02), 0.1))

    def spend(self, rows: int) -> None:
        """Count rows copied; with a limit per second, the next chunk waits its turn."""
        now = self._clock()
        self._copied.append((now, rows))
        if most := self.control.limits.max_rows_per_second:
            self._free_at = max(self._free_at, now - CHECK_SECONDS) + rows / most

    def chunk_limit(self, seconds: float) -> int | None:
        """The most rows that a chunk of `seconds` may have, so that a limit is kept evenly; None without a limit."""
        most = self.control.limits.max_rows_per_second
        return None if most is None else max(1, int(most * seconds))
