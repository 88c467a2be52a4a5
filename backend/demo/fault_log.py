"""Faults that are done to a stack while it works, and when each was on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backend.shared.testing.processes import ServiceProcess

from .waiting import to_the_end

_LOOK_SECONDS = 0.1
GRACE_SECONDS = 5.0
"""How long after a fault its traces are still put down to it: a breaker probes once a second, pools fill up again."""


class FaultKind(StrEnum):
    """What was done."""

    RELAY_KILLED = "relay_killed"
    SERVICE_KILLED = "service_killed"
    CLUSTER_STOPPED = "cluster_stopped"
    CLUSTER_KILLED = "cluster_killed"
    DOCUMENTS_KILLED = "documents_killed"
    BROKER_KILLED = "broker_killed"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One of them: `at` seconds after the traffic began, and how long it took until all was there again."""

    kind: FaultKind
    at: float
    lasted_seconds: float
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "kind": self.kind.value,
            "at": round(self.at, 2),
            "lasted_seconds": round(self.lasted_seconds, 2),
            "detail": self.detail,
        }


class FaultLog:
    """Does what happens to stacks, one thing after the other. Times are counted from `begin` on."""

    def __init__(self, *, say: Callable[[str], None]) -> None:
        self.done: list[Fault] = []
        self.current: str | None = None
        self._say = say
        self._started = time.monotonic()
        self._excused_until = 0.0

    @property
    def is_on(self) -> bool:
        """Whether a fault is on, or just over."""
        return self.current is not None or time.monotonic() < self._excused_until

    def begin(self) -> None:
        """The traffic begins."""
        self._started = time.monotonic()

    async def quiet(self) -> None:
        """Wait until no fault is on, and none was just now."""
        while self.is_on:  # noqa: ASYNC110 - half of it is time that goes by
            await asyncio.sleep(_LOOK_SECONDS)

    async def spread(
        self, plan: Sequence[tuple[float, Callable[[], Awaitable[None]]]], *, seconds: float
    ) -> None:
        """One fault after the other, each at its share of so much time; when it is short, one right after the other."""
        began = time.monotonic()
        for share, fault in plan:
            await asyncio.sleep(max(0.0, began + share * seconds - time.monotonic()))
            await fault()

    async def kill(self, process: ServiceProcess, kind: FaultKind, *, gone_seconds: float) -> None:
        """`kill -9` of a process, which is started again after a while."""
        async with self.during(kind, f"kill -9 of {process.name} ({process.pid})"):
            await to_the_end(asyncio.to_thread(process.kill9))
            await asyncio.sleep(gone_seconds)
            await process.start()

    async def take_away(
        self,
        kind: FaultKind,
        detail: str,
        *,
        down: Callable[[], object],
        up: Callable[[], object],
        gone_seconds: float,
    ) -> None:
        """A server goes `down`, and is `up` again after a while. Both block."""
        async with self.during(kind, detail):
            await to_the_end(asyncio.to_thread(down))
            await asyncio.sleep(gone_seconds)
            await to_the_end(asyncio.to_thread(up))

    @asynccontextmanager
    async def during(self, kind: FaultKind, detail: str) -> AsyncIterator[None]:
        """A fault is on inside of the block."""
        began = time.monotonic()
        self.current = detail
        self._say(detail)
        try:
            yield
        finally:
            self.current = None
            self._excused_until = time.monotonic() + GRACE_SECONDS
        lasted = time.monotonic() - began
        self._say(f"all is there again after {lasted:.1f} s")
        self.done.append(Fault(kind=kind, at=began - self._started, lasted_seconds=lasted, detail=detail))
