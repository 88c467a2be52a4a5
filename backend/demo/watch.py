"""Looks at the services' journals while the shop works, and waits for them in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from backend.shared.domain.phases import Side
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.journal.repository import JournalDepth

LOOK_EVERY_SECONDS = 0.25
DRAIN_EVERY_SECONDS = 0.1
DRAIN_SECONDS = 90.0


@dataclass(kw_only=True)
class Peak:
    """The most that was seen of a service: age of its oldest journal row, and rows."""

    lag_seconds: float = 0.0
    rows: int = 0


class JournalWatch:
    """Measures the journals of all services on their authoritative side, which this demo never stops."""

    def __init__(self, managers: Mapping[str, DualWriteManager]) -> None:
        self._managers = managers
        self.depths: dict[str, JournalDepth] = {}
        self.peaks = {service: Peak() for service in managers}

    @property
    def max_lag_seconds(self) -> float:
        """The longest time that a change was on its way."""
        return max((peak.lag_seconds for peak in self.peaks.values()), default=0.0)

    @property
    def failures_open(self) -> int:
        """Keys that could not be carried, as of the last look."""
        return sum(depth.failures for depth in self.depths.values())

    @property
    def rows(self) -> int:
        """Journal rows of all services, as of the last look."""
        return sum(depth.rows for depth in self.depths.values())

    async def look(self) -> None:
        """Measure all journals once."""
        for service, manager in self._managers.items():
            runtime = manager.runtime
            async with runtime.engines[Side.LEGACY].connect() as connection:
                depth = await runtime.journal.depth(connection)
            self.depths[service] = depth
            peak = self.peaks[service]
            peak.lag_seconds = max(peak.lag_seconds, depth.lag_seconds)
            peak.rows = max(peak.rows, depth.rows)

    async def run(self) -> None:
        """Measure again and again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def drained(self, *, within_seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until nothing is on its way; False if that took too long."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            await self.look()
            if self.rows == 0:
                return True
            await asyncio.sleep(DRAIN_EVERY_SECONDS)
        return False
