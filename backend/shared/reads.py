"""The way of a read: the authoritative side, unless phase, settings and journal let the other one answer.

The other side is a copy. It is believed for something that it has, and only where nothing of that is on its way to it; that
it lacks something is never believed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import structlog

from backend.shared.control import Control
from backend.shared.domain.errors import FencedError, SideError
from backend.shared.domain.phases import Side
from backend.shared.dual_write_config import ReadFallback
from backend.shared.observability.labels import ReadOutcome
from backend.shared.observability.seldom import Seldom
from backend.shared.observability.tracing import span
from backend.shared.read_sides import Answer, SideReader, Subject
from backend.shared.runtime import ServiceRuntime
from backend.shared.shadow_reads import ShadowReader
from backend.shared.unit_runner import Unit

T = TypeVar("T")
_HASH_BYTES = 6
"""So few that a float holds the number exactly."""
_SAID_EVERY_SECONDS = 30.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Found(Generic[T]):
    """An answer, why it was that side's, and the phase row that it was found by."""

    answer: Answer[T]
    outcome: ReadOutcome
    control: Control


def is_ramped(subject: Subject, *, share: float) -> bool:
    """Whether the subject's key is within the share of all keys; the same everywhere, and a greater share keeps it."""
    if subject.key is None:
        return False
    name = f"{subject.entity or ''}\0{subject.key}".encode()
    place = int.from_bytes(hashlib.blake2b(name, digest_size=_HASH_BYTES).digest())
    return place < share * (1 << 8 * _HASH_BYTES)


