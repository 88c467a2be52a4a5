"""Moves history while the shop is open: one `tandem backfill` per service, and one of them killed half-way."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.migration.backfill import Backfill, BackfillStatus
from backend.shared.migration.backfill_state import estimate
from backend.shared.stores.errors import is_database_error
from backend.shared.testing.processes import ServiceProcess

from . import steps
from .errors import StepError
from .waiting import to_the_end
from .workplace import Workplace

SHARE_OF_TRAFFIC = 0.6
"""The rate is set so that history moves for about so much of the time, beside the traffic."""
LEAST_ROWS_PER_SECOND = 200.0
GONE_SECONDS = 1.0
WITHIN_SECONDS = 180.0
UNHURRIED_SECONDS = 1800.0
RESTARTS = 5
_LOOK_EVERY_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class Killed:
    """The backfill that was killed: where it was when it died, and where it was when the next one began."""

    service: str
    at: float
    rows_copied: int
    rows_expected: int
    rows_copied_by_next: int


class Backfills:
    """Processes that copy every service's history, from `run` to its end. `close` ends those that are left.

    They take about `seconds`; as long as they need, if None. That of the service `killed` dies half-way and is followed by another.
    """

    def __init__(
        self,
        stack: Workplace,
        managers: Mapping[str, DualWriteManager],
        *,
        seconds: float | None,
        killed: str | None = None,
        say: Callable[[str], None],
    ) -> None:
        self._stack = stack
        self._managers = managers
        self._seconds = seconds
        self._to_kill = killed
        self._say = say
        self._processes: dict[str, ServiceProcess] = {}
        self._started = time.monotonic()
        self.statuses: dict[str, BackfillStatus] = {}
        self.killed: Killed | None = None
        self.seconds = 0.0
        self._restarts = 0

    async def run(self) -> None:
        """Copy everything. Raises `StepError` if a process ends without having done so, or if it takes too long."""
        self._started = time.monotonic()
        for manager in self._managers.values():
            await manager.start()
        for service in self._managers:
            self._processes[service] = self._process(service, *await self._rate(service))
            self._processes[service].spawn()
        while not all(status.is_complete for status in self.statuses.values()):
            self._check()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            await self._look()
            if self._to_kill is not None and self._half_way(self._to_kill):
                await self._kill(self._to_kill)
        self.seconds = time.monotonic() - self._started
        for process in self._processes.values():
            await process.terminate()

    async def close(self) -> None:
        """Kill what still runs."""
        for process in self._processes.values():
            await asyncio.to_thread(process.kill9)

    @property
    def rows_copied(self) -> int:
        """Rows of all entities of all services."""
        return sum(item.progress.rows_copied for status in self.statuses.values() for item in status.entities)

    def bars(self) -> dict[str, tuple[float, float, str]]:
        """By service: rows copied, rows expected, and what else there is to say."""
        found = {service: _rows(status) for service, status in self.statuses.items()}
        return {
            f"backfill {service}": (float(copied), float(expected), _told(self.statuses[service]))
            for service, (copied, expected) in found.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        killed = self.killed
        return {
            "rows_copied": self.rows_copied,
            "seconds": round(self.seconds, 3),
            "complete": bool(self.statuses) and all(status.is_complete for status in self.statuses.values()),
            "killed": None
            if killed is None
            else {
                "service": killed.service,
                "at": round(killed.at, 2),
                "rows_copied": killed.rows_copied,
                "rows_expected": killed.rows_expected,
                "rows_copied_when_resumed": killed.rows_copied_by_next,
            },
        }

    async def _rate(self, service: str) -> tuple[str, ...]:
        await self._look()
        if self._seconds is None:
            return ()
        found = await Backfill(self._managers[service].runtime).rows_expected()
        rows = math.ceil(max(LEAST_ROWS_PER_SECOND, found / (SHARE_OF_TRAFFIC * self._seconds)))
        return ("--max-rows-per-second", str(rows))

    def _process(self, service: str, *options: str) -> ServiceProcess:
        return ServiceProcess(
            steps.tandem_argv("backfill", service, *options),
            name=f"{service}-backfill",
            env=self._stack.env_of(service),
            log=self._stack.logs / f"{service}-backfill.log",
        )

    async def _look(self) -> None:
        for service, manager in self._managers.items():
            try:
                self.statuses[service] = await Backfill(manager.runtime).status()
            except Exception as error:
                if not is_database_error(error):
                    raise  # a fault may be on; then the last look is as good as any

    def _check(self) -> None:
        most = UNHURRIED_SECONDS if self._seconds is None else max(WITHIN_SECONDS, 3 * self._seconds)
        if time.monotonic() > self._started + most:
            raise StepError("the backfills did not come to an end")
        for service, process in self._processes.items():
            done = service in self.statuses and self.statuses[service].is_complete
            if process.is_running or done:
                continue
            # One that starts while the server is down says so and ends; whoever runs it starts it again.
            self._restarts += 1
            if self._restarts > RESTARTS:
                raise StepError(f"the backfill of {service} ended by itself; its log is {process.log}")
            self._say(f"the backfill of {service} could not go on, and is started again")
            process.spawn()

    def _half_way(self, service: str) -> bool:
        copied, expected = _rows(self.statuses[service]) if service in self.statuses else (0, 0)
        return self.killed is None and expected > 0 and expected / 2 <= copied < expected

    async def _kill(self, service: str) -> None:
        process = self._processes[service]
        at, (copied, expected) = time.monotonic() - self._started, _rows(self.statuses[service])
        self._say(f"kill -9 of the backfill of {service} ({process.pid}) at {copied:,} of {expected:,} rows")
        await to_the_end(asyncio.to_thread(process.kill9))
        await asyncio.sleep(GONE_SECONDS)
        await self._look()
        before = _rows(self.statuses[service])[0]
        process.spawn()
        self._say(f"the next one goes on at {before:,} rows")
        self.killed = Killed(
            service=service,
            at=at,
            rows_copied=copied,
            rows_expected=expected,
            rows_copied_by_next=before,
        )


def _rows(status: BackfillStatus) -> tuple[int, int]:
    return estimate([item.progress for item in status.entities])


def _told(status: BackfillStatus) -> str:
    if status.is_complete:
        return "complete"
    control = status.control
    held = f", held by {control.held_by}" if control.held_by else ""
    return f"{control.rows_per_second or 0:,.0f} rows/s{held}" if control.is_running else "no process"
