"""What a dual write answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from backend.shared.domain.errors import SideError, TandemError
from backend.shared.domain.mapping import Key
from backend.shared.domain.phases import Phase, Side

T = TypeVar("T")


class SecondWrite(StrEnum):
    """What became of the write on the secondary side."""

    APPLIED = "applied"
    PENDING = "pending"
    FAILED = "failed"
    NONE = "none"
    """The phase asks for no second write, or the operation changed nothing."""
    STRANDED = "stranded"
    """It was written on the secondary side alone: the authoritative one is away, and gets it when it is back."""


@dataclass(frozen=True, kw_only=True)
class DualWriteResult(Generic[T]):
    """The outcome of one operation.

    `success` is True exactly when the operation is durable on the authoritative side (I1), or STRANDED. `seconds` holds the time
    spent on each side, in seconds.
    """

    operation: str
    success: bool
    phase: Phase
    authoritative: Side
    second_write: SecondWrite
    value: T | None = None
    error: TandemError | None = None
    new_db_error: SideError | None = None
    legacy_db_error: SideError | None = None
    seconds: dict[Side, float] = field(default_factory=dict)
    request_id: str | None = None

    def unwrap(self) -> T:
        """The value; raises the error of a failed operation."""
        if not self.success:
            raise self.error or TandemError(f"{self.operation} failed")
        return self.value  # type: ignore[return-value]  # T may itself be None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; errors as text, without values of rows."""

        def text(error: Exception | None) -> str | None:
            return str(error) if error else None

        return {
            "operation": self.operation,
            "success": self.success,
            "phase": self.phase.value,
            "authoritative": self.authoritative.value,
            "second_write": self.second_write.value,
            "error": text(self.error),
            "new_db_error": text(self.new_db_error),
            "legacy_db_error": text(self.legacy_db_error),
            "new_db_success": self._side_success(Side.NEW),
            "legacy_db_success": self._side_success(Side.LEGACY),
            "seconds": {side.value: seconds for side, seconds in self.seconds.items()},
            "request_id": self.request_id,
        }

    def _side_success(self, side: Side) -> bool:
        if self.second_write is SecondWrite.STRANDED:
            return side is not self.authoritative
        if side is self.authoritative:
            return self.success
        return self.success and self.second_write in (SecondWrite.APPLIED, SecondWrite.NONE)


@dataclass(frozen=True, kw_only=True)
class Exercised:
    """One operation that an exercise has called; `keys` are the entities it wrote, to be compared afterwards."""

    name: str
    result: DualWriteResult[Any]
    keys: Sequence[tuple[str, Key]]
