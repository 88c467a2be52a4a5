"""What is done to the shop while it works: a relay and a service killed, a server stopped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from backend.shared.testing.clusters import Cluster

from .fault_log import FaultKind, FaultLog
from .stack import Stack

RELAY_GONE_SECONDS = 1.5
CLUSTER_GONE_SECONDS = 3.0


class Faults(FaultLog):
    """The faults of the shop's stack."""

    def __init__(self, stack: Stack, *, say: Callable[[str], None]) -> None:
        super().__init__(say=say)
        self._stack = stack

    async def before_cutover(self, *, seconds: float) -> None:
        """While legacy has the authority, spread over so much time."""
        plan = (
            (0.15, partial(self._kill_relay, "cart-relay")),
            (0.35, partial(self._kill_service, "cart")),
            (0.60, partial(self._stop_cluster, self._stack.services, "the services'")),
            (0.85, partial(self._kill_relay, "product-relay")),
        )
        await self.spread(plan, seconds=seconds)

    async def after_cutover(self) -> None:
        """While the new side has the authority: it does without legacy for a while."""
        await self._kill_service("cart-2")
        await self._kill_relay("cart-relay")
        await self._stop_cluster(self._stack.legacy, "the legacy")

    async def _kill_relay(self, name: str) -> None:
        await self.kill(self._stack.processes[name], FaultKind.RELAY_KILLED, gone_seconds=RELAY_GONE_SECONDS)

    async def _kill_service(self, name: str) -> None:
        await self.kill(self._stack.processes[name], FaultKind.SERVICE_KILLED, gone_seconds=0.0)

    async def _stop_cluster(self, cluster: Cluster, whose: str) -> None:
        detail = f"{whose} PostgreSQL server shut down at once for {CLUSTER_GONE_SECONDS:.0f} s"
        await self.take_away(
            FaultKind.CLUSTER_STOPPED,
            detail,
            down=partial(cluster.stop, "immediate"),
            up=cluster.start,
            gone_seconds=CLUSTER_GONE_SECONDS,
        )
