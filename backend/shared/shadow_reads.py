"""Shadow reads: of some reads the other side is asked too, after the answer, and the two are compared.

Nobody waits for it. Two answers that differ prove nothing while something is on its way between the sides: so both sides
are asked again, until they agree, or differ twice in the same way with an empty journal before and after each time. Only
that is a mismatch. What never comes to rest is neither equal nor different.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import Table

from backend.shared.control import Control
from backend.shared.domain.errors import FencedError, TandemError
from backend.shared.domain.phases import Side
from backend.shared.observability.labels import ShadowOutcome
from backend.shared.observability.seldom import Seldom
from backend.shared.read_answers import Image, differences, image_of, image_of_error
from backend.shared.read_sides import Answer, SideReader, Subject
from backend.shared.replicas import ShadowReads
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import is_database_error
from backend.shared.stores.side import OnTheWay
from backend.shared.unit_runner import Unit

AT_ONCE = 16
"""So many are compared at once, and never more than half of the connections of a side's pool."""
WHOLE_SECONDS = 10.0
"""A comparison with all its looks takes no longer."""
PAUSES_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Before each further look."""
FINISH_SECONDS = 1.0
CANCEL_SECONDS = 6.0
"""A connection whose server is silent is given up within five seconds."""
_SAID_EVERY_SECONDS = 1.0
_COUNTED = {
    ShadowOutcome.EQUAL: ShadowReads(compared=1),
    ShadowOutcome.MISMATCH: ShadowReads(compared=1, mismatches=1),
    ShadowOutcome.FAILED: ShadowReads(failed=1),
}

log = structlog.get_logger(__name__)


class _NoRoomError(Exception):
    """A side has no connection to spare."""


@dataclass(kw_only=True)
class _Comparison:
    """One answer that is held against the other side. `control` is the phase row that it was read by."""

    unit: Unit[Any]
    subject: Subject
    operation: str
    answered_by: Side
    image: Image
    control: Control
    shaped: frozenset[Table]
    fields: Sequence[str] = field(default=())

    @property
    def authoritative(self) -> Side:
        return self.control.phase.policy.authoritative


class ShadowReader:
    """Compares answers in the background, a bounded number at once. `consider` costs a caller next to nothing."""

    def __init__(self, runtime: ServiceRuntime, sides: SideReader) -> None:
        self._runtime = runtime
        self._sides = sides
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = min(AT_ONCE, runtime.limits.pool_size // 2)
        self._differed = Seldom(_SAID_EVERY_SECONDS)
        self._failed = Seldom(_SAID_EVERY_SECONDS)
        self._columns = frozenset(
            column.key
            for entity in runtime.catalog.ordered
            for table in entity.new_tables()
            for column in table.columns
        )

    def consider(
        self, unit: Unit[Any], subject: Subject, operation: str, answer: Answer[Any], *, control: Control
    ) -> None:
        """Have this answer compared, if the phase asks for it and the dice say so. Does not wait, and never raises."""
        settings = self._runtime.settings
        if not control.phase.policy.compares_reads or not settings.carries(control.phase):
            return
        if random.random() >= settings.shadow_read_sample_rate:  # noqa: S311 - a sample
            return
        if len(self._tasks) >= self._at_once or not self._has_room(answer.side.other):
            self._count(control, ShadowOutcome.DROPPED)
            return
        try:
            image = _image(answer)
        except Exception as error:  # noqa: BLE001 - the caller has her answer, whatever it is made of
            self._say_failed(operation, error)
            self._count(control, ShadowOutcome.FAILED)
            return
        comparison = _Comparison(
            unit=unit,
            subject=subject,
            operation=operation,
            answered_by=answer.side,
            image=image,
            control=control,
            shaped=answer.shaped,
        )
        task = asyncio.get_running_loop().create_task(self._run(comparison))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait a moment for what is under way, end the rest, and write down what was counted, as far as that goes."""
        if tasks := set(self._tasks):
            _, pending = await asyncio.wait(tasks, timeout=FINISH_SECONDS)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending, timeout=CANCEL_SECONDS)
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self._runtime.shadow_tally.write_down(self._runtime.replicas)
        except Exception as error:
            if not is_database_error(error):
                raise
            log.debug("shadow_reads_not_written_down", service=self._runtime.service)

    async def _run(self, comparison: _Comparison) -> None:
        outcome = ShadowOutcome.DROPPED
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                outcome = await self._compare(comparison)
        except _NoRoomError:
            pass
        except FencedError:
            outcome = ShadowOutcome.UNSETTLED  # the phase has changed meanwhile
        except Exception as error:  # noqa: BLE001 - nobody is there to hear of it but log and metrics
            outcome = ShadowOutcome.FAILED
            self._say_failed(comparison.operation, error)
        finally:
            self._count(comparison.control, outcome)
        if outcome is ShadowOutcome.MISMATCH:
            self._say_differs(comparison)

    async def _compare(self, comparison: _Comparison) -> ShadowOutcome:
        await self._runtime.hook("shadow_read_begun")
        theirs = await self._ask(comparison, comparison.answered_by.other)
        if not self._differences(comparison.image, theirs):
            return ShadowOutcome.EQUAL
        outcome = await self._settle(comparison)
        if self._runtime.control.phase_version != comparison.control.phase_version:
            return ShadowOutcome.UNSETTLED
        return outcome

    async def _settle(self, comparison: _Comparison) -> ShadowOutcome:
        """Look again until it is known why the answers differ.

        What was committed before an empty journal is on the other side; what is committed later shows in the authoritative
        side's next answer. Only a value that goes there and back within each of two looks would deceive this.
        """
        side, hook = comparison.authoritative, self._runtime.hook
        before_that: tuple[Image, Image] | None = None
        for pause_seconds in PAUSES_SECONDS:
            await asyncio.sleep(pause_seconds)
            await hook("shadow_read_again")
            before = await self._sides.on_the_way(side, comparison.subject)
            await hook("shadow_read_looked")
            ours = await self._ask(comparison, side)
            await hook("shadow_read_between")
            theirs = await self._ask(comparison, side.other)
            await hook("shadow_read_asked")
            after = await self._sides.on_the_way(side, comparison.subject)
            fields = self._differences(ours, theirs)
            if not fields:
                return ShadowOutcome.EQUAL
            if not self._at_rest(comparison, before, after):
                before_that = None
                continue
            if before_that is not None and not (
                self._differences(before_that[0], ours) or self._differences(before_that[1], theirs)
            ):
                comparison.fields = fields
                return ShadowOutcome.MISMATCH
            before_that = ours, theirs
        return ShadowOutcome.UNSETTLED

    def _at_rest(self, comparison: _Comparison, before: OnTheWay, after: OnTheWay) -> bool:
        entities = self._sides.entities(comparison.subject, comparison.shaped)
        return before.epoch == after.epoch and not before.touches(entities) and not after.touches(entities)

    async def _ask(self, comparison: _Comparison, side: Side) -> Image:
        """The answer of `side`. What the unit cannot make of the rows there is an answer too."""
        if not self._has_room(side):
            raise _NoRoomError
        closed = side is not comparison.authoritative
        try:
            answer = await self._sides.ask(comparison.unit, side, even_if_closed=closed)
        except Exception as error:
            if isinstance(error, TandemError) or is_database_error(error):
                raise
            return image_of_error(error)
        comparison.shaped |= answer.shaped
        return _image(answer)

    def _has_room(self, side: Side) -> bool:
        """Whether a connection of `side` can be had, and one is left for somebody who is waited for."""
        pool = self._runtime.stores[side].pool()
        return pool is None or pool.size - pool.in_use > 1

    def _differences(self, one: Image, other: Image) -> tuple[str, ...]:
        return differences(one, other, names=self._columns)

    def _count(self, control: Control, outcome: ShadowOutcome) -> None:
        runtime = self._runtime
        runtime.metrics.shadow_read_finished(service=runtime.service, outcome=outcome)
        if counted := _COUNTED.get(outcome):
            runtime.shadow_tally.add(control, counted)

    def _say_differs(self, comparison: _Comparison) -> None:
        left_out = self._differed.left_out()
        if left_out is not None:
            log.warning(
                "shadow_read_differs",
                service=self._runtime.service,
                operation=comparison.operation,
                entity=comparison.subject.entity,
                key=comparison.subject.key,
                fields=list(comparison.fields),
                left_out=left_out,
            )

    def _say_failed(self, operation: str, error: Exception) -> None:
        left_out = self._failed.left_out()
        if left_out is not None:
            log.warning(
                "shadow_read_failed",
                service=self._runtime.service,
                operation=operation,
                error=str(error) if isinstance(error, TandemError) else type(error).__name__,
                left_out=left_out,
            )


def _image(answer: Answer[Any]) -> Image:
    return image_of(answer.value) if answer.error is None else image_of_error(answer.error)
