"""What one service tells others, and what it hears: the one place that says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from backend.shared.units import Unit

from .consumer import Consumer
from .envelope import Message
from .outbox import Outbox
from .tables import EventRoom

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class MessageApi:
    """The messages of one service, each kind in the order of its subject."""

    service: str
    tells: tuple[type[Message], ...]
    hears: tuple[type[Message], ...]

    @classmethod
    def of(
        cls,
        service: str,
        room: EventRoom,
        *,
        tells: frozenset[type[Message]],
        listen: Callable[[Consumer, Outbox], None],
    ) -> MessageApi:
        """`listen` registers what a running service listens to. Nothing runs: this needs neither broker nor database."""
        consumer = Consumer(service, room, _not_running)
        listen(consumer, Outbox(room, tells=tells))
        return cls(service=service, tells=_in_order(tells), hears=_in_order(consumer.kinds))


async def _not_running(operation: str, unit: Unit[T]) -> T:
    raise NotImplementedError(f"{operation}: this only describes a service")


def _in_order(kinds: frozenset[type[Message]]) -> tuple[type[Message], ...]:
    return tuple(sorted(kinds, key=lambda kind: kind.subject()))
