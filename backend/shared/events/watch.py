"""What a process measures of messages: what waits for delivery, what was put aside, whether the broker answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.domain.phases import Phase, Side
from backend.shared.observability.labels import BrokerState
from backend.shared.observability.metrics import Metrics
from backend.shared.stores.postgres.projection_sql import table_name

from .tables import EventRoom, EventTables
from .transport import Transport

LOOK_SECONDS = 5.0
PING_SECONDS = 2.0
COUNT_LIMIT = 100_000
"""No queue is counted further."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class OutboxDepth:
    """What waits for delivery on one side, and what was given up. `age_seconds` of the oldest that waits, 0 without any."""

    rows: int
    age_seconds: float
    undelivered: int


async def outbox_depth(connection: AsyncConnection, tables: EventTables) -> OutboxDepth:
    """Look at an outbox, without reading a long one to its end."""
    outbox = table_name(tables.outbox)
    row = (
        await connection.execute(
            text(
                f"SELECT {_counted(tables.outbox)} AS rows, {_counted(tables.undelivered)} AS undelivered, "
                "coalesce(extract(epoch FROM clock_timestamp() - "
                f"(SELECT created_at FROM {outbox} ORDER BY id LIMIT 1)), 0)::float8 AS age"
            )
        )
    ).one()
    return OutboxDepth(rows=row.rows, age_seconds=max(0.0, row.age), undelivered=row.undelivered)


async def open_dead_letters(connection: AsyncConnection, tables: EventTables) -> int:
    """How many messages could not be taken in and were not told anew."""
    found = await connection.execute(text(f"SELECT {_counted(tables.dead, 'replayed_at IS NULL')}"))
    return int(found.scalar_one())


def _counted(table: Table, where: str = "true") -> str:
    return (
        f"(SELECT count(*) FROM (SELECT 1 FROM {table_name(table)} WHERE {where} LIMIT {COUNT_LIMIT}) AS n)"
    )


class MessageWatch:
    """Looks at the databases and the broker, and tells the metrics. `phase` is the one that the process goes by."""

    def __init__(
        self,
        service: str,
        transport: Transport,
        room: EventRoom,
        engines: Mapping[Side, AsyncEngine],
        *,
        phase: Callable[[], Phase],
        metrics: Metrics,
    ) -> None:
        self._service = service
        self._transport = transport
        self._room = room
        self._engines = engines
        self._phase = phase
        self._metrics = metrics.messages
        self._answers: bool | None = None

    async def look(self) -> None:
        """Measure once. What can be looked at is, whatever else is away; raises what a database does then."""
        phase = self._phase()
        looks = [self._broker(), *(self._database(side, phase) for side in self._engines)]
        found = await asyncio.gather(*looks, return_exceptions=True)
        for trouble in found:
            if isinstance(trouble, BaseException):
                raise trouble

    async def ping(self) -> None:
        """Returns when the broker answers in time; raises `TimeoutError`, or what its driver does, when it does not."""
        async with asyncio.timeout(PING_SECONDS):
            await self._transport.ping()

    async def _broker(self) -> None:
        try:
            await self.ping()
        except Exception as error:  # noqa: BLE001 - each driver has its own
            if self._answers is not False:
                log.warning("broker_away", service=self._service, error=type(error).__name__)
            self._answers = False
        else:
            if self._answers is False:
                log.info("broker_answered", service=self._service)
            self._answers = True
        state = BrokerState.CONNECTED if self._answers else BrokerState.AWAY
        self._metrics.broker_seen(service=self._service, state=state)

    async def _database(self, side: Side, phase: Phase) -> None:
        tables = self._room.tables[side]
        if not is_delivered_from(side, phase):
            self._metrics.outbox_let_go(service=self._service, side=side)
            return
        async with self._engines[side].connect() as connection:
            depth = await outbox_depth(connection, tables)
            if side is phase.policy.authoritative:
                count = await open_dead_letters(connection, tables)
                self._metrics.dead_letters_counted(service=self._service, open_count=count)
        self._metrics.outbox_measured(
            service=self._service,
            side=side,
            rows_count=depth.rows,
            age_seconds=depth.age_seconds,
            undelivered_count=depth.undelivered,
        )


def is_delivered_from(side: Side, phase: Phase) -> bool:
    """Whether a side may still have messages that nobody else knows of. Legacy is let go in `complete`."""
    return side is Side.NEW or phase is not Phase.COMPLETE
