"""What is done to the stack while it works: a relay and a service killed, a server stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from backend.shared.testing.clusters import Cluster

from .stack import Stack
from .waiting import to_the_end

RELAY_GONE_SECONDS = 1.5
CLUSTER_GONE_SECONDS = 3.0
_LOOK_SECONDS = 0.1
GRACE_SECONDS = 5.0
"""How long after a fault its traces are still put down to it: a breaker probes once a second, pools fill up again."""


class FaultKind(StrEnum):
    """What was done."""

    RELAY_KILLED = "relay_killed"
    SERVICE_KILLED = "service_killed"
    CLUSTER_STOPPED = "cluster_stopped"


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


class Faults:
    """Does to a stack what happens to stacks, one thing after the other. Their times are counted from `begin` on."""

    def __init__(self, stack: Stack, *, say: Callable[[str], None]) -> None:
        self.done: list[Fault] = []
        self.current: str | None = None
        self._stack = stack
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

    async def before_cutover(self, *, seconds: float) -> None:
        """While legacy has the authority. Spread over so much time; when it is short, one right after the other."""
        plan: Sequence[tuple[float, Callable[[], Awaitable[None]]]] = (
            (0.15, partial(self._kill_relay, "cart-relay")),
            (0.35, partial(self._kill_service, "cart")),
            (0.60, partial(self._stop_cluster, self._stack.services, "the services'")),
            (0.85, partial(self._kill_relay, "product-relay")),
        )
        began = time.monotonic()
        for share, fault in plan:
            await asyncio.sleep(max(0.0, began + share * seconds - time.monotonic()))
            await fault()

    async def after_cutover(self) -> None:
        """While the new side has the authority: it does without legacy for a while."""
        await self._kill_service("cart-2")
        await self._kill_relay("cart-relay")
        await self._stop_cluster(self._stack.legacy, "the legacy")

    async def _kill_relay(self, name: str) -> None:
        await self._kill(name, FaultKind.RELAY_KILLED, gone_seconds=RELAY_GONE_SECONDS)

    async def _kill_service(self, name: str) -> None:
        await self._kill(name, FaultKind.SERVICE_KILLED, gone_seconds=0.0)

    async def _kill(self, name: str, kind: FaultKind, *, gone_seconds: float) -> None:
        process = self._stack.processes[name]
        async with self._fault(kind, f"kill -9 of {name} ({process.pid})"):
            await to_the_end(asyncio.to_thread(process.kill9))
            await asyncio.sleep(gone_seconds)
            await process.start()

    async def _stop_cluster(self, cluster: Cluster, whose: str) -> None:
        detail = f"{whose} PostgreSQL server shut down at once for {CLUSTER_GONE_SECONDS:.0f} s"
        async with self._fault(FaultKind.CLUSTER_STOPPED, detail):
            await to_the_end(asyncio.to_thread(cluster.stop, "immediate"))
            await asyncio.sleep(CLUSTER_GONE_SECONDS)
            await to_the_end(asyncio.to_thread(cluster.start))

    @asynccontextmanager
    async def _fault(self, kind: FaultKind, detail: str) -> AsyncIterator[None]:
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
