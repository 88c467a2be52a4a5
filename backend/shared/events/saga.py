"""A saga: steps in several databases that are all done, or all undone in reverse order (Garcia-Molina and Salem, 1987).

Pure: what a saga is, and what becomes of it when something is heard, or nothing for too long. Nothing here is stored or sent.
Messages may come twice, late and in any order: only what answers the present step moves a saga.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from .envelope import Command, Message

C = TypeVar("C")

STUCK_SECONDS = 900.0
"""A saga that is not over after so long is stuck: it waits for somebody who does not answer, or for a person."""
TRIES = 5
"""So often a compensation is asked for before somebody has to look at it, and a step before it is given up."""

UNDONE_TOO_LATE = "undone after it was settled as completed"


class SagaState(StrEnum):
    """How a saga stands."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    """What was done is being undone."""
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    NEEDS_REVIEW = "needs_review"
    """A compensation failed for good: somebody has to settle it by hand."""

    @property
    def is_final(self) -> bool:
        """Whether it ends there, unless somebody asks for more."""
        return self in (SagaState.COMPLETED, SagaState.COMPENSATED)


@dataclass(frozen=True, kw_only=True)
class Saga:
    """How far it has come. `step` is the number of the step that is being done or undone, `deadline` when that was too long."""

    state: SagaState = SagaState.RUNNING
    step: int = 0
    tries: int = 0
    """So often the present step was asked for. In `NEEDS_REVIEW`, 0 where no participant has said what it could not undo."""
    deadline: datetime | None = None
    participant: str | None = None
    """Who began its undoing, by failing or by asking for it."""
    reason: str | None = None
    by_hand: bool = False
    """Somebody has undone the present step by hand: whoever did it has only to note that."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What became of a saga, and what is to be told in the same transaction."""

    saga: Saga
    messages: tuple[Message, ...] = ()


class SagaStep(Generic[C]):
    """One step. `C` is what its commands are made from.

    `failed` and `undo_failed` are the answers that say that it will not be done, however often it is asked for.
    """

    name: str
    participant: str
    done: type[Message]
    failed: type[Message]
    undone: type[Message]
    undo_failed: type[Message]

    def do(self, context: C) -> Command:
        """The command to do it."""
        raise NotImplementedError

    def undo(self, context: C, saga: Saga) -> Command:
        """The command to undo it, or to note that it was undone (`saga.by_hand`); whoever gets it finds out whether it was done."""
        raise NotImplementedError


