"""The way of a write: authoritative side first, then what the phase and the settings ask for on the other."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any, TypeVar

import structlog

from backend.shared.domain.errors import SideError, ValidationError
from backend.shared.domain.phases import Phase, Side
from backend.shared.domain.results import DualWriteResult, SecondWrite
from backend.shared.journal.synchronous import SecondaryRefusedError, SynchronousOutcome
from backend.shared.observability.context import current_request_id
from backend.shared.observability.labels import OperationOutcome
from backend.shared.runtime import ServiceRuntime
from backend.shared.unit_runner import Unit

T = TypeVar("T")
log = structlog.get_logger(__name__)


class WritePath:
    """Runs units of work as the phase says."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._runtime = runtime
        self._background: set[asyncio.Task[Any]] = set()

    async def run(self, operation: str, unit: Unit[T]) -> DualWriteResult[T]:
        """One operation. Bad input (`ValidationError`) is raised; trouble with a database is in the result.

        When `success` is True the operation is durable on the authoritative side (I1). A caller that is cancelled does
        not cancel a synchronous second write under way.
        """
        runtime = self._runtime
        request_id = current_request_id() or uuid.uuid4().hex
        started = time.perf_counter()
        phase, policy = runtime.phase, runtime.phase.policy

        async def attempt() -> SynchronousOutcome[T]:
            nonlocal phase, policy
            phase, policy = runtime.phase, runtime.phase.policy
            if policy.direction and not runtime.settings.async_legacy and runtime.settings.carries(phase):
                return await self._synchronously(unit, phase, request_id)
            return await self._asynchronously(unit, phase, request_id)

        try:
            outcome = await runtime.following.past_fences(attempt)
        except ValidationError:
            self._count(
                operation, policy.authoritative, OperationOutcome.REFUSED, time.perf_counter() - started
            )
            raise
        except asyncio.CancelledError:
            self._count(operation, policy.authoritative, OperationOutcome.CANCELLED, None)
            raise
        except (SideError, SecondaryRefusedError) as error:
            cause = error.error if isinstance(error, SecondaryRefusedError) else error
            return self._failed(operation, phase, cause, request_id, time.perf_counter() - started)
        return self._succeeded(operation, phase, outcome, request_id)

    async def finish(self) -> None:
        """Wait for second writes whose callers went away."""
        if self._background:
            await asyncio.wait(self._background, timeout=30)

    async def _asynchronously(self, unit: Unit[T], phase: Phase, request_id: str) -> SynchronousOutcome[T]:
        runner = self._runtime.runners[phase.policy.authoritative]
        started = time.perf_counter()

        async def attempt() -> T:
            async with runner.transaction(
                request_id=request_id,
                journals_touched=self._runtime.journals_touched(phase.policy.authoritative),
            ) as transaction:
                value = await unit(transaction.work)
                await transaction.commit()
            return value

        value = await runner.repeat(attempt)
        direction = phase.policy.direction
        if direction:
            self._runtime.relays[direction].wake()
        return SynchronousOutcome(
            value=value,
            second_write=SecondWrite.PENDING if direction else SecondWrite.NONE,
            error=None,
            first_seconds=time.perf_counter() - started,
            second_seconds=0.0,
        )

    async def _synchronously(self, unit: Unit[T], phase: Phase, request_id: str) -> SynchronousOutcome[T]:
        runtime, direction = self._runtime, phase.policy.direction
        if direction is None:
            raise AssertionError("only a phase with a secondary side is written synchronously")
        writer = runtime.synchronous_writer(direction)
        epoch, fails_call = runtime.control.epoch, runtime.settings.fails_on(direction.target)

        async def attempt() -> SynchronousOutcome[T]:
            return await writer.run(
                unit,
                request_id=request_id,
                epoch=epoch,
                fails_call=fails_call,
                journals_touched=runtime.journals_touched(direction.source),
            )

        task = asyncio.ensure_future(runtime.runners[direction.source].repeat(attempt))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return await asyncio.shield(task)

    def _succeeded(
        self, operation: str, phase: Phase, outcome: SynchronousOutcome[T], request_id: str
    ) -> DualWriteResult[T]:
        policy = phase.policy
        first, second = policy.authoritative, policy.authoritative.other
        self._count(operation, first, OperationOutcome.SUCCEEDED, outcome.first_seconds)
        seconds = {first: outcome.first_seconds}
        if policy.direction and outcome.second_write is not SecondWrite.NONE:
            applied = outcome.second_write is SecondWrite.APPLIED
            how = OperationOutcome.SUCCEEDED if applied else OperationOutcome.PENDING
            self._count(operation, second, how, outcome.second_seconds if applied else None)
            if applied:
                seconds[second] = outcome.second_seconds
        if self._runtime.settings.log_all or not self._runtime.settings.log_errors_only:
            log.info(
                "operation_written",
                service=self._runtime.service,
                operation=operation,
                second_write=outcome.second_write.value,
                request_id=request_id,
            )
        return DualWriteResult(
            operation=operation,
            success=True,
            phase=phase,
            authoritative=first,
            second_write=outcome.second_write,
            value=outcome.value,
            seconds=seconds,
            request_id=request_id,
            **{f"{second.value}_db_error": outcome.error},
        )

    def _failed(
        self, operation: str, phase: Phase, error: SideError, request_id: str, seconds: float
    ) -> DualWriteResult[Any]:
        how = OperationOutcome.UNAVAILABLE if error.unavailable else OperationOutcome.REFUSED
        self._count(operation, error.side, how, seconds)
        log.warning(
            "operation_failed",
            service=self._runtime.service,
            operation=operation,
            side=error.side.value,
            error=str(error),
            request_id=request_id,
        )
        return DualWriteResult(
            operation=operation,
            success=False,
            phase=phase,
            authoritative=phase.policy.authoritative,
            second_write=SecondWrite.FAILED if phase.policy.dual else SecondWrite.NONE,
            error=error,
            seconds={error.side: seconds},
            request_id=request_id,
            **{f"{error.side.value}_db_error": error},
        )

    def _count(self, operation: str, side: Side, outcome: OperationOutcome, seconds: float | None) -> None:
        self._runtime.metrics.operation_finished(
            service=self._runtime.service, operation=operation, side=side, outcome=outcome, seconds=seconds
        )
