"""Cuts off what grows with every message at its old end: the inbox, dead letters that were told anew, and, if asked, the record.

Deletes on the authoritative side, in small units of work that any number of processes may do beside each other. While a service
is being moved they are captured and carried like any other change, so each costs a row of the journal and leaves a tombstone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_never

import structlog
from sqlalchemy import Column, delete, func, select, tuple_

from backend.shared.domain.errors import ConfigurationError
from backend.shared.observability.message_metrics import PrunedTable
from backend.shared.observability.metrics import Metrics
from backend.shared.setting_values import number
from backend.shared.unit_of_work import UnitOfWork

from .consumer import RunUnit
from .tables import EventRoom, EventTables

DAY_SECONDS = 86_400.0
LEAST_KEEP_SECONDS = DAY_SECONDS
"""What a broker brings once more comes again within hours. A consumer that was made anew there brings all that the broker keeps,
14 days of it on NATS: who asks for less than that has the effects of what is older again."""
MOST_KEEP_SECONDS = 10 * 365 * DAY_SECONDS
PASS_SECONDS = 600.0
BATCH_ROWS = 500
PAUSE_SECONDS = 0.2
"""Between two batches: time for others, and for whoever carries what was deleted."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class MessageRetention:
    """For how long messages are remembered, in seconds; 0 for ever.

    `inbox_seconds`: a message that is brought again later than that has its effect again, unless its handler knows better: so
    longer than the broker keeps one, or anybody waits with a replay. `event_seconds`: the record, which by default stays, for whoever
    asks later what was told; Debezium has to have read what goes.
    """

    inbox_seconds: float = 30 * DAY_SECONDS
    event_seconds: float = 0.0

    @classmethod
    def from_env(cls, found: Mapping[str, str]) -> MessageRetention:
        """From `MESSAGES_KEEP_SECONDS` and `EVENTS_KEEP_SECONDS`."""
        return cls(
            inbox_seconds=_keep(found, "MESSAGES_KEEP_SECONDS", default=cls.inbox_seconds),
            event_seconds=_keep(found, "EVENTS_KEEP_SECONDS", default=cls.event_seconds),
        )


def _keep(found: Mapping[str, str], variable: str, *, default: float) -> float:
    value = number(found, variable)
    if value is None:
        return default
    if value != 0 and not LEAST_KEEP_SECONDS <= value <= MOST_KEEP_SECONDS:
        raise ConfigurationError(
            f"must be 0, for ever, or a number of seconds from {LEAST_KEEP_SECONDS:g} to {MOST_KEEP_SECONDS:g}",
            variable=variable,
        )
    return value


class Pruning:
    """Of one service. `run` runs its units of work, so that they go to the side that has the authority."""

    def __init__(
        self, service: str, room: EventRoom, run: RunUnit, *, retention: MessageRetention, metrics: Metrics
    ) -> None:
        self._service = service
        self._room = room
        self._run = run
        self._retention = retention
        self._metrics = metrics.messages

    async def run(self) -> None:
        """Delete all that is old enough. May be repeated, and ended at any time; raises `SideError` for trouble with a database."""
        keep = self._retention
        if keep.inbox_seconds:
            await self._table(PrunedTable.INBOX, keep.inbox_seconds)
            await self._table(PrunedTable.DEAD_LETTER, keep.inbox_seconds)
        if keep.event_seconds:
            await self._table(PrunedTable.EVENT, keep.event_seconds)

    async def _table(self, which: PrunedTable, seconds: float) -> None:
        async def unit(work: UnitOfWork) -> int:
            return await _delete_batch(work, self._room.tables[work.side], which, seconds)

        total = 0
        while True:
            count = await self._run(f"prune_{which.value}", unit)
            self._metrics.rows_pruned(service=self._service, table=which, rows_count=count)
            total += count
            if count < BATCH_ROWS:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        if total:
            log.info("messages_pruned", service=self._service, table=which.value, rows=total)


async def _delete_batch(work: UnitOfWork, tables: EventTables, which: PrunedTable, seconds: float) -> int:
    """Delete a batch of the oldest; answers how many. What another process is deleting is left to it."""
    at = _time_of(tables, which)
    table, key = at.table, list(at.table.primary_key.columns)
    old = (
        select(*key)
        # Not `clock_timestamp()`, which may change from row to row: no index could be asked for what is older.
        .where(at < func.now() - timedelta(seconds=seconds))
        .order_by(at)
        .limit(BATCH_ROWS)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    gone = delete(table).where(tuple_(*key).in_(select(*old.c))).returning(key[0])
    return len((await work.session.execute(gone)).all())


def _time_of(tables: EventTables, which: PrunedTable) -> Column[Any]:
    """What its rows are old by. An open dead letter is never old."""
    match which:
        case PrunedTable.INBOX:
            return tables.inbox.c.received_at
        case PrunedTable.DEAD_LETTER:
            return tables.dead.c.replayed_at
        case PrunedTable.EVENT:
            return tables.event.c.recorded_at
        case _:
            assert_never(which)
