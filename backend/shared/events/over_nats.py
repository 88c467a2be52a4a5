"""Messages over NATS JetStream: one stream for all services, one durable consumer for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, ConnectionReconnectingError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy, RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError

from backend.shared.domain.errors import AwayError

from .envelope import Envelope, Message
from .transport import CONNECTED_SECONDS, NAME, SILENT_SECONDS, TAKEN_AT_ONCE, Take, as_it_came

SUBJECTS = ("events.>", "commands.>")
MESSAGE_ID = "Nats-Msg-Id"
"""JetStream drops a message that bears the id of one that it has kept a moment ago."""
KEPT_SECONDS = 14 * 86_400.0
"""So long a stream that is made here keeps messages, for a consumer that is away or begins later."""
FETCH_SECONDS = 1.0
ANSWER_SECONDS = 1.5


class NatsTransport:
    """JetStream. Implements `Transport`."""

    def __init__(self, url: str, *, stream: str = NAME, silent_seconds: float = SILENT_SECONDS) -> None:
        self.broker = NatsBroker(
            url,
            logger=None,
            decoder=as_it_came,
            apply_types=False,
            max_reconnect_attempts=-1,
            allow_reconnect=True,
        )
        self._stream = JStream(stream, declare=False)
        self._silent_seconds = silent_seconds
        self._client: Client | None = None
        self._consumers: list[ConsumerConfig] = []

    async def start(self) -> None:
        """Connect, make the stream if there is none, and begin to take in. A stream that is there keeps its limits and replicas."""
        self._client = await self.broker.connect()
        jetstream = self._client.jetstream()
        await _ensure_stream(jetstream, self._stream.name)
        for consumer in self._consumers:
            # One that is there since an earlier version of the service does not hear what that did not know.
            await jetstream.add_consumer(self._stream.name, config=consumer)
        await self.broker.start()

    async def stop(self) -> None:
        """Finish what is in hand and disconnect."""
        with suppress(ConnectionReconnectingError, ConnectionClosedError):  # nobody there to say good-bye to
            await self.broker.stop()
        if self._client is not None:
            await self._client.close()

    async def ping(self) -> None:
        """A request to JetStream itself: a server that stands still has its connection open."""
        if not await self.broker.ping(timeout=CONNECTED_SECONDS):
            raise AwayError("there is no connection to the broker")
        await self.broker.connection.jetstream(timeout=ANSWER_SECONDS).account_info()

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        """Returns when the stream has kept the message."""
        await self.broker.publish(
            body,
            subject=envelope.subject,
            stream=self._stream.name,
            headers={
                MESSAGE_ID: f"{envelope.id}{again}",
                "content-type": "application/json",
                **envelope.trace,
            },
            correlation_id=envelope.correlation_id,
        )

    def subscribe(self, consumer: str, messages: Collection[type[Message]], take: Take) -> None:
        """See `Transport`."""
        config = ConsumerConfig(
            name=consumer,
            durable_name=consumer,
            filter_subjects=sorted(message.subject() for message in messages),
            ack_wait=self._silent_seconds,
            deliver_policy=DeliverPolicy.ALL,
        )
        self._consumers.append(config)

        @self.broker.subscriber(
            "",
            stream=self._stream,
            durable=consumer,
            config=config,
            pull_sub=PullSub(batch_size=TAKEN_AT_ONCE, timeout=FETCH_SECONDS),
            max_workers=TAKEN_AT_ONCE,
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        async def _(message: NatsMessage) -> None:
            async with self._in_hand(message):
                await take(message.body)

    @asynccontextmanager
    async def _in_hand(self, message: NatsMessage) -> AsyncIterator[None]:
        """It may take long, as while a database is away: meanwhile nobody else is to get it."""

        async def say() -> None:
            while True:
                await asyncio.sleep(self._silent_seconds / 3)
                with suppress(NatsError):  # the server is away: it will bring the message again
                    await message.in_progress()

        saying = asyncio.ensure_future(say())
        try:
            yield
        finally:
            saying.cancel()


async def _ensure_stream(jetstream: JetStreamContext, name: str) -> None:
    try:
        there = await jetstream.stream_info(name)
    except NotFoundError:
        await jetstream.add_stream(
            StreamConfig(
                name=name,
                subjects=list(SUBJECTS),
                retention=RetentionPolicy.LIMITS,
                max_age=KEPT_SECONDS,
            )
        )
        return
    if missing := sorted(set(SUBJECTS) - set(there.config.subjects or ())):
        await jetstream.update_stream(
            there.config.evolve(subjects=[*(there.config.subjects or ()), *missing])
        )
