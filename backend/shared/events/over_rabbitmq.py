"""Messages over RabbitMQ (3.10 or newer): one topic exchange for all services, one quorum queue for each consumer.

A queue holds what comes while it is there, and RabbitMQ has nothing for who comes later. What nobody listens to goes to a queue of its
own, out of which whoever begins to listen has it sent once more (`rabbitmq_unheard`). So services may be started in any order.
But of a kind that some consumer listens to already, another that begins later gets what is told from then on, and no more: a read model
is filled by `tandem events rebuild`. Publishers could declare the queues of all consumers that they know; then each service would have
to know who listens to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from faststream import AckPolicy
from faststream.rabbit import (
    Channel,
    ExchangeType,
    QueueType,
    RabbitBroker,
    RabbitExchange,
    RabbitMessage,
    RabbitQueue,
)
from yarl import URL

from backend.shared.domain.errors import AwayError

from .envelope import Envelope, Message
from .rabbitmq_unheard import tell_again
from .transport import CONNECTED_SECONDS, NAME, SILENT_SECONDS, TAKEN_AT_ONCE, Take, as_it_came

UNHEARD_COUNT = 10_000
"""So many messages that nobody listens to are kept; the oldest go first."""
PUBLISH_SECONDS = 10.0
RECONNECT_SECONDS = 1.0
_NO_LIMIT = 2**31 - 1
"""Newer servers throw away what was given back 20 times, unless told otherwise. A message of ours waits for as long as it takes."""


class RabbitTransport:
    """A durable topic exchange, and quorum queues. Implements `Transport`.

    Everything of it is declared by whoever starts, publisher or consumer, and again after the broker was away.
    RabbitMQ does not know a message that it has had before: one that was published twice comes twice.

    A kind of messages that a consumer has listened to still comes to it when it no longer does: its queue stays bound.
    """

    def __init__(self, url: str, *, name: str = NAME, silent_seconds: float = SILENT_SECONDS) -> None:
        self._name = name
        self._unheard = RabbitExchange(f"{name}.unheard", type=ExchangeType.FANOUT, durable=True)
        self._unheard_queue = RabbitQueue(
            f"{name}.unheard",
            queue_type=QueueType.QUORUM,
            arguments={"x-delivery-limit": _NO_LIMIT, "x-max-length": UNHEARD_COUNT},
        )
        self._exchange = RabbitExchange(
            name,
            type=ExchangeType.TOPIC,
            durable=True,
            arguments={"alternate-exchange": self._unheard.name},
        )
        self._queues: list[tuple[RabbitQueue, list[str]]] = []
        # The server gives a client up that has missed two heartbeats.
        heartbeat = {"heartbeat": str(max(1, int(silent_seconds / 2)))}
        parsed = URL(url)
        self.broker = RabbitBroker(
            parsed.with_query(heartbeat | dict(parsed.query)),
            logger=None,
            decoder=as_it_came,
            apply_types=False,
            reconnect_interval=RECONNECT_SECONDS,
            # A message that no queue takes is returned; but one does, unless somebody has removed it.
            default_channel=Channel(prefetch_count=TAKEN_AT_ONCE, on_return_raises=True),
        )

    async def start(self) -> None:
        """Connect, declare what is not there, and begin to take in."""
        connection = await self.broker.connect()
        unheard = await self.broker.declare_queue(self._unheard_queue)
        await unheard.bind(await self.broker.declare_exchange(self._unheard))
        exchange = await self.broker.declare_exchange(self._exchange)
        for queue, subjects in self._queues:
            declared = await self.broker.declare_queue(queue)
            for subject in subjects:
                await declared.bind(exchange, routing_key=subject)
        await self.broker.start()
        if self._queues:
            await tell_again(connection, unheard=self._unheard_queue.name, exchange=self._exchange.name)

    async def stop(self) -> None:
        """Finish what is in hand and disconnect."""
        await self.broker.stop()

    async def ping(self) -> None:
        """Opens a channel, and closes it: a server that stands still has its connection open."""
        if not await self.broker.ping(timeout=CONNECTED_SECONDS):
            raise AwayError("there is no connection to the broker")
        async with (await self.broker.connect()).channel():
            pass

    async def mend(self) -> None:
        """The driver does so, whenever it connects anew."""

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        """Returns when the queues of all who listen have kept the message, on disk."""
        async with asyncio.timeout(PUBLISH_SECONDS):
            await self.broker.publish(
                body,
                exchange=self._exchange,
                routing_key=envelope.subject,
                persist=True,
                mandatory=True,
                message_id=f"{envelope.id}{again}",
                content_type="application/json",
                headers=dict(envelope.trace),
                correlation_id=envelope.correlation_id,
            )

    def subscribe(self, consumer: str, messages: Collection[type[Message]], take: Take) -> None:
        """See `Transport`."""
        subjects = sorted(message.subject() for message in messages)
        queue = RabbitQueue(
            f"{self._name}.{consumer}",
            queue_type=QueueType.QUORUM,
            routing_key=subjects[0],
            arguments={"x-delivery-limit": _NO_LIMIT},
        )
        self._queues.append((queue, subjects))

        @self.broker.subscriber(queue, self._exchange, ack_policy=AckPolicy.NACK_ON_ERROR)
        async def _(message: RabbitMessage) -> None:
            await take(message.body)
