"""What a process measures of sagas: those that are not over, and how long each took that has ended here."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import text

from backend.messages.orders import SagaStyle
from backend.shared import Side, Unit, UnitOfWork
from backend.shared.events.saga import SagaState
from backend.shared.events.watch import COUNT_LIMIT
from backend.shared.observability.metrics import Metrics

from ..core.dual_write_manager import OrderDualWriteManager
from ..models import MIRRORS, SAGA_IS_OPEN, sagas
from .saga_endings import Ended, noting

T = TypeVar("T")
LOOK_SECONDS = 5.0
OPEN_STATES = tuple(state for state in SagaState if not state.is_final)


class SagaWatch:
    """A part of the running service. `run_unit` runs units of work, and counts the sagas that ended in them."""

    def __init__(self, manager: OrderDualWriteManager, metrics: Metrics) -> None:
        self._manager = manager
        self._metrics = metrics.messages
        metrics.declare(
            manager.service,
            sagas=[(style.value, state.value) for style in SagaStyle for state in SagaState],
        )

    async def run_unit(self, operation: str, unit: Unit[T]) -> T:
        """As the manager's. Of a unit that is run again, the last run counts."""
        noted: list[Ended] = []

        async def watched(work: UnitOfWork) -> T:
            with noting(noted):
                return await unit(work)

        found = await self._manager.run_unit(operation, watched)
        for item in noted:
            self._metrics.saga_finished(
                service=self._manager.service,
                style=item.style.value,
                state=item.state.value,
                seconds=item.seconds,
            )
        return found

    async def look(self) -> None:
        """Count those that are not over. Raises what the database does when it does not answer."""
        side = self._manager.phase.policy.authoritative
        table = sagas if side is Side.NEW else MIRRORS.twin(sagas)
        query = text(
            "SELECT style, state, count(*) AS found, "
            "extract(epoch FROM clock_timestamp() - min(started_at))::float8 AS age "
            f"FROM (SELECT style, state, started_at FROM {table.fullname} WHERE {SAGA_IS_OPEN} "
            f"ORDER BY started_at LIMIT {COUNT_LIMIT}) AS open GROUP BY style, state"
        )
        async with self._manager.runtime.engines[side].connect() as connection:
            rows = {(row.style, row.state): row for row in await connection.execute(query)}
        for style in SagaStyle:
            for state in OPEN_STATES:
                row = rows.get((style.value, state.value))
                self._metrics.sagas_measured(
                    service=self._manager.service,
                    style=style.value,
                    state=state.value,
                    open_count=row.found if row else 0,
                    age_seconds=row.age if row else 0.0,
                )
