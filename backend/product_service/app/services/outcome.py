"""What a failed operation means to the caller, where it is she who can do something about it."""

from __future__ import annotations

from typing import TypeVar

from backend.shared import ConflictError, DualWriteResult, SideError, ValidationError

T = TypeVar("T")

# A unit looks before it writes; these are what somebody else did between the two, and what only a database knows.
_MEANINGS: dict[str, tuple[type[ValidationError], str]] = {
    "23505": (ConflictError, "there is one with this name already"),
    "23503": (
        ConflictError,
        "something that this refers to, or that refers to this, was changed at the same time",
    ),
    "22001": (ValidationError, "a text is too long"),
    "22003": (ValidationError, "a number is out of range"),
}


def value_of(result: DualWriteResult[T]) -> T:
    """The value of an operation.

    Raises ConflictError or ValidationError where a database refused what was asked for, and the error as it is where
    it could not answer.
    """
    error = result.error
    if not result.success and isinstance(error, SideError) and error.sqlstate in _MEANINGS:
        kind, message = _MEANINGS[error.sqlstate]
        raise kind(message) from error
    return result.unwrap()
