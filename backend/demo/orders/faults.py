"""What is done while orders are under way: participants killed, and the broker."""

from __future__ import annotations

from collections.abc import Callable

from backend.demo.fault_log import FaultKind, FaultLog

from .stack import OrderStack

BROKER_GONE_SECONDS = 3.0
PROCESS_GONE_SECONDS = 1.0


class OrderFaults(FaultLog):
    """The faults of the orders' stack."""

    def __init__(self, stack: OrderStack, *, say: Callable[[str], None]) -> None:
        super().__init__(say=say)
        self._stack = stack

    async def participant(self, name: str) -> None:
        """One process is killed, and started again."""
        process = self._stack.processes[name]
        kind = FaultKind.RELAY_KILLED if name.endswith("-relay") else FaultKind.SERVICE_KILLED
        await self.kill(process, kind, gone_seconds=PROCESS_GONE_SECONDS)

    async def broker(self) -> None:
        """The broker is killed, and started again on what it has kept."""
        broker = self._stack.broker
        await self.take_away(
            FaultKind.BROKER_KILLED,
            f"kill -9 of the message broker ({broker.pid}), back after {BROKER_GONE_SECONDS:.0f} s",
            down=broker.kill9,
            up=broker.start,
            gone_seconds=BROKER_GONE_SECONDS,
        )
