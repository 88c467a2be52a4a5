"""What a message says, and what is said about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID, uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_TRACE = {
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,100})?"),
    "tracestate": re.compile(r"[ -~]{1,512}"),
}

_SUBJECT = re.compile(r"(events|commands)(\.[A-Za-z0-9_-]{1,80}){2}")


def _usable_trace(found: object) -> dict[str, str]:
    """What is no trace context is left out: for that no message is refused, and nothing else gets into a broker's headers."""
    given = found if isinstance(found, Mapping) else {}
    return {
        name: given[name]
        for name, pattern in _TRACE.items()
        if isinstance(given.get(name), str) and pattern.fullmatch(given[name])
    }


class Message(BaseModel):
    """What one service tells others. Versions add fields; a reader passes over those that it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    message_type: ClassVar[str]
    version: ClassVar[int] = 1
    aggregate_type: ClassVar[str]
    channel: ClassVar[str]
    """`events`, or `commands`: what a broker tells apart."""

    @property
    def aggregate_id(self) -> str:
        """Of which aggregate it tells."""
        raise NotImplementedError

    @classmethod
    def subject(cls) -> str:
        """Where it is published: `events.order.OrderPlaced`."""
        return f"{cls.channel}.{cls.aggregate_type}.{cls.message_type}"


def message_types() -> frozenset[str]:
    """The types of all messages that this process can know of."""
    found: set[str] = set()
    left = [Message]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if "message_type" in vars(kind):
            found.add(kind.message_type)
    return frozenset(found)


class DomainEvent(Message):
    """Something that has happened to an aggregate."""

    channel: ClassVar[str] = "events"


class Command(Message):
    """Something that one participant of a saga is asked to do. What comes of it is an event."""

    channel: ClassVar[str] = "commands"


class Envelope(BaseModel):
    """One message on its way. `correlation_id` is that of the whole story, `causation_id` the message that it answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID = Field(default_factory=uuid4)
    subject: str
    type: str
    version: int = Field(ge=1)
    aggregate_type: str
    aggregate_id: str
    correlation_id: str
    causation_id: UUID | None = None
    occurred_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    position: tuple[int, int] | None = None
    """Epoch of the side that it was recorded on, and microseconds of that server's clock: of two messages about one aggregate,
    recorded while its row was held, the later has the greater."""
    trace: Annotated[Mapping[str, str], BeforeValidator(_usable_trace)] = Field(default_factory=dict)
    """The trace context of whoever recorded it, or delivered it (W3C: `traceparent`, `tracestate`)."""
    data: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        message: Message,
        *,
        correlation_id: str,
        causation_id: UUID | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Self:
        """`message`, to be sent."""
        return cls(
            subject=message.subject(),
            type=message.message_type,
            version=message.version,
            aggregate_type=message.aggregate_type,
            aggregate_id=message.aggregate_id,
            correlation_id=correlation_id,
            causation_id=causation_id,
            trace=trace or {},
            data=message.model_dump(mode="json"),
        )

    @property
    def is_addressed(self) -> bool:
        """Whether every broker would publish it where its subject says."""
        return _SUBJECT.fullmatch(self.subject) is not None

    def attributes(self) -> dict[str, str]:
        """What spans say of it, in OpenTelemetry's names."""
        return {
            "messaging.destination.name": self.subject,
            "messaging.message.id": str(self.id),
            "messaging.message.conversation_id": self.correlation_id,
        }