class Orchestration(Generic[C]):
    """The steps of one kind of saga, in order. Each has `step_seconds` to be answered."""

    def __init__(self, steps: Sequence[SagaStep[C]], *, step_seconds: float, tries: int = TRIES) -> None:
        self._steps = tuple(steps)
        self._step_seconds = step_seconds
        self._tries = tries

    def begin(self, context: C, now: datetime) -> Moved:
        """A new saga, with the first command."""
        return self._doing(Saga(), 0, context, now)

    def heard(self, saga: Saga, message: Message, context: C, now: datetime, *, why: str = "") -> Moved:
        """What an answer makes of a saga; nothing, if it is not the one that is waited for.

        What is undone after all needs to be looked at no more; what is undone after somebody has said that it was to stand does.
        """
        if saga.state is SagaState.COMPLETED:
            return self._undone_too_late(saga, message)
        if not 0 <= saga.step < len(self._steps):
            return Moved(saga=saga)
        step = self._steps[saga.step]
        if saga.state is SagaState.RUNNING:
            if isinstance(message, step.done):
                return self._doing(saga, saga.step + 1, context, now)
            if isinstance(message, step.failed):
                failed = replace(saga, participant=step.participant, reason=why)
                return self._undoing(failed, saga.step - 1, context, now)
        elif saga.state in (SagaState.COMPENSATING, SagaState.NEEDS_REVIEW):
            if isinstance(message, step.undone):
                return self._undoing(saga, saga.step - 1, context, now)
            if isinstance(message, step.undo_failed) and not is_known_to_be_refused(saga):
                return Moved(saga=refused(saga, f"{step.participant}: {why}"))
        return Moved(saga=saga)

    def late(self, saga: Saga, context: C, now: datetime) -> Moved:
        """Nothing was heard until the deadline: ask again, and at last give up, or ask for somebody to look."""
        if saga.deadline is None or now < saga.deadline:
            return Moved(saga=saga)
        step = self._steps[saga.step]
        if saga.tries < self._tries:
            return self._asked(replace(saga, tries=saga.tries + 1), context, now)
        reason = f"{step.name}: no answer after {saga.tries} tries"
        if saga.state is SagaState.COMPENSATING:
            return Moved(saga=for_review(saga, f"{step.participant}: {reason}"))
        # It may have been done, and the answer lost.
        return self._undoing(
            replace(saga, participant=step.participant, reason=reason), saga.step, context, now
        )

    def cancelled(self, saga: Saga, context: C, now: datetime, *, participant: str, why: str) -> Moved:
        """Somebody wants it undone, whatever of it was done; nothing, if that is under way or over."""
        if saga.state not in (SagaState.RUNNING, SagaState.COMPLETED):
            return Moved(saga=saga)
        last = min(saga.step, len(self._steps) - 1)
        return self._undoing(replace(saga, participant=participant, reason=why), last, context, now)

    def retried(self, saga: Saga, context: C, now: datetime) -> Moved:
        """Somebody has looked, and wants the compensation that failed to be tried again."""
        if saga.state is not SagaState.NEEDS_REVIEW:
            return Moved(saga=saga)
        return self._undoing(saga, saga.step, context, now)

    def undone_by_hand(self, saga: Saga, context: C, now: datetime) -> Moved:
        """Somebody has undone what a participant has said it could not: it notes that, and the rest is undone like any other.

        Nothing, where none has said so.
        """
        if not is_known_to_be_refused(saga):
            return Moved(saga=saga)
        return self._undoing(saga, saga.step, context, now, by_hand=True)

    def left_standing(self, saga: Saga) -> Moved:
        """Somebody has decided that it is to stand; nothing, where some of it is undone already, or nobody knows."""
        if not is_known_to_be_refused(saga) or saga.step != len(self._steps) - 1:
            return Moved(saga=saga)
        return Moved(saga=replace(saga, state=SagaState.COMPLETED, step=len(self._steps), tries=0))

    def _undone_too_late(self, saga: Saga, message: Message) -> Moved:
        for number, step in enumerate(self._steps):
            if isinstance(message, step.undone):
                rest = replace(saga, step=max(number - 1, 0))
                return Moved(saga=for_review(rest, f"{step.participant}: {UNDONE_TOO_LATE}"))
        return Moved(saga=saga)

    def _doing(self, saga: Saga, number: int, context: C, now: datetime) -> Moved:
        if number == len(self._steps):
            return Moved(saga=replace(saga, state=SagaState.COMPLETED, step=number, tries=0, deadline=None))
        return self._asked(replace(saga, state=SagaState.RUNNING, step=number, tries=1), context, now)

    def _undoing(self, saga: Saga, number: int, context: C, now: datetime, *, by_hand: bool = False) -> Moved:
        begun = replace(saga, step=number, by_hand=by_hand)
        if number < 0:
            return Moved(saga=replace(begun, state=SagaState.COMPENSATED, tries=0, deadline=None))
        return self._asked(replace(begun, state=SagaState.COMPENSATING, tries=1), context, now)

    def _asked(self, saga: Saga, context: C, now: datetime) -> Moved:
        step = self._steps[saga.step]
        running = saga.state is SagaState.RUNNING
        command = step.do(context) if running else step.undo(context, saga)
        waits = timedelta(seconds=self._step_seconds * 2 ** (saga.tries - 1))
        return Moved(saga=replace(saga, deadline=now + waits), messages=(command,))


def refused(saga: Saga, trouble: str) -> Saga:
    """A participant has said that it cannot undo the present step: somebody has to look at it, and knows what it is."""
    return replace(for_review(saga, trouble), tries=max(saga.tries, 1))


def for_review(saga: Saga, trouble: str) -> Saga:
    """Somebody has to look at it; what of it is undone is not known."""
    reason = f"{saga.reason}; {trouble}" if saga.reason else trouble
    return replace(saga, state=SagaState.NEEDS_REVIEW, tries=0, deadline=None, reason=reason, by_hand=False)


def is_known_to_be_refused(saga: Saga) -> bool:
    """Whether it waits for somebody because a participant has said that it cannot undo the present step."""
    return saga.state is SagaState.NEEDS_REVIEW and saga.tries > 0
