"""Delivers what is recorded to the message broker, for as long as the process runs. Several processes share the work."""

from __future__ import annotations

import json
from collections.abc import Callable

import structlog
from faststream_outbox import ExponentialRetry, OutboxBroker, OutboxMessage
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.database import engine_beside
from backend.shared.observability.labels import DeliveryOutcome
from backend.shared.observability.seldom import Seldom
from backend.shared.observability.tracing import SpanKind, current_trace, span

from .dead_letters import REPLAYED
from .envelope import Envelope
from .outbox import envelope_of
from .tables import EventTables
from .transport import Publisher, Transport

FETCHED_AT_ONCE = 100
AT_ONCE = 3
"""So many messages are on their way to the broker side by side, each over a connection to the database that ends its row."""
ENDED_AT_ONCE = 100
"""So many rows are ended by one statement. They come again where a process is killed before it, and are dropped or taken in once."""
LEAST_SECONDS = 0.05
"""The outbox is looked at no more often; a NOTIFY wakes whoever waits."""
MOST_SECONDS = 2.0
LEASE_SECONDS = 30.0
"""A row that a process took and did not end is free again after so long."""

_failures = Seldom(60.0)
log = structlog.get_logger(__name__)

OnDelivery = Callable[[Envelope, DeliveryOutcome], None]


def not_counted(_envelope: Envelope, _outcome: DeliveryOutcome) -> None:
    """Nobody wants to hear of it."""


class Delivery:
    """Delivers from one side. At least once, whatever is killed in between, for as long as it takes.

    Over connections of its own to the database of `engine`: one to look, one to end rows for each that is on its way, one to be woken.
    `on_delivery` is told what became of each try.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        tables: EventTables,
        transport: Transport,
        *,
        on_delivery: OnDelivery = not_counted,
    ) -> None:
        self._engine = engine_beside(engine, pool_size=1 + AT_ONCE)
        self._broker = OutboxBroker(
            self._engine,
            outbox_table=tables.outbox,
            dlq_table=tables.undelivered,
            logger=None,
            apply_types=False,
        )

        # No bound on the attempts: a broker may be away for a week-end.
        @self._broker.subscriber(
            tables.queue,
            fetch_batch_size=FETCHED_AT_ONCE,
            max_workers=AT_ONCE,
            terminal_flush_batch_size=ENDED_AT_ONCE,
            decoder=as_it_came,
            min_fetch_interval=LEAST_SECONDS,
            max_fetch_interval=MOST_SECONDS,
            lease_ttl_seconds=LEASE_SECONDS,
            retry_strategy=ExponentialRetry(
                initial_delay_seconds=0.1, max_delay_seconds=MOST_SECONDS, jitter_factor=0.2
            ),
        )
        async def deliver(message: OutboxMessage) -> None:
            again = str(message.headers.get(REPLAYED, ""))
            await publish(transport, message.body, again=again, on_delivery=on_delivery)

    async def start(self) -> None:
        """Begin. A database that does not answer is tried again in the background."""
        await self._broker.start()

    async def stop(self) -> None:
        """Finish what is in hand. May be repeated."""
        await self._broker.stop()
        await self._engine.dispose()


async def as_it_came(message: OutboxMessage) -> OutboxMessage:
    """The handler is called with the message itself."""
    return message


async def publish(
    publisher: Publisher, body: bytes, *, again: str = "", on_delivery: OnDelivery = not_counted
) -> None:
    """Publish what was recorded. Where this process traces, whoever takes it in continues from here."""
    envelope = envelope_of(body)
    kind = SpanKind.PRODUCER
    with span(f"publish {envelope.subject}", envelope.attributes(), kind=kind, parent=envelope.trace):
        if trace := current_trace():
            envelope = envelope.model_copy(update={"trace": trace})
            # Not made anew from the envelope: a later version may have recorded more than this one knows.
            body = json.dumps(json.loads(body) | {"trace": trace}).encode()
        try:
            await publisher.publish(envelope, body, again=again)
        except Exception as error:
            on_delivery(envelope, DeliveryOutcome.FAILED)
            if (left_out := _failures.left_out()) is not None:
                log.warning(
                    "delivery_failed",
                    subject=envelope.subject,
                    error=type(error).__name__,
                    left_out=left_out,
                )
            raise
        on_delivery(envelope, DeliveryOutcome.DELIVERED)
