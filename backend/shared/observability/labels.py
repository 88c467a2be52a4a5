"""The closed sets of metric labels. A value outside of its set is counted as `other`, so no caller can add series."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

OTHER = "other"


class OperationOutcome(StrEnum):
    """How one side ended in one operation."""

    SUCCEEDED = "succeeded"
    PENDING = "pending"
    """Left to the relay."""
    REFUSED = "refused"
    """The side refused the data."""
    UNAVAILABLE = "unavailable"
    """The side could not answer."""
    FENCED = "fenced"
    """The side was closed, or its epoch another one."""
    CANCELLED = "cancelled"
    FAILED = "failed"


class ReadOutcome(StrEnum):
    """Which side answered a read, and why that one."""

    AUTHORITATIVE = "authoritative"
    RAMPED = "ramped"
    """Its key is one of those that are read from the secondary side already."""
    RAMP_PENDING = "ramp_pending"
    """It would have been, but something that it reads was on its way: the authoritative side answered."""
    RAMP_FAILED = "ramp_failed"
    """It would have been, but that side failed, or had no such row: the authoritative side answered."""
    FALLBACK_ERROR = "fallback_error"
    """The authoritative side failed: the other one answered."""
    FALLBACK_MISSING = "fallback_missing"
    """The authoritative side had no such row: the other one answered."""
    FAILED = "failed"
    """No side answered."""


class ShadowOutcome(StrEnum):
    """What became of asking the other side too, after the answer."""

    EQUAL = "equal"
    MISMATCH = "mismatch"
    UNSETTLED = "unsettled"
    """The answers differed, but something was on its way whenever it was looked again."""
    FAILED = "failed"
    """The other side did not answer, or not in time."""
    DROPPED = "dropped"
    """Not asked: enough were being compared, or a side had no connection to spare."""


class RelayOutcome(StrEnum):
    """What became of one key in one relay batch."""

    CARRIED = "carried"
    SKIPPED = "skipped"
    """The guard stood further already."""
    REFUSED = "refused"
    """The target refused this key's data: an attempt."""
    WAITING = "waiting"
    """Not this key's fault; tried again without counting."""


class FailureKind(StrEnum):
    """How a key became FAILED."""

    FIRST = "first"
    AGAIN = "again"
    """It was FAILED already, and was tried once more, by hand or after a change."""


class BreakerState(StrEnum):
    """Whether calls to a side are let through."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Verdict(StrEnum):
    """The validator's answer."""

    EQUAL = "equal"
    DIFFERENT = "different"
    INCOMPLETE = "incomplete"


class DeliveryOutcome(StrEnum):
    """What became of one try to hand a message to the broker."""

    DELIVERED = "delivered"
    FAILED = "failed"
    """The broker did not keep it: tried again."""


class TakingOutcome(StrEnum):
    """What became of one try to take a message in."""

    TAKEN_IN = "taken_in"
    REPEATED = "repeated"
    """Its effect was there already."""
    FAILED = "failed"
    """An attempt: tried again, or put aside."""
    WAITING = "waiting"
    """Not the message's fault; tried again without counting."""
    PUT_ASIDE = "put_aside"
    """Kept as a dead letter."""


class BrokerState(StrEnum):
    """Whether the message broker answers."""

    CONNECTED = "connected"
    AWAY = "away"


class RunKind(StrEnum):
    """What a run of the validator looks at: all keys, those changed since the last full run, or a share of all."""

    FULL = "full"
    CHANGED = "changed"
    SAMPLE = "sample"


def closed(kind: type[StrEnum], value: str) -> str:
    """`value` when it is one of `kind`, else `other`."""
    try:
        return kind(value).value
    except ValueError:
        return OTHER


@dataclass
class ServiceLabels:
    """What one service has declared."""

    operations: set[str] = field(default_factory=set)
    entities: set[str] = field(default_factory=set)
    messages: set[str] = field(default_factory=set)
    sagas: set[tuple[str, str]] = field(default_factory=set)
    enabled: bool = True


class DeclaredLabels:
    """The services of this process, with their operations and entities."""

    def __init__(self) -> None:
        self._services: dict[str, ServiceLabels] = {}

    def declare(
        self,
        service: str,
        *,
        operations: Iterable[str] = (),
        entities: Iterable[str] = (),
        messages: Iterable[str] = (),
        sagas: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Add to the closed sets; may be repeated. `messages` are types, `sagas` pairs of style and state."""
        labels = self._services.setdefault(service, ServiceLabels())
        labels.operations.update(operations)
        labels.entities.update(entities)
        labels.messages.update(messages)
        labels.sagas.update(sagas)

    def set_enabled(self, service: str, *, enabled: bool) -> None:
        """Switch the counting for one service on or off."""
        self._services.setdefault(service, ServiceLabels()).enabled = enabled

    def is_enabled(self, service: str) -> bool:
        labels = self._services.get(service)
        return labels is None or labels.enabled

    def service(self, value: str) -> str:
        return value if value in self._services else OTHER

    def operation(self, service: str, value: str) -> str:
        labels = self._services.get(service)
        return value if labels and value in labels.operations else OTHER

    def entity(self, service: str, value: str) -> str:
        labels = self._services.get(service)
        return value if labels and value in labels.entities else OTHER

    def message(self, service: str, value: str) -> str:
        labels = self._services.get(service)
        return value if labels and value in labels.messages else OTHER

    def saga(self, service: str, style: str, state: str) -> tuple[str, str]:
        labels = self._services.get(service)
        return (style, state) if labels and (style, state) in labels.sagas else (OTHER, OTHER)
