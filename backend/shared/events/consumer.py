"""Takes messages in: each handler's effect, and the note that it has been, in one transaction."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, cast
from uuid import UUID, uuid5

import structlog
from pydantic import ValidationError as InvalidError
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from backend.shared.domain.errors import AwayError, SideError
from backend.shared.observability.labels import TakingOutcome
from backend.shared.observability.metrics import Metrics, default_metrics
from backend.shared.observability.tracing import SpanKind, span
from backend.shared.unit_of_work import UnitOfWork
from backend.shared.units import Unit

from .cause import caused_by
from .envelope import Envelope, Message
from .inbox import Inbox
from .tables import EventRoom
from .transport import Transport

M = TypeVar("M", bound=Message)
T = TypeVar("T")
Handler = Callable[[UnitOfWork, M], Awaitable[None]]

ATTEMPTS = 5
"""So often a message is tried before it is put aside."""
DELAY_SECONDS = 0.1
"""Between the first two; twice as long each time."""
MOST_DELAY_SECONDS = 5.0
_UNREADABLE = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")

log = structlog.get_logger(__name__)


class RunUnit(Protocol):
    """Runs a unit of work in one transaction; raises `SideError` where the database cannot be reached."""

    async def __call__(self, operation: str, unit: Unit[T]) -> T: ...


@dataclass(frozen=True, kw_only=True)
class _Subscription:
    kind: type[Message]
    handler: Handler[Any]


class Consumer:
    """The messages that one service listens to. Register handlers before `listen`.

    A handler may be called again for the same message, in a fresh transaction, as long as none was committed. What it raises is
    tried again, and a message that fails `ATTEMPTS` times is kept as a dead letter; while a database or `AwayError` says that something is away, it waits instead.
    """

    def __init__(
        self, service: str, room: EventRoom, run: RunUnit, *, metrics: Metrics | None = None
    ) -> None:
        self.service = service
        self.metrics = metrics or default_metrics()
        self.run = run
        self._room = room
        self.metrics.declare(service)
        self._inbox = Inbox(room, consumer=service)
        self._subscriptions: dict[str, _Subscription] = {}

    def on(self, kind: type[M]) -> Callable[[Handler[M]], Handler[M]]:
        """Decorates the handler of a kind of message. One each."""

        def register(handler: Handler[M]) -> Handler[M]:
            if kind.subject() in self._subscriptions:
                raise ValueError(f"{self.service} handles {kind.subject()} already")
            self._subscriptions[kind.subject()] = _Subscription(kind=kind, handler=handler)
            self.metrics.declare(self.service, messages=[kind.message_type])
            return handler

        return register

    @property
    def kinds(self) -> frozenset[type[Message]]:
        """What there are handlers for."""
        return frozenset(subscription.kind for subscription in self._subscriptions.values())

    def hears(self, subject: str) -> bool:
        """Whether there is a handler for a subject."""
        return subject in self._subscriptions

    def listen(self, transport: Transport) -> None:
        """Take in over `transport` from its start on."""
        if self._subscriptions:
            kinds = [subscription.kind for subscription in self._subscriptions.values()]
            transport.subscribe(self.service, kinds, self.take)

    async def take(self, body: bytes) -> None:
        """Take one message in. Returns when its effect, or its dead letter, is committed."""
        try:
            envelope = Envelope.model_validate_json(body)
            subscription = self._subscriptions[envelope.subject]
        except (InvalidError, KeyError) as error:
            await self._put_aside(_unreadable(body), error, attempts=1)
            return
        told = {**envelope.attributes(), "messaging.consumer.group.name": self.service}
        with span(f"take {envelope.subject}", told, kind=SpanKind.CONSUMER, parent=envelope.trace) as taken:
            error_type = await self._take(envelope, subscription)
            if error_type is not None:
                taken.failed(error_type)

    async def _take(self, envelope: Envelope, subscription: _Subscription) -> str | None:
        """Until its effect, or its dead letter, is committed; answers the type of the error that it was put aside for."""
        attempts, delay = 0, DELAY_SECONDS
        while True:
            began = time.perf_counter()
            try:
                is_new = await self._effect(envelope, subscription)
            except Exception as error:  # noqa: BLE001 - whatever it is, the message is tried again or put aside
                away = _is_away(error)
                attempts += not away
                outcome = TakingOutcome.WAITING if away else TakingOutcome.FAILED
                self._count(envelope, outcome, seconds=time.perf_counter() - began)
                log.warning(
                    "message_failed",
                    consumer=self.service,
                    message_type=envelope.type,
                    message_id=str(envelope.id),
                    attempts=attempts,
                    error=f"{type(error).__name__}: {error}",
                )
                if attempts >= ATTEMPTS:
                    await self._put_aside(envelope, error, attempts=attempts)
                    return type(error).__name__
            else:
                outcome = TakingOutcome.TAKEN_IN if is_new else TakingOutcome.REPEATED
                self._count(envelope, outcome, seconds=time.perf_counter() - began)
                return None
            await asyncio.sleep(delay)
            delay = min(MOST_DELAY_SECONDS, 2 * delay)

    def _count(self, envelope: Envelope, outcome: TakingOutcome, *, seconds: float | None = None) -> None:
        self.metrics.messages.taking_finished(
            service=self.service,
            kind=envelope.type,
            outcome=outcome,
            seconds=seconds,
            age_seconds=_age_of(envelope) if outcome is TakingOutcome.TAKEN_IN else None,
        )

    async def _effect(self, envelope: Envelope, subscription: _Subscription) -> bool:
        """Answers whether it was there for the first time."""
        message = subscription.kind.model_validate(envelope.data)

        async def unit(work: UnitOfWork) -> bool:
            is_new = await self._inbox.take_in(work, envelope.id)
            if is_new:
                await subscription.handler(work, message)
            return is_new

        with caused_by(envelope):
            # Not the envelope's own type: that is any text, and operations are of a closed set.
            return await self.run(f"take_{subscription.kind.message_type}", unit)

    async def _put_aside(self, envelope: Envelope, error: Exception, *, attempts: int) -> None:
        """Keep it as a dead letter; until that is done it is not let go of."""

        async def unit(work: UnitOfWork) -> None:
            dead = self._room.tables[work.side].dead
            letter = insert(dead).values(
                consumer=self.service,
                message_id=str(envelope.id),
                envelope=envelope.model_dump(mode="json"),
                reason=f"{type(error).__name__}: {error}"[:1000],
                attempts=attempts,
            )
            again = {
                "reason": letter.excluded.reason,
                "attempts": dead.c.attempts + letter.excluded.attempts,
                "failed_at": func.now(),
                "replayed_at": None,
            }
            await work.session.execute(
                letter.on_conflict_do_update(index_elements=[dead.c.consumer, dead.c.message_id], set_=again)
            )

        delay = DELAY_SECONDS
        while True:
            try:
                await self.run("put_aside", unit)
            except SideError as trouble:
                log.warning("dead_letter_not_kept", consumer=self.service, error=str(trouble))
            else:
                break
            await asyncio.sleep(delay)
            delay = min(MOST_DELAY_SECONDS, 2 * delay)
        self._count(envelope, TakingOutcome.PUT_ASIDE)
        log.error(
            "message_put_aside",
            consumer=self.service,
            message_type=envelope.type,
            message_id=str(envelope.id),
            error=f"{type(error).__name__}: {error}",
        )


def _is_away(error: Exception) -> bool:
    """Whether nothing is wrong with the message: it waits until whatever does not answer is back."""
    return isinstance(error, AwayError) or (isinstance(error, SideError) and error.unavailable)


def _age_of(envelope: Envelope) -> float:
    """Seconds since it was recorded; a time without zone, from whoever else publishes, is taken for UTC."""
    at = envelope.occurred_at
    return (datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds()


def _unreadable(body: bytes) -> Envelope:
    """A stand-in for what cannot be read, with the same id each time that it comes."""
    try:
        found = json.loads(body)
    except ValueError:
        found = body.decode(errors="replace")
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return Envelope(
        id=uuid5(_UNREADABLE, body.hex()),
        subject=str(fields.get("subject", "")),
        type=str(fields.get("type", "unreadable")),
        version=1,
        aggregate_type=str(fields.get("aggregate_type", "")),
        aggregate_id=str(fields.get("aggregate_id", "")),
        correlation_id=str(fields.get("correlation_id", "")),
        data={"body": found},
    )
