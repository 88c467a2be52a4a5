"""Looks for sagas that have waited too long, and moves them on. Any number of processes may do so."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from backend.shared import TandemError, UnitOfWork

from ..core.dual_write_manager import OrderDualWriteManager
from ..repositories import Overdue, SagaRepository
from .order_desk import OrderDesk

LOOK_SECONDS = 1.0
AT_ONCE = 100

log = structlog.get_logger(__name__)


class Deadlines:
    """What is to be done about them; `look` is called again and again."""

    def __init__(self, manager: OrderDualWriteManager, desk: OrderDesk) -> None:
        self._manager = manager
        self._desk = desk

    async def look(self) -> int:
        """Move on what has waited too long; answers how many were found."""
        count, after = 0, None
        while found := await self._overdue(after):
            for late in found:
                await self._one(late.order_id)
            # One that cannot be moved keeps nobody behind it waiting.
            count, after = count + len(found), found[-1]
        return count

    async def _overdue(self, after: Overdue | None) -> list[Overdue]:
        async def unit(work: UnitOfWork) -> list[Overdue]:
            return await SagaRepository(work).overdue(datetime.now(UTC), after=after, limit=AT_ONCE)

        # Not a read of somebody's: those are held against the other side, and counted for a gate.
        return await self._manager.run_unit("overdue_sagas", unit)

    async def _one(self, number: int) -> None:
        try:
            result = await self._manager.write("late_saga", lambda work: self._desk.late(work, number))
            result.unwrap()
        except TandemError as error:
            log.warning("late_saga_not_moved", order_id=number, error=str(error))
