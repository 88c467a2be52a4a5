"""What a log, or a table, says of an error that may be anybody's: no value of a message or a row, and no password."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from pydantic import ValidationError as InvalidError

from backend.shared.domain.errors import TandemError
from backend.shared.stores.errors import describe, is_database_error

_FRAMES = 3
_FIELDS = 5


def said_of(error: BaseException) -> str:
    """Its type and, of errors whose text is known to hold no values, that text; else where it came from."""
    return f"{type(error).__name__}: {_told(error)}"


def _told(error: BaseException) -> str:
    if isinstance(error, InvalidError):
        return _fields_of(error)
    if isinstance(error, TandemError):
        return str(error)
    if is_database_error(error):
        return describe(error)
    return "at " + ", ".join(came_from(error))


def came_from(error: BaseException) -> list[str]:
    """The last places that an error came through, the innermost at the end."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def _fields_of(error: InvalidError) -> str:
    """What is wrong with which field, of the first few."""
    found = error.errors(include_input=False, include_url=False)
    told = [_field(dict(item)) for item in found[:_FIELDS]]
    left = len(found) - len(told)
    return "; ".join([*told, f"and {left} more"] if left else told)


def _field(item: dict[str, Any]) -> str:
    """A text that was put together may have been so from the input: then the kind of the error stands for it."""
    told = item["type"] if "ctx" in item else item["msg"]
    place = ".".join(str(part) for part in item["loc"])
    return f"{place}: {told}" if place else str(told)