class ReadPath:
    """Runs read-only units as phase and settings say."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._runtime = runtime
        self._sides = SideReader(runtime)
        self._shadow = ShadowReader(runtime, self._sides)
        self._fell_back = Seldom(_SAID_EVERY_SECONDS)

    async def run(self, unit: Unit[T], subject: Subject, *, operation: str) -> T:
        """What `unit` answers. Raises what it raises, and `SideError` if no side answers that may."""
        told = {"tandem.service": self._runtime.service, "tandem.operation": operation}
        with span(f"read {operation}", told) as traced:
            try:
                found = await self._runtime.following.past_fences(partial(self._find, unit, subject))
            except SideError as error:
                self._count(error.side, ReadOutcome.FAILED)
                raise
            traced.note(
                {
                    "tandem.phase": found.control.phase.value,
                    "tandem.side": found.answer.side.value,
                    "tandem.read": found.outcome.value,
                    "tandem.entities": [subject.entity] if subject.entity else [],
                }
            )
        self._count(found.answer.side, found.outcome)
        if found.outcome not in (ReadOutcome.FALLBACK_ERROR, ReadOutcome.FALLBACK_MISSING):
            self._shadow.consider(unit, subject, operation, found.answer, control=found.control)
        return found.answer.give()

    async def finish(self) -> None:
        """End what is being compared in the background, within seconds."""
        await self._shadow.finish()

    async def _find(self, unit: Unit[T], subject: Subject) -> _Found[T]:
        runtime = self._runtime
        control, outcome = runtime.control, ReadOutcome.AUTHORITATIVE
        if (
            control.phase.policy.ramps_reads
            and runtime.settings.carries(control.phase)
            and is_ramped(subject, share=runtime.settings.new_read_share)
        ):
            ramped = await self._ramped(unit, subject, control)
            if isinstance(ramped, Answer):
                return _Found(answer=ramped, outcome=ReadOutcome.RAMPED, control=control)
            outcome = ramped
        return await self._authoritative(unit, subject, control, outcome)

    async def _ramped(self, unit: Unit[T], subject: Subject, control: Control) -> Answer[T] | ReadOutcome:
        """The answer of the secondary side, or why it is not to be had.

        The journal is looked at first: what was committed before, by this caller or seen by her, is then on the other side,
        or is named.
        """
        side, sides = control.phase.policy.authoritative, self._sides
        try:
            on_the_way = await sides.on_the_way(side, subject, with_failures=True)
            if on_the_way.is_unknown or subject.entity in (on_the_way.entities or ()):
                return ReadOutcome.RAMP_PENDING
            await self._runtime.hook("read_ramp_looked")
            answer = await sides.ask(unit, side.other, even_if_closed=True)
        except Exception as error:  # noqa: BLE001 - rows that the unit cannot read are that side's trouble too
            self._say(error, side.other, "read_ramp_failed")
            return ReadOutcome.RAMP_FAILED
        if on_the_way.touches(sides.entities(subject, answer.shaped)):
            return ReadOutcome.RAMP_PENDING
        return ReadOutcome.RAMP_FAILED if answer.is_missing else answer

    async def _authoritative(
        self, unit: Unit[T], subject: Subject, control: Control, outcome: ReadOutcome
    ) -> _Found[T]:
        runtime, side = self._runtime, control.phase.policy.authoritative
        fallback = runtime.settings.dual_read_fallback
        if not runtime.settings.carries(control.phase):
            fallback = ReadFallback.OFF
        try:
            answer = await self._sides.ask(unit, side)
        except FencedError:
            raise
        except SideError as error:
            if not error.unavailable or fallback is ReadFallback.OFF:
                raise
            instead = await self._instead(unit, side.other, error)
            return _Found(answer=instead, outcome=ReadOutcome.FALLBACK_ERROR, control=control)
        if fallback is ReadFallback.MISSING and answer.is_empty:
            return await self._elsewhere(unit, subject, control, answer)
        return _Found(answer=answer, outcome=outcome, control=control)

    async def _instead(self, unit: Unit[T], side: Side, cause: SideError) -> Answer[T]:
        """The answer of `side` in the place of one that is away; raises `cause` if it has none."""
        try:
            answer = await self._sides.ask(unit, side, even_if_closed=True)
        except Exception as error:
            self._say(error, side, "read_fallback_failed")
            raise cause from error
        if answer.is_missing:
            raise cause  # it may merely not have arrived there
        self._say(cause, side, "read_fell_back")
        return answer

    async def _elsewhere(
        self, unit: Unit[T], subject: Subject, control: Control, missing: Answer[T]
    ) -> _Found[T]:
        """What the secondary side has of something that the authoritative one has not; else that it is missing.

        A deleted key must not come back. A deletion that was committed before a look at the journal is named by it, or is on
        the other side already when that is asked afterwards. So the first look and the other side's answer say whether there
        is anything to be had. What was inserted, carried and deleted since is then found by asking all three again.
        """
        found = _Found(answer=missing, outcome=ReadOutcome.AUTHORITATIVE, control=control)
        hook, sides, side = self._runtime.hook, self._sides, missing.side
        await hook("read_missing")
        try:
            before = await sides.on_the_way(side, subject, with_failures=True)
            if before.touches(sides.entities(subject, missing.shaped)):
                return found
            await hook("read_missing_looked")
            there = await sides.ask(unit, side.other, even_if_closed=True)
            await hook("read_missing_asked")
            if there.is_empty:
                return found
            again = await sides.ask(unit, side)
            if not again.is_empty:
                return _Found(answer=again, outcome=ReadOutcome.AUTHORITATIVE, control=control)
            after = await sides.on_the_way(side, subject, with_failures=True)
            shaped = missing.shaped | there.shaped | again.shaped
            if after.epoch != before.epoch or after.touches(sides.entities(subject, shaped)):
                return found
            there = await sides.ask(unit, side.other, even_if_closed=True)
        except FencedError:
            raise
        except Exception as error:  # noqa: BLE001 - the authoritative side has answered: that stands
            self._say(error, side.other, "read_fallback_failed")
            return found
        if there.is_empty:
            return found
        return _Found(answer=there, outcome=ReadOutcome.FALLBACK_MISSING, control=control)

    def _say(self, error: Exception, side: Side, event: str) -> None:
        left_out = self._fell_back.left_out()
        if left_out is not None:
            reason = str(error) if isinstance(error, SideError) else type(error).__name__
            log.warning(
                event, service=self._runtime.service, asked=side.value, error=reason, left_out=left_out
            )

    def _count(self, side: Side, outcome: ReadOutcome) -> None:
        self._runtime.metrics.read_answered(service=self._runtime.service, side=side, outcome=outcome)
