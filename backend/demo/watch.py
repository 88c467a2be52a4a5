"""Looks at the services' journals while the shop works, and waits for them in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from backend.shared.domain.phases import Side
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.journal.records import JournalDepth
from backend.shared.stores.errors import is_database_error

LOOK_EVERY_SECONDS = 0.25
DRAIN_EVERY_SECONDS = 0.1
DRAIN_SECONDS = 90.0
_NOTHING = JournalDepth(rows=0, lag_seconds=0.0, failures=0)


@dataclass(kw_only=True)
class Peak:
    """The most that was seen of a service: age of its oldest journal row, and rows."""

    lag_seconds: float = 0.0
    rows: int = 0


class JournalWatch:
    """Measures the journals of all services, on both sides: whichever has the authority fills its own.

    While a server is down, its journals count as they were seen last.
    """

    def __init__(self, managers: Mapping[str, DualWriteManager]) -> None:
        self._managers = managers
        self._seen: dict[tuple[str, Side], JournalDepth] = {}
        self.peaks = {service: Peak() for service in managers}

    @property
    def depths(self) -> dict[str, JournalDepth]:
        """By service, what its two journals hold together, as of the last look."""
        return {service: self._both(service) for service in self._managers}

    @property
    def max_lag_seconds(self) -> float:
        """The longest time that a change was on its way."""
        return max((peak.lag_seconds for peak in self.peaks.values()), default=0.0)

    @property
    def failures_open(self) -> int:
        """Keys that could not be carried, as of the last look."""
        return sum(depth.failures for depth in self._seen.values())

    @property
    def rows(self) -> int:
        """Journal rows of all services, as of the last look."""
        return sum(depth.rows for depth in self._seen.values())

    async def look(self) -> bool:
        """Measure all journals once. Returns whether all could be."""
        complete = True
        for service in self._managers:
            for side in Side:
                complete &= await self._look(service, side)
            depth, peak = self._both(service), self.peaks[service]
            peak.lag_seconds = max(peak.lag_seconds, depth.lag_seconds)
            peak.rows = max(peak.rows, depth.rows)
        return complete

    async def run(self) -> None:
        """Measure again and again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def drained(self, *, within_seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until nothing is on its way; False if that took too long."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            if await self.look() and self.rows == 0:
                return True
            await asyncio.sleep(DRAIN_EVERY_SECONDS)
        return False

    async def _look(self, service: str, side: Side) -> bool:
        runtime = self._managers[service].runtime
        try:
            store = runtime.stores[side]
            async with store.connect() as connection:
                self._seen[service, side] = await store.journal.depth(connection)
        except Exception as error:
            if not is_database_error(error):
                raise
            return False
        return True

    def _both(self, service: str) -> JournalDepth:
        found = [self._seen.get((service, side), _NOTHING) for side in Side]
        return JournalDepth(
            rows=sum(depth.rows for depth in found),
            lag_seconds=max(depth.lag_seconds for depth in found),
            failures=sum(depth.failures for depth in found),
        )
