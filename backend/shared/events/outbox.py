"""Messages are recorded in the transaction of the change that they tell of, and delivered from there (decision 21)."""

from __future__ import annotations

from collections.abc import Collection
from uuid import uuid4

from faststream_outbox import OutboxBroker
from sqlalchemy import TextClause, text

from backend.shared.observability.tracing import TraceContext, current_trace, span
from backend.shared.stores.postgres.projection_sql import table_name
from backend.shared.unit_of_work import UnitOfWork

from .cause import current_cause
from .delivered_by import DeliveredBy
from .envelope import Envelope, Message
from .tables import EventRoom, EventTables


class Outbox:
    """What one service has to tell: messages of the kinds `tells`, and no others. `record` is all that a unit of work calls."""

    def __init__(
        self,
        room: EventRoom,
        *,
        tells: Collection[type[Message]],
        delivered_by: DeliveredBy = DeliveredBy.OUTBOX,
    ) -> None:
        self._room = room
        self._tells = frozenset(tells)
        self._is_queued = delivered_by is DeliveredBy.OUTBOX
        self._brokers = {
            side: OutboxBroker(outbox_table=tables.outbox, logger=None)
            for side, tables in room.tables.items()
        }
        self._statements = {side: _record_sql(tables) for side, tables in room.tables.items()}

    async def record(
        self,
        work: UnitOfWork,
        message: Message,
        *,
        correlation_id: str | None = None,
        trace: TraceContext | None = None,
    ) -> Envelope:
        """Keep a message, and the task to deliver it unless somebody else does, in the transaction of `work`.

        It belongs to the story `correlation_id`; without one to that of the message that is being taken in, or to a new one.
        In a process that does not trace it takes on the `trace` of its story, or of that message: others may.
        Raises `ValueError` for a kind that the service has not said it tells: nobody would know of it.
        """
        if type(message) not in self._tells:
            raise ValueError(f"{type(message).__name__} is not among the messages that this service tells")
        cause = current_cause()
        correlation_id = correlation_id or (cause.correlation_id if cause else str(uuid4()))
        subject = message.subject()
        with span(f"record {subject}", {}) as recorded:
            made = Envelope.of(
                message,
                correlation_id=correlation_id,
                causation_id=cause.id if cause else None,
                trace=current_trace() or trace or (cause.trace if cause else None),
            )
            recorded.note(made.attributes())
            return await self._keep(work, made)

    async def _keep(self, work: UnitOfWork, made: Envelope) -> Envelope:
        row = (
            await work.session.execute(
                self._statements[work.side],
                {
                    "id": str(made.id),
                    "aggregatetype": made.aggregate_type,
                    "aggregateid": made.aggregate_id,
                    "type": made.type,
                    "subject": made.subject,
                    "payload": made.model_dump_json(exclude={"position"}),
                },
            )
        ).one()
        envelope = made.model_copy(update={"position": (row.epoch, row.microseconds)})
        if self._is_queued:
            await self._brokers[work.side].publish(
                envelope.model_dump_json().encode(),
                queue=self._room.tables[work.side].queue,
                session=work.session,
                correlation_id=envelope.correlation_id,
            )
        return envelope


def _record_sql(tables: EventTables) -> TextClause:
    """One statement, so that the position is of the moment in which the row is held."""
    epoch = f"(SELECT epoch FROM {tables.mark})" if tables.mark else "0"
    return text(
        "WITH now AS (SELECT t AS at, (extract(epoch FROM t) * 1000000)::bigint AS microseconds, "
        f"{epoch}::bigint AS epoch FROM clock_timestamp() AS t) "
        f"INSERT INTO {table_name(tables.event)} (id, aggregatetype, aggregateid, type, subject, payload, "
        "recorded_at) SELECT CAST(:id AS uuid), :aggregatetype, :aggregateid, :type, :subject, CAST(:payload AS jsonb) || "
        "jsonb_build_object('position', jsonb_build_array(now.epoch, now.microseconds)), now.at FROM now "
        "RETURNING (payload #>> '{position,0}')::bigint AS epoch, (payload #>> '{position,1}')::bigint AS microseconds"
    )


def envelope_of(body: bytes | str) -> Envelope:
    """The message in a body that `record` has made."""
    return Envelope.model_validate_json(body)
