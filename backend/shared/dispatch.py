"""Which sides a write goes to: by what phase and settings ask for, and by which sides are there.

| there | `authoritative` | `any` |
|---|---|---|
| both | both | both |
| the authoritative side | that one; the relay carries it | the same |
| the secondary side | an error | that one alone: the key is stranded |
| none | an error | an error |

What the authoritative side refuses is refused, whatever the other one would say.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from backend.shared.availability import is_away, sides_away
from backend.shared.domain.errors import FencedError, SideError
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.domain.results import SecondWrite
from backend.shared.dual_write_config import Availability
from backend.shared.journal.at_once import AtOnceWriter
from backend.shared.journal.synchronous import (
    SecondaryRefusedError,
    SynchronousOutcome,
    SynchronousWriter,
)
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.postgres.side import PostgresSide
from backend.shared.stranded_writes import StrandedWriter
from backend.shared.units import Transaction, Unit

T = TypeVar("T")
log = structlog.get_logger(__name__)


class BothSidesFailedError(Exception):
    """Neither side has taken the write: `first` is what the authoritative one said."""

    def __init__(self, first: SideError, second: SideError) -> None:
        super().__init__(f"{first}; {second}")
        self.first = first
        self.second = second


@dataclass(frozen=True, kw_only=True)
class Write(Generic[T]):
    """One write that is asked for."""

    unit: Unit[T]
    request_id: str
    isolation: Isolation = Isolation.READ_COMMITTED


class _Progress:
    """The transaction on the authoritative side that is under way."""

    def __init__(self) -> None:
        self._transaction: Transaction | None = None

    def note(self, transaction: Transaction) -> None:
        self._transaction = transaction

    @property
    def may_have_committed(self) -> bool:
        return self._transaction is not None and self._transaction.commit_sent


class Dispatch:
    """Runs units where they are to be run."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._runtime = runtime
        self._background: set[asyncio.Task[Any]] = set()
        self._writers: dict[Direction, SynchronousWriter | AtOnceWriter] = {}
        self._alone: dict[Direction, StrandedWriter] = {}

    async def run(self, write: Write[T], phase: Phase) -> SynchronousOutcome[T]:
        """One write in `phase`. Raises `SideError`, `SecondaryRefusedError`, `BothSidesFailedError`, and what the unit does."""
        direction, settings = phase.policy.direction, self._runtime.settings
        if direction is None or not settings.carries(phase):
            return await self._on_one_side(write, phase, _Progress())
        away = await sides_away(self._runtime)
        if direction.source in away:
            return await self._without_authority(write, direction, away)
        progress = _Progress()
        try:
            if settings.async_legacy:
                return await self._on_one_side(write, phase, progress)
            return await self._on_both(write, direction, progress, away)
        except FencedError:
            raise
        except SideError as error:
            if error.side is not direction.source or not is_away(error) or progress.may_have_committed:
                raise
            away[direction.source] = error
            return await self._without_authority(write, direction, away)

    async def finish(self) -> None:
        """Wait for second writes whose callers went away."""
        if self._background:
            await asyncio.wait(self._background, timeout=30)
        for writer in self._writers.values():
            if isinstance(writer, AtOnceWriter):
                await writer.finish()

    # Both, or the authoritative one -----------------------------------------------------------------------------------

    async def _on_both(
        self,
        write: Write[T],
        direction: Direction,
        progress: _Progress,
        away: dict[Side, SideError],
    ) -> SynchronousOutcome[T]:
        runtime = self._runtime
        fails_call = runtime.settings.fails_on(direction.target)
        if (error := away.get(direction.target)) is not None:
            if fails_call:
                raise SecondaryRefusedError(error)
            self._say_away(error)
        if direction not in self._writers:
            self._writers[direction] = self._synchronous_writer(direction)
        writer, epoch = self._writers[direction], runtime.control.epoch
        self._say("dual_write_started", write.request_id)

        async def attempt() -> SynchronousOutcome[T]:
            return await writer.run(
                write.unit,
                request_id=write.request_id,
                isolation=write.isolation,
                epoch=epoch,
                fails_call=fails_call,
                journals_touched=runtime.journals_touched(direction.source),
                on_transaction=progress.note,
            )

        task = asyncio.ensure_future(runtime.runners[direction.source].repeat(attempt))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        outcome = await asyncio.shield(task)
        if outcome.second_write is SecondWrite.PENDING:
            if outcome.error is not None and is_away(outcome.error):
                self._say_away(outcome.error)
            runtime.relays[direction].wake()
        return outcome

    async def _on_one_side(self, write: Write[T], phase: Phase, progress: _Progress) -> SynchronousOutcome[T]:
        runtime, policy = self._runtime, phase.policy
        runner = runtime.runners[policy.authoritative]
        started = time.perf_counter()
        # Where the other side may take it instead, nobody waits for long.
        limit = runtime.settings.timeout_seconds if self._takes_either else None

        async def attempt() -> T:
            async with runner.transaction(
                request_id=write.request_id,
                journals_touched=runtime.journals_touched(policy.authoritative),
                isolation=write.isolation,
            ) as transaction:
                progress.note(transaction)
                if limit is None:
                    value = await write.unit(transaction.work)
                else:
                    async with asyncio.timeout(limit):
                        value = await write.unit(transaction.work)
                await transaction.commit()
            return value

        value = await runner.repeat(attempt)
        if policy.direction:
            runtime.relays[policy.direction].wake()
        return SynchronousOutcome(
            value=value,
            second_write=SecondWrite.PENDING if policy.direction else SecondWrite.NONE,
            error=None,
            first_seconds=time.perf_counter() - started,
            second_seconds=0.0,
        )

    def _synchronous_writer(self, direction: Direction) -> SynchronousWriter | AtOnceWriter:
        """Of two SQL databases one is written after the other, else both at once."""
        runtime = self._runtime
        source, target = runtime.stores[direction.source], runtime.stores[direction.target]
        if not isinstance(source, PostgresSide) or not isinstance(target, PostgresSide):
            return AtOnceWriter(
                runner=runtime.runners[direction.source],
                second_runner=runtime.runners[direction.target],
                source=source,
                target=target,
                target_breaker=runtime.breakers[direction.target],
                catalog=runtime.catalog,
                direction=direction,
                timeout_seconds=lambda: runtime.settings.timeout_seconds,
                hook=runtime.hook,
            )
        return SynchronousWriter(
            runner=runtime.sql_runner(direction.source),
            source=source,
            target=target,
            target_breaker=runtime.breakers[direction.target],
            catalog=runtime.catalog,
            direction=direction,
            hook=runtime.hook,
        )

    # The secondary one alone ------------------------------------------------------------------------------------------

    @property
    def _takes_either(self) -> bool:
        return self._runtime.settings.availability is Availability.ANY

    async def _without_authority(
        self, write: Write[T], direction: Direction, away: dict[Side, SideError]
    ) -> SynchronousOutcome[T]:
        first = away[direction.source]
        if (second := away.get(direction.target)) is not None:
            both = self._both_failed(first, second)
            raise both if self._takes_either else first
        # That side, while it is a copy, cannot say what else is going on at the same time.
        if not self._takes_either or write.isolation is not Isolation.READ_COMMITTED:
            raise first
        self._say_away(first)
        started = time.perf_counter()
        if direction not in self._alone:
            self._alone[direction] = self._stranded_writer(direction)
        try:
            value = await self._alone[direction].run(
                write.unit, request_id=write.request_id, epoch=self._runtime.control.epoch
            )
        except FencedError:
            raise
        except SideError as error:
            raise self._both_failed(first, error) from error
        seconds = time.perf_counter() - started
        return SynchronousOutcome(
            value=value,
            second_write=SecondWrite.STRANDED,
            error=first,
            first_seconds=0.0,
            second_seconds=seconds,
        )

    def _stranded_writer(self, direction: Direction) -> StrandedWriter:
        runtime = self._runtime
        return StrandedWriter(
            runner=runtime.runners[direction.target],
            target=runtime.stores[direction.target],
            catalog=runtime.catalog,
            direction=direction,
            timeout_seconds=lambda: runtime.settings.timeout_seconds,
            hook=runtime.hook,
        )

    def _both_failed(self, first: SideError, second: SideError) -> BothSidesFailedError:
        log.error("both_sides_failed", service=self._runtime.service, first=str(first), second=str(second))
        return BothSidesFailedError(first, second)

    def _say_away(self, error: SideError) -> None:
        log.warning("side_left_out", service=self._runtime.service, side=error.side.value, error=error.reason)

    def _say(self, event: str, request_id: str) -> None:
        settings = self._runtime.settings
        if settings.log_all or not settings.log_errors_only:
            log.info(event, service=self._runtime.service, request_id=request_id)
