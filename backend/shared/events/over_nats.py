"""Messages over NATS JetStream: one stream for all services, one durable consumer for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, ConnectionReconnectingError
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from backend.shared.domain.errors import AwayError

from .envelope import Envelope, Message
from .nats_pulling import PatientPull
from .nats_stream import ensure_consumer, ensure_stream
from .transport import CONNECTED_SECONDS, NAME, SILENT_SECONDS, TAKEN_AT_ONCE, Take, as_it_came

MESSAGE_ID = "Nats-Msg-Id"
"""JetStream drops a message that bears the id of one that it has kept a moment ago."""
FETCH_SECONDS = 1.0
ANSWER_SECONDS = 1.5

log = structlog.get_logger(__name__)


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
        self._is_started = False
        self._consumers: list[ConsumerConfig] = []
        self._subscribers: list[Any] = []  # FastStream says no more of what it reads its messages from

    async def start(self) -> None:
        """Connect, make the stream if there is none, and begin to take in. A stream that is there keeps its limits and replicas.

        Raises `AwayError`, or what the driver does, while JetStream does not answer.
        """
        self._client = await self.broker.connect()
        client = self._connected()
        jetstream = client.jetstream()
        await ensure_stream(jetstream, self._stream.name)
        for consumer in self._consumers:
            # One that is there since an earlier version of the service does not hear what that did not know.
            await jetstream.add_consumer(self._stream.name, config=consumer)
        await self.broker.start()
        for subscriber in self._subscribers:
            subscriber.subscription = PatientPull(subscriber.subscription, client)
        self._is_started = True

    async def stop(self) -> None:
        """Finish what is in hand and disconnect."""
        self._is_started = False
        with suppress(ConnectionReconnectingError, ConnectionClosedError):  # nobody there to say good-bye to
            await self.broker.stop()
        if self._client is not None:
            with suppress(ConnectionError):  # nor to take what was not sent yet
                await self._client.close()

    async def ping(self) -> None:
        """Asks JetStream itself for the stream: a server that stands still has its connection open, one that lost its disk answers."""
        if not await self.broker.ping(timeout=CONNECTED_SECONDS):
            raise AwayError("there is no connection to the broker")
        try:
            await self.broker.connection.jetstream(timeout=ANSWER_SECONDS).stream_info(self._stream.name)
        except NotFoundError as error:
            raise AwayError("the stream is not there") from error

    async def mend(self) -> None:
        """Make stream and consumers again where a server has come back without its disk, or somebody has deleted them.

        What was in the stream is gone. A consumer that is made again gets all that the stream still has. Raises `AwayError` where
        JetStream refuses, or does not answer.
        """
        if not self._is_started or not self._is_connected:
            return
        jetstream = self._connected().jetstream(timeout=ANSWER_SECONDS)
        stream = self._stream.name
        try:
            if await ensure_stream(jetstream, stream):
                log.error("stream_made_again", stream=stream)
            for consumer in self._consumers:
                # Only where it is missing: a later version of the service, beside this one, has told what it hears.
                if await ensure_consumer(jetstream, stream, consumer):
                    log.error("consumer_made_again", stream=stream, consumer=consumer.durable_name)
        except NatsError as error:
            raise AwayError(f"JetStream cannot be looked at: {type(error).__name__}") from error

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        """Returns when the stream has kept the message. Raises `AwayError` at once where there is no connection.

        The client would keep every try until there is one, or until it has no more room.
        """
        self._connected()
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

        subscriber = self.broker.subscriber(
            "",
            stream=self._stream,
            durable=consumer,
            config=config,
            pull_sub=PullSub(batch_size=TAKEN_AT_ONCE, timeout=FETCH_SECONDS),
            max_workers=TAKEN_AT_ONCE,
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        self._subscribers.append(subscriber)

        @subscriber
        async def _(message: NatsMessage) -> None:
            async with self._in_hand(message):
                await take(message.body)

    @asynccontextmanager
    async def _in_hand(self, message: NatsMessage) -> AsyncIterator[None]:
        """It may take long, as while a database is away: meanwhile nobody else is to get it."""

        async def say() -> None:
            while True:
                await asyncio.sleep(self._silent_seconds / 3)
                await self._say_in_hand(message)

        saying = asyncio.ensure_future(say())
        try:
            yield
        finally:
            saying.cancel()

    async def _say_in_hand(self, message: NatsMessage) -> None:
        if self._is_connected:
            with suppress(NatsError):  # the server is away: it will bring the message again
                await message.in_progress()

    @property
    def _is_connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    def _connected(self) -> Client:
        """Raises `AwayError` where there is no connection."""
        if self._client is None or not self._client.is_connected:
            raise AwayError("there is no connection to the broker")
        return self._client
