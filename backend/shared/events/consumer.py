"""Takes messages in: each handler's effect, and the note that it has been, in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog
from pydantic import ValidationError as InvalidError
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from backend.shared.domain.errors import AwayError, SideError, TandemError
from backend.shared.error_text import said_of
from backend.shared.observability.labels import TakingOutcome
from backend.shared.observability.metrics import Metrics, default_metrics
from backend.shared.observability.tracing import SpanKind, span
from backend.shared.unit_of_work import UnitOfWork
from backend.shared.units import Unit

from .cause import caused_by
from .envelope import Envelope, Message
from .inbox import Inbox
from .letters import Letter, stand_in, storable, unreadable
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
REASON_CHARACTERS = 1000

log = structlog.get_logger(__name__)


class UnheardError(TandemError):
    """A message has come for which there is no handler: a later version of the service may have one."""


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
        except (InvalidError, RecursionError) as error:
            await self._put_aside(unreadable(body), body, error, attempts=1)
            return
        subscription = self._subscriptions.get(envelope.subject)
        if subscription is None:
            unheard = UnheardError("there is no handler for its subject")
            # Told anew, one that no broker takes would stand in the outbox for ever.
            letter = Letter(envelope=envelope) if envelope.is_addressed else stand_in(envelope, body)
            await self._put_aside(letter, body, unheard, attempts=1)
            return
        told = {**envelope.attributes(), "messaging.consumer.group.name": self.service}
        with span(f"take {envelope.subject}", told, kind=SpanKind.CONSUMER, parent=envelope.trace) as taken:
            error_type = await self._take(envelope, subscription, body)
            if error_type is not None:
                taken.failed(error_type)

    async def _take(self, envelope: Envelope, subscription: _Subscription, body: bytes) -> str | None:
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
                    error=said_of(error),
                )
                if attempts >= ATTEMPTS:
                    await self._put_aside(Letter(envelope=envelope), body, error, attempts=attempts)
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

    async def _put_aside(self, letter: Letter, body: bytes, error: Exception, *, attempts: int) -> None:
        """Keep it as a dead letter; until that is done it is not let go of."""
        delay = DELAY_SECONDS
        while True:
            try:
                await self.run("put_aside", partial(self._keep, letter, said_of(error), attempts))
            except SideError as trouble:
                log.warning("dead_letter_not_kept", consumer=self.service, error=str(trouble))
                if not trouble.unavailable and not letter.is_stand_in:
                    letter = stand_in(letter.envelope, body)
                    continue
            else:
                break
            await asyncio.sleep(delay)
            delay = min(MOST_DELAY_SECONDS, 2 * delay)
        self._count(letter.envelope, TakingOutcome.PUT_ASIDE)
        log.error(
            "message_put_aside",
            consumer=self.service,
            message_type=letter.envelope.type,
            message_id=str(letter.envelope.id),
            error=said_of(error),
        )

    async def _keep(self, letter: Letter, reason: str, attempts: int, work: UnitOfWork) -> None:
        dead = self._room.tables[work.side].dead
        kept = insert(dead).values(
            consumer=self.service,
            message_id=str(letter.envelope.id),
            envelope=letter.as_json(),
            reason=storable(reason)[:REASON_CHARACTERS],
            attempts=attempts,
        )
        again = {
            "reason": kept.excluded.reason,
            "attempts": dead.c.attempts + kept.excluded.attempts,
            "failed_at": func.now(),
            "replayed_at": None,
        }
        await work.session.execute(
            kept.on_conflict_do_update(index_elements=[dead.c.consumer, dead.c.message_id], set_=again)
        )


def _is_away(error: Exception) -> bool:
    """Whether nothing is wrong with the message: it waits until whatever does not answer is back."""
    return isinstance(error, AwayError) or (isinstance(error, SideError) and error.unavailable)


def _age_of(envelope: Envelope) -> float:
    """Seconds since it was recorded; a time without zone, from whoever else publishes, is taken for UTC."""
    at = envelope.occurred_at
    return (datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds()
