"""The way to the message broker and from it. The URL says which: NATS JetStream, RabbitMQ or Kafka."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from faststream.message import StreamMessage

from backend.shared.domain.errors import ConfigurationError

from .envelope import Envelope, Message

NAME = "tandem"
"""What everything of ours in a broker is called: stream, exchange, queues, topics."""
SILENT_SECONDS = 10.0
"""What a process has taken and not acknowledged comes again, to whoever is there, when it has not been heard of for so long."""
CONNECTED_SECONDS = 0.1
"""A connection that is not there within so long counts as none, where only that is asked."""
TAKEN_AT_ONCE = 4
"""So many messages a process takes in side by side, where the broker lets it."""

_EXTRAS = {"nats": "nats", "amqp": "rabbitmq", "amqps": "rabbitmq", "kafka": "kafka"}
"""Which of the project's extras brings the driver for a scheme."""
_VARIABLE = "BROKER_URL"

Take = Callable[[bytes], Awaitable[None]]
"""Takes one message in. Raises only where it is to come again."""


class Publisher(Protocol):
    """Takes messages to a broker."""

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        """Returns when the broker has kept the message; raises otherwise, and then the broker may have kept it or not.

        A broker may drop what it has kept a moment ago, by the message's id and `again`, which is new whenever a message is told anew.
        """
        ...


class Transport(Publisher, Protocol):
    """A message broker. What was published has been kept by it; what is taken in comes at least once, in no order."""

    async def start(self) -> None:
        """Connect, and begin to take in. Raises, or waits, while the broker does not answer; may be called again then."""
        ...

    async def stop(self) -> None:
        """Finish what is in hand and disconnect. May be repeated."""
        ...

    async def ping(self) -> None:
        """Returns when the broker answers; raises while it does not. Whoever calls it says how long that may take."""
        ...

    async def mend(self) -> None:
        """Make again what of ours the broker has lost. To be called every few seconds; does nothing before `start`, or without connection.

        Raises `AwayError` while that cannot be done.
        """
        ...

    def subscribe(self, consumer: str, messages: Collection[type[Message]], take: Take) -> None:
        """From `start` on: each of `messages` once to one of all processes with this `consumer`, in turn with others.

        Also those that were published before, when nobody listened to them.
        """
        ...


async def as_it_came(message: StreamMessage[Any]) -> StreamMessage[Any]:
    """The decoder of all brokers: handlers get the message itself.

    What a body holds is for `Take` to say: one that is no JSON would come again for ever. And nothing of it is guessed by its types
    (`apply_types` off), which costs more than all else.
    """
    return message


def transport_for(url: str, *, name: str = NAME, silent_seconds: float = SILENT_SECONDS) -> Transport:
    """The transport for a broker's URL; raises `ConfigurationError` for one that is none, or whose driver is missing.

    The error says nothing of what the URL holds: there may be a password in it.
    """
    scheme = url.partition("://")[0]
    if scheme not in _EXTRAS:
        raise ConfigurationError("must begin with nats://, amqp://, amqps:// or kafka://", variable=_VARIABLE)
    try:
        return _made(scheme, url, name=name, silent_seconds=silent_seconds)
    except ImportError as error:
        raise ConfigurationError(
            f"the driver for {scheme} is not installed: install the extra '{_EXTRAS[scheme]}'",
            variable=_VARIABLE,
        ) from error
    except ValueError:
        # The cause quotes the URL, or the piece of a password that it took for the port.
        raise ConfigurationError(f"is no URL of a {_EXTRAS[scheme]} broker", variable=_VARIABLE) from None


# Imported when asked for: the drivers of the others may not be there.
def _made(scheme: str, url: str, *, name: str, silent_seconds: float) -> Transport:
    if scheme == "nats":
        from .over_nats import NatsTransport  # noqa: PLC0415

        return NatsTransport(url, stream=name, silent_seconds=silent_seconds)
    if scheme == "kafka":
        from .over_kafka import KafkaTransport  # noqa: PLC0415

        return KafkaTransport(url, name=name, silent_seconds=silent_seconds)
    from .over_rabbitmq import RabbitTransport  # noqa: PLC0415

    return RabbitTransport(url, name=name, silent_seconds=silent_seconds)
