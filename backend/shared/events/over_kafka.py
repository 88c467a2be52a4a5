"""Messages over Kafka: one topic for each kind, one consumer group for each consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from urllib.parse import urlsplit

from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage, Topic

from backend.shared.domain.errors import AwayError, ConfigurationError

from .envelope import Envelope, Message
from .transport import NAME, SILENT_SECONDS, Take, as_it_came

PARTITIONS = 6
"""Of a topic that is made by us: so many processes of one consumer can share the messages of a kind."""
PUBLISH_SECONDS = 10.0
ANSWER_SECONDS = 1.5
_PORT = 9092


class KafkaTransport:
    """Topics `NAME.SUBJECT`, keyed by aggregate. Implements `Transport`.

    Topics that are missing are made, with as many replicas as the brokers' default says; where that is not allowed to us they have to be
    there. How long they keep messages is set there too: a consumer that begins later than that misses the rest.
    Kafka does not know a message that it has had before: one that was published twice comes twice.

    Tried with the cluster that librdkafka brings for tests, never yet with a Kafka.

    One message is taken in at a time by each process: one that cannot be taken in yet holds up all that the process reads, of whatever
    kind and partition. Other processes of the same consumer read other partitions, and go on.
    """

    def __init__(self, url: str, *, name: str = NAME, silent_seconds: float = SILENT_SECONDS) -> None:
        self._name = name
        self._silent_ms = int(silent_seconds * 1000)
        self._known: set[str] = set()
        self.broker = KafkaBroker(
            servers_of(url),
            logger=None,
            decoder=as_it_came,
            apply_types=False,
            acks="all",
            enable_idempotence=True,
            graceful_timeout=15.0,
        )

    async def start(self) -> None:
        """Connect, and begin to take in."""
        try:
            await self.broker.start()
        except BaseException:
            await self.broker.stop()  # one that has half begun would not begin anew
            raise

    async def stop(self) -> None:
        """Finish what is in hand and disconnect."""
        await self.broker.stop()

    async def ping(self) -> None:
        """Asks who is in the cluster."""
        if not await self.broker.ping(timeout=ANSWER_SECONDS):
            raise AwayError("no broker answers")

    async def mend(self) -> None:
        """Nothing to do: a topic is made by whoever publishes to it first."""

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        """Returns when all replicas that are in step have the message."""
        topic = self._topic(envelope.subject)
        async with asyncio.timeout(PUBLISH_SECONDS):
            if topic.name not in self._known:
                # What was refused is told in the answer, not raised. It may be there all the same, or shows in the next line.
                await self.broker.config.admin.create_topics([topic])
            await self.broker.publish(
                body,
                topic=topic.name,
                key=envelope.aggregate_id.encode(),
                headers={
                    "message-id": f"{envelope.id}{again}",
                    "content-type": "application/json",
                    **envelope.trace,
                },
                correlation_id=envelope.correlation_id,
            )
        self._known.add(topic.name)  # it is there: it has kept a message

    def subscribe(self, consumer: str, messages: Collection[type[Message]], take: Take) -> None:
        """See `Transport`."""

        @self.broker.subscriber(
            *(self._topic(subject) for subject in sorted(message.subject() for message in messages)),
            group_id=f"{self._name}.{consumer}",
            auto_offset_reset="earliest",
            session_timeout_ms=self._silent_ms,
            heartbeat_interval_ms=self._silent_ms // 3,
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        async def _(message: KafkaMessage) -> None:
            await take(message.body)

    def _topic(self, subject: str) -> Topic:
        return Topic(f"{self._name}.{subject}", num_partitions=PARTITIONS, replication_factor=-1)


def servers_of(url: str) -> list[str]:
    """The servers that `kafka://host:port[,host:port]` names.

    Raises `ValueError`, or `ConfigurationError` where there is a user in it: connections are made in the clear, without one.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or "@" in parts.path:
        raise ConfigurationError("kafka:// takes no user and password", variable="BROKER_URL")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("more than servers")
    servers = []
    for server in parts.netloc.split(","):
        one = urlsplit(f"//{server}")
        if not one.hostname:
            raise ValueError("a server has no name")
        name = f"[{one.hostname}]" if ":" in one.hostname else one.hostname
        servers.append(f"{name}:{one.port or _PORT}")
    return servers
