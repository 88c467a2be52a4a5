"""What a failed operation means to the caller, where it is she who can do something about it."""

from __future__ import annotations

from typing import TypeVar

from backend.shared.domain.errors import ConflictError, SideError
from backend.shared.domain.results import DualWriteResult

T = TypeVar("T")

# Unique and foreign keys: a unit looks before it writes, so somebody else wrote between the two.
_CLASHES = frozenset({"23505", "23503"})


def value_of(result: DualWriteResult[T]) -> T:
    """The value of an operation.

    Raises ConflictError where somebody else's change came in between, and the error as it is where a database could not
    answer.
    """
    error = result.error
    if not result.success and isinstance(error, SideError) and error.sqlstate in _CLASHES:
        raise ConflictError("somebody else changed this at the same time; try again") from error
    return result.unwrap()
