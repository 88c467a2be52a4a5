"""The way of a write: authoritative side first, then what the phase and the settings ask for on the other."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any, TypeVar

import structlog

from backend.shared.dispatch import BothSidesFailedError, Dispatch, Write
from backend.shared.domain.errors import SideError, ValidationError
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.phases import Phase, Side
from backend.shared.domain.results import DualWriteResult, SecondWrite
from backend.shared.journal.synchronous import SecondaryRefusedError, SynchronousOutcome
from backend.shared.observability.context import current_request_id
from backend.shared.observability.labels import OperationOutcome
from backend.shared.observability.tracing import span
from backend.shared.runtime import ServiceRuntime
from backend.shared.unit_of_work import UnitOfWork
from backend.shared.units import Unit

T = TypeVar("T")
log = structlog.get_logger(__name__)


class WritePath:
    """Runs units of work as the phase says."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._runtime = runtime
        self._dispatch = Dispatch(runtime)

    async def run(self, operation: str, unit: Unit[T], *, isolation: Isolation) -> DualWriteResult[T]:
        """One operation. Bad input (`ValidationError`) is raised; trouble with a database is in the result.

        When `success` is True the operation is durable on the authoritative side (I1), or stranded, where either side will do.
        A caller that is cancelled does
        not cancel a synchronous second write under way.
        """
        told = {"tandem.service": self._runtime.service, "tandem.operation": operation}
        with span(f"write {operation}", told) as traced:
            entities: set[str] = set()

            async def noting(work: UnitOfWork) -> T:
                value = await unit(work)
                entities.update(work.touched)
                return value

            result = await self._run(operation, noting, isolation)
            traced.note(
                {
                    "tandem.phase": result.phase.value,
                    "tandem.side": result.authoritative.value,
                    "tandem.second_write": result.second_write.value,
                    "tandem.entities": sorted(entities),
                }
            )
            if result.error is not None:
                traced.failed(type(result.error).__name__)
            return result

    async def _run(self, operation: str, unit: Unit[T], isolation: Isolation) -> DualWriteResult[T]:
        runtime = self._runtime
        request_id = current_request_id() or uuid.uuid4().hex
        started = time.perf_counter()
        write = Write(unit=unit, request_id=request_id, isolation=isolation)
        phase, policy = runtime.phase, runtime.phase.policy

        async def attempt() -> SynchronousOutcome[T]:
            nonlocal phase, policy
            phase, policy = runtime.phase, runtime.phase.policy
            return await self._dispatch.run(write, phase)

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
        except BothSidesFailedError as error:
            seconds = time.perf_counter() - started
            return self._failed(operation, phase, error.first, request_id, seconds, also=error.second)
        except (SideError, SecondaryRefusedError) as error:
            cause = error.error if isinstance(error, SecondaryRefusedError) else error
            return self._failed(operation, phase, cause, request_id, time.perf_counter() - started)
        return self._succeeded(operation, phase, outcome, request_id)

    async def finish(self) -> None:
        """Wait for second writes whose callers went away."""
        await self._dispatch.finish()

    def _succeeded(
        self, operation: str, phase: Phase, outcome: SynchronousOutcome[T], request_id: str
    ) -> DualWriteResult[T]:
        policy = phase.policy
        first, second = policy.authoritative, policy.authoritative.other
        if outcome.second_write is SecondWrite.STRANDED:
            return self._stranded(operation, phase, outcome, request_id)
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

    def _stranded(
        self, operation: str, phase: Phase, outcome: SynchronousOutcome[T], request_id: str
    ) -> DualWriteResult[T]:
        first = phase.policy.authoritative
        self._count(operation, first, OperationOutcome.UNAVAILABLE, None)
        self._count(operation, first.other, OperationOutcome.SUCCEEDED, outcome.second_seconds)
        log.warning(
            "operation_stranded",
            service=self._runtime.service,
            operation=operation,
            side=first.other.value,
            request_id=request_id,
        )
        return DualWriteResult(
            operation=operation,
            success=True,
            phase=phase,
            authoritative=first,
            second_write=outcome.second_write,
            value=outcome.value,
            seconds={first.other: outcome.second_seconds},
            request_id=request_id,
            **{f"{first.value}_db_error": outcome.error},
        )

    def _failed(
        self,
        operation: str,
        phase: Phase,
        error: SideError,
        request_id: str,
        seconds: float,
        *,
        also: SideError | None = None,
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
            **{f"{item.side.value}_db_error": item for item in (error, also) if item is not None},
        )

    def _count(self, operation: str, side: Side, outcome: OperationOutcome, seconds: float | None) -> None:
        self._runtime.metrics.operation_finished(
            service=self._runtime.service, operation=operation, side=side, outcome=outcome, seconds=seconds
        )
