"""The saga of an order, in both forms, over the same participants: what is done next, and what becomes of it.

Pure: both know an order and what was heard of it, and answer how its saga stands and what is to be told.

    forward: money is set aside, goods are taken, the money is taken; then the order is confirmed
    back:    the money is given back, the goods are put back, what was set aside is let go of; then the order is cancelled
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from backend.messages.orders import (
    AboutOrder,
    AuthorisePayment,
    CapturePayment,
    Failure,
    OrderCancelRequested,
    Participant,
    RefundPayment,
    ReleaseStock,
    ReserveStock,
    SagaStyle,
    VoidPayment,
)
from backend.messages.payments import (
    PaymentAuthorised,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentDeclined,
    PaymentRefunded,
    PaymentUndoFailed,
    PaymentVoided,
)
from backend.messages.stock import StockRejected, StockReleased, StockReleaseFailed, StockReserved
from backend.shared.events.envelope import Command
from backend.shared.events.saga import (
    TRIES,
    UNDONE_TOO_LATE,
    Moved,
    Orchestration,
    Saga,
    SagaState,
    SagaStep,
    for_review,
    is_known_to_be_refused,
    refused,
)

from .entities import Order, told

HEARD: tuple[type[AboutOrder], ...] = (
    PaymentAuthorised,
    PaymentDeclined,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentRefunded,
    PaymentVoided,
    PaymentUndoFailed,
    StockReserved,
    StockRejected,
    StockReleased,
    StockReleaseFailed,
)
"""What the order service listens to."""
_UNDER_WAY = (SagaState.RUNNING, SagaState.COMPENSATING)
_BEING_UNDONE = (SagaState.COMPENSATING, SagaState.NEEDS_REVIEW)


class Conductor(Protocol):
    """One form of the saga. Each method answers the saga as it was where there is nothing to do."""

    def begin(self, order: Order, now: datetime) -> Moved:
        """The order was placed."""
        ...

    def heard(self, saga: Saga, message: AboutOrder, order: Order, now: datetime) -> Moved:
        """A participant has told something."""
        ...

    def late(self, saga: Saga, order: Order, now: datetime) -> Moved:
        """Nothing was heard until the deadline."""
        ...

    def cancelled(self, saga: Saga, order: Order, now: datetime, *, why: str) -> Moved:
        """Somebody wants it undone."""
        ...

    def retried(self, saga: Saga, order: Order, now: datetime) -> Moved:
        """Somebody wants what failed to be tried again."""
        ...

    def undone_by_hand(self, saga: Saga, order: Order, now: datetime) -> Moved:
        """Somebody has undone what a participant could not: the participant notes that, and the rest is undone."""
        ...

    def left_standing(self, saga: Saga) -> Moved:
        """Somebody has decided that the order is to stand. It cannot, where some of it is undone, or nobody knows."""
        ...


def failure_of(saga: Saga) -> Failure | None:
    """Who began its undoing, and why."""
    if saga.participant is None:
        return None
    return Failure(participant=Participant(saga.participant), reason=saga.reason or "")


@dataclass(frozen=True)
class _OrderStep(SagaStep[Order]):
    """A step of orders of one style."""

    style: SagaStyle

    def _undoing(self, order: Order, saga: Saga) -> dict[str, Any]:
        """What all commands to undo something say."""
        return {
            "order_id": order.id,
            "style": self.style,
            "failure": failure_of(saga),
            "by_hand": saga.by_hand,
        }


class _Authorise(_OrderStep):
    name = "authorise the payment"
    participant = Participant.PAYMENT
    done, failed = PaymentAuthorised, PaymentDeclined
    undone, undo_failed = PaymentVoided, PaymentUndoFailed

    def do(self, context: Order) -> Command:
        return AuthorisePayment(
            order_id=context.id, style=self.style, user_id=context.user_id, amount=context.total
        )

    def undo(self, context: Order, saga: Saga) -> Command:
        return VoidPayment(**self._undoing(context, saga))


class _Reserve(_OrderStep):
    name = "reserve the stock"
    participant = Participant.PRODUCT
    done, failed = StockReserved, StockRejected
    undone, undo_failed = StockReleased, StockReleaseFailed

    def do(self, context: Order) -> Command:
        return ReserveStock(order_id=context.id, style=self.style, lines=told(context))

    def undo(self, context: Order, saga: Saga) -> Command:
        return ReleaseStock(**self._undoing(context, saga))


class _Capture(_OrderStep):
    name = "capture the payment"
    participant = Participant.PAYMENT
    done, failed = PaymentCaptured, PaymentCaptureFailed
    undone, undo_failed = PaymentRefunded, PaymentUndoFailed

    def do(self, context: Order) -> Command:
        return CapturePayment(order_id=context.id, style=self.style)

    def undo(self, context: Order, saga: Saga) -> Command:
        return RefundPayment(**self._undoing(context, saga))


def _steps(style: SagaStyle) -> tuple[_OrderStep, ...]:
    return (_Authorise(style), _Reserve(style), _Capture(style))


_CHOREOGRAPHY = _steps(SagaStyle.CHOREOGRAPHED)
_LAST = len(_CHOREOGRAPHY) - 1


class Orchestrated:
    """The order service sends commands and waits for each answer."""

    def __init__(self, *, step_seconds: float, tries: int = TRIES) -> None:
        steps = _steps(SagaStyle.ORCHESTRATED)
        self._saga = Orchestration(steps, step_seconds=step_seconds, tries=tries)

    def begin(self, order: Order, now: datetime) -> Moved:
        return self._saga.begin(order, now)

    def heard(self, saga: Saga, message: AboutOrder, order: Order, now: datetime) -> Moved:
        return self._saga.heard(saga, message, order, now, why=_why(message))

    def late(self, saga: Saga, order: Order, now: datetime) -> Moved:
        return self._saga.late(saga, order, now)

    def cancelled(self, saga: Saga, order: Order, now: datetime, *, why: str) -> Moved:
        return self._saga.cancelled(saga, order, now, participant=Participant.ORDER, why=why)

    def retried(self, saga: Saga, order: Order, now: datetime) -> Moved:
        return self._saga.retried(saga, order, now)

    def undone_by_hand(self, saga: Saga, order: Order, now: datetime) -> Moved:
        return self._saga.undone_by_hand(saga, order, now)

    def left_standing(self, saga: Saga) -> Moved:
        return self._saga.left_standing(saga)


@dataclass(frozen=True, kw_only=True)
class Choreographed:
    """Each participant goes on by itself; here it is seen how far they have come, and noticed when nobody goes on.

    Undone it is by the participants too, one after the other: whoever has put its part back tells the one before. Of a saga that is
    being undone, `step` is the last one that is not known to be undone.
    """

    saga_seconds: float
    tries: int = TRIES

    def begin(self, order: Order, now: datetime) -> Moved:  # noqa: ARG002 - nobody is asked: OrderPlaced says it all
        return Moved(saga=Saga(tries=1, deadline=now + timedelta(seconds=self.saga_seconds)))

    def heard(self, saga: Saga, message: AboutOrder, order: Order, now: datetime) -> Moved:  # noqa: ARG002 - the same
        undone = _undone(message)
        if undone is not None and saga.state in _BEING_UNDONE:
            saga = self._gone_back(saga, undone, now)
        match message:
            case PaymentRefunded() | StockReleased() | PaymentVoided() if saga.state is SagaState.COMPLETED:
                # Nobody undoes what is done, unless it was asked for before somebody settled it so.
                return Moved(saga=for_review(_from(saga, undone or 0), UNDONE_TOO_LATE))
            case PaymentUndoFailed() | StockReleaseFailed() if _is_news(saga, _refused(message)):
                known = _begun(saga, message) if saga.state is SagaState.RUNNING else saga
                trouble = f"{message.trouble.participant.value}: {message.trouble.reason}"
                return Moved(saga=refused(replace(known, step=_refused(message)), trouble))
            case PaymentCaptured() if saga.state is SagaState.RUNNING:
                return Moved(saga=replace(saga, state=SagaState.COMPLETED, deadline=None))
            case PaymentDeclined() if saga.state is SagaState.RUNNING:
                return Moved(saga=replace(_begun(saga, message), state=SagaState.COMPENSATED, deadline=None))
            case StockRejected() | PaymentCaptureFailed() if saga.state is SagaState.RUNNING:
                number = 0 if isinstance(message, StockRejected) else 1
                begun = replace(_begun(saga, message), step=number)
                return Moved(saga=self._waiting(begun, now, tries=1))
            case PaymentVoided() if saga.state in (*_UNDER_WAY, SagaState.NEEDS_REVIEW):
                known = _begun(saga, message) if saga.state is SagaState.RUNNING else saga
                return Moved(saga=replace(known, state=SagaState.COMPENSATED, deadline=None))
            case _:
                return Moved(saga=saga)

    def late(self, saga: Saga, order: Order, now: datetime) -> Moved:
        if saga.deadline is None or now < saga.deadline:
            return Moved(saga=saga)
        if saga.state is SagaState.COMPENSATING and saga.tries >= self.tries:
            return Moved(saga=for_review(saga, f"nothing was heard after {saga.tries} tries"))
        if saga.state is SagaState.RUNNING:
            late = replace(saga, step=_LAST, participant=Participant.ORDER, reason="it took too long")
            return self._taken_back(late, order, now, tries=1)
        if saga.by_hand:
            return self._noted(saga, order, now, tries=saga.tries + 1)
        return self._taken_back(saga, order, now, tries=saga.tries + 1)

    def cancelled(self, saga: Saga, order: Order, now: datetime, *, why: str) -> Moved:
        if saga.state not in (SagaState.RUNNING, SagaState.COMPLETED):
            return Moved(saga=saga)
        asked = replace(saga, step=_LAST, participant=Participant.ORDER, reason=why)
        return self._taken_back(asked, order, now, tries=1)

    def retried(self, saga: Saga, order: Order, now: datetime) -> Moved:
        if saga.state is not SagaState.NEEDS_REVIEW:
            return Moved(saga=saga)
        return self._taken_back(saga, order, now, tries=1)

    def undone_by_hand(self, saga: Saga, order: Order, now: datetime) -> Moved:
        if not is_known_to_be_refused(saga):
            return Moved(saga=saga)
        return self._noted(replace(saga, by_hand=True), order, now, tries=1)

    def left_standing(self, saga: Saga) -> Moved:
        if not is_known_to_be_refused(saga) or saga.step != _LAST:
            return Moved(saga=saga)
        return Moved(saga=replace(saga, state=SagaState.COMPLETED, step=0, tries=0))

    def _gone_back(self, saga: Saga, undone: int, now: datetime) -> Saga:
        """Step `undone` is undone; whoever did the one before goes on by itself, and has not said that it cannot."""
        if undone > saga.step:
            return saga
        if saga.by_hand:  # also where its own answer comes after that of the next
            saga = replace(self._waiting(saga, now, tries=1), by_hand=False)
        tries = 0 if saga.state is SagaState.NEEDS_REVIEW else saga.tries
        return replace(_from(saga, undone), tries=tries)

    def _noted(self, saga: Saga, order: Order, now: datetime, *, tries: int) -> Moved:
        """Whoever could not undo its part is told that it is undone, and goes on from there as if it had done it."""
        command = _CHOREOGRAPHY[saga.step].undo(order, saga)
        return Moved(saga=self._waiting(saga, now, tries=tries), messages=(command,))

    def _taken_back(self, saga: Saga, order: Order, now: datetime, *, tries: int) -> Moved:
        """Everything from the last step on: each participant finds out what of it was done."""
        request = OrderCancelRequested(
            order_id=order.id, style=SagaStyle.CHOREOGRAPHED, failure=failure_of(saga)
        )
        return Moved(saga=self._waiting(saga, now, tries=tries), messages=(request,))

    def _waiting(self, saga: Saga, now: datetime, *, tries: int) -> Saga:
        waits = timedelta(seconds=self.saga_seconds * 2 ** (tries - 1))
        return replace(saga, state=SagaState.COMPENSATING, tries=tries, deadline=now + waits)


def conductors(*, step_seconds: float, saga_seconds: float) -> Mapping[SagaStyle, Conductor]:
    """Both forms: an order keeps the one that it was placed under."""
    return {
        SagaStyle.ORCHESTRATED: Orchestrated(step_seconds=step_seconds),
        SagaStyle.CHOREOGRAPHED: Choreographed(saga_seconds=saga_seconds),
    }


def _begun(saga: Saga, message: AboutOrder) -> Saga:
    failure: Failure | None = getattr(message, "failure", None)
    if failure is None:
        return saga
    return replace(saga, participant=failure.participant.value, reason=failure.reason)


def _from(saga: Saga, undone: int) -> Saga:
    """What is left to be undone, once step `undone` is."""
    return replace(saga, step=max(undone - 1, 0))


def _undone(message: AboutOrder) -> int | None:
    """The number of the step that is undone, if a message tells of one."""
    for number, step in enumerate(_CHOREOGRAPHY):
        if isinstance(message, step.undone):
            return number
    return None


def _is_news(saga: Saga, step: int) -> bool:
    """Whether it was not known yet that `step` cannot be undone, and it has not been since: that may be told late."""
    if saga.state is SagaState.RUNNING:
        return True
    return saga.state in _BEING_UNDONE and step <= saga.step and not is_known_to_be_refused(saga)


def _refused(message: PaymentUndoFailed | StockReleaseFailed) -> int:
    """The number of the step that could not be undone."""
    if isinstance(message, StockReleaseFailed):
        return 1
    return 2 if message.step == "refund" else 0


def _why(message: AboutOrder) -> str:
    """The reason that a message gives, if it tells of something that could not be done."""
    if isinstance(message, PaymentUndoFailed | StockReleaseFailed):
        return message.trouble.reason
    failure: Failure | None = getattr(message, "failure", None)
    return failure.reason if failure else ""
