"""What is done to the task service while it works: both servers killed, a relay and a replica too."""

from __future__ import annotations

import time
from collections.abc import Callable

from backend.demo.fault_log import FaultKind, FaultLog

from .stack import RELAY, REPLICAS, TaskStack

RELAY_GONE_SECONDS = 1.5
SERVER_GONE_SECONDS = 3.0
TRANSACTION_SECONDS = 60.0
"""So long the document server keeps what a killed process had begun (MongoDB: `transactionLifetimeLimitSeconds`)."""


class TaskFaults(FaultLog):
    """The faults of the task service's stack."""

    def __init__(self, stack: TaskStack, *, say: Callable[[str], None]) -> None:
        super().__init__(say=say)
        self._stack = stack
        self._held_until = 0.0

    @property
    def documents_are_held(self) -> bool:
        """Whether a replica that was killed may still hold the documents that it was writing: others meet a conflict there."""
        return time.monotonic() < self._held_until

    async def while_legacy_answers(self, *, seconds: float) -> None:
        """The relay dies, then the document server, which has the authority and is being copied, then a replica."""
        plan = ((0.15, self._kill_relay), (0.4, self._kill_documents), (0.75, self._kill_replica))
        await self.spread(plan, seconds=seconds)

    async def while_new_answers(self) -> None:
        """The PostgreSQL server dies, which has the authority now and keeps the phase, then the relay."""
        server = self._stack.cluster
        await self.take_away(
            FaultKind.CLUSTER_KILLED,
            f"kill -9 of the PostgreSQL server ({server.pid}), back after {SERVER_GONE_SECONDS:.0f} s",
            down=server.kill9,
            up=server.start,
            gone_seconds=SERVER_GONE_SECONDS,
        )
        await self._kill_relay()

    async def _kill_documents(self) -> None:
        server = self._stack.documents
        await self.take_away(
            FaultKind.DOCUMENTS_KILLED,
            f"kill -9 of the document server ({server.pid}), back after {SERVER_GONE_SECONDS:.0f} s",
            down=server.kill9,
            up=server.start,
            gone_seconds=SERVER_GONE_SECONDS,
        )

    async def _kill_replica(self) -> None:
        replica = self._stack.processes[REPLICAS[1]]
        self._held_until = time.monotonic() + TRANSACTION_SECONDS
        await self.kill(replica, FaultKind.SERVICE_KILLED, gone_seconds=0.0)

    async def _kill_relay(self) -> None:
        relay = self._stack.processes[RELAY]
        await self.kill(relay, FaultKind.RELAY_KILLED, gone_seconds=RELAY_GONE_SECONDS)
