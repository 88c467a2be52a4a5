"""Exercises every operation of a running service's manager, and says whether both databases took it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from backend.shared.domain.errors import TandemError
from backend.shared.domain.mapping import encode_key
from backend.shared.domain.phases import Side
from backend.shared.domain.results import Exercised
from backend.shared.dual_write_manager import DualWriteManager


@dataclass(frozen=True, kw_only=True)
class ExerciseResult:
    """One line of the report."""

    test_name: str
    success: bool
    new_db_success: bool
    legacy_db_success: bool
    sync_validated: bool
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The form that the report prints."""
        return {
            "test_name": self.test_name,
            "success": self.success,
            "details": {
                "new_db_success": self.new_db_success,
                "legacy_db_success": self.legacy_db_success,
                "sync_validated": self.sync_validated,
                "error": self.error,
            },
        }


@dataclass(frozen=True, kw_only=True)
class ExerciseReport:
    """What all exercises came to."""

    results: tuple[ExerciseResult, ...] = field(default=())

    @property
    def success(self) -> bool:
        """Whether there were any, and all of them passed."""
        return bool(self.results) and all(result.success for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """`summary` and `test_results`; `success_rate` is in per cent."""
        total, passed = len(self.results), sum(result.success for result in self.results)
        return {
            "summary": {
                "total_tests": total,
                "passed_tests": passed,
                "failed_tests": total - passed,
                "success_rate": round(100 * passed / total, 2) if total else 0.0,
            },
            "test_results": [result.to_dict() for result in self.results],
        }


async def exercise(manager: DualWriteManager) -> list[ExerciseResult]:
    """Call each operation of `manager` on entities made for it, and remove them again.

    After each one its keys are carried and compared. An operation that raises ends the exercise of this service with a
    failed line; what it had made is removed all the same.
    """
    results: list[ExerciseResult] = []
    steps: AsyncIterator[Exercised] = manager.exercise()
    try:
        async for step in steps:
            results.append(await _judged(manager, step))  # noqa: PERF401 - those before an error count
    except TandemError as error:
        results.append(_failed(f"{manager.service}.exercise", error))
    return results


async def _judged(manager: DualWriteManager, step: Exercised) -> ExerciseResult:
    name, result = f"{manager.service}.{step.name}", step.result
    if not result.success:
        return _failed(name, result.error or TandemError("failed without saying why"))
    settled = True
    for entity, key in step.keys:
        settled = settled and await manager.settle(entity, key)
    taken = {result.authoritative: True, result.authoritative.other: settled}
    return ExerciseResult(
        test_name=name,
        success=settled,
        new_db_success=taken[Side.NEW],
        legacy_db_success=taken[Side.LEGACY],
        sync_validated=settled,
        error=None if settled else f"not equal: {', '.join(f'{e} {encode_key(k)}' for e, k in step.keys)}",
    )


def _failed(name: str, error: Exception) -> ExerciseResult:
    return ExerciseResult(
        test_name=name,
        success=False,
        new_db_success=False,
        legacy_db_success=False,
        sync_validated=False,
        error=str(error),
    )
