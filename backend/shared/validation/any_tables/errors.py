"""Why two tables could not be compared, in one line that holds neither a password nor a value of a row."""

from __future__ import annotations

from dataclasses import dataclass

from backend.shared.domain.errors import TandemError
from backend.shared.domain.phases import Side
from backend.shared.stores.errors import classify, describe, is_database_error, sqlstate_of
from backend.shared.stores.protocol import Trouble
from backend.shared.validation.sides import Sides, UnreadableRowError


class DiffError(TandemError):
    """The tables could not be compared: no such table, no key, no permission, no answer."""


NAMES = {Side.LEGACY: "A", Side.NEW: "B"}
"""The engine knows the first table as that of the legacy side."""


@dataclass(frozen=True, kw_only=True)
class TwoDatabases(Sides):
    """`Sides` whose errors speak of A and B."""

    def _told(self, error: Exception, side: Side) -> Exception:
        if not is_database_error(error):
            return error
        if classify(error) is Trouble.REFUSED:
            return UnreadableRowError()
        return DiffError(f"{NAMES[side]}: {_reason(error)}")


def unreadable(error: UnreadableRowError) -> DiffError:
    """`error` as one line."""
    reason = describe(error.__cause__) if error.__cause__ else "data refused"
    return DiffError(f"a row cannot be read as asked: {reason}")


def _reason(error: Exception) -> str:
    # Class 42 speaks of names and of the user's own SQL, never of values: what it says helps most.
    state = sqlstate_of(error)
    if state is not None and state.startswith("42"):
        root = getattr(getattr(error, "orig", None), "__cause__", None) or error
        return f"{str(root).splitlines()[0]} (SQLSTATE {state})"
    return describe(error)
