"""Types of what callers send, each with a schema that says all that is checked."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

from fastapi import Path as PathParameter
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, WithJsonSchema

from .domain.ids import ID_PATTERN
from .domain.tasks import MAX_LABELS, MAX_TITLE, TaskPriority, TaskStatus
from .domain.values import moment

_HOURS = r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,2})?$"
_MAX_HOURS = Decimal("999999.99")
_CONTROLS = r"\x00-\x1f\x7f"
_LINE = rf"^[^\s{_CONTROLS}]([^{_CONTROLS}]*[^\s{_CONTROLS}])?$"


def _hours(value: object) -> Decimal:
    """A JSON string or number. A number is taken by its shortest decimal form, which is what the caller wrote."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        # pydantic reports a ValueError to the caller, and lets a TypeError through.
        raise ValueError("must be hours: a string like '1.5', or a number")  # noqa: TRY004
    text = repr(value) if isinstance(value, float) else str(value)
    if isinstance(value, str) and not re.fullmatch(_HOURS, text):
        raise ValueError("must have up to six digits, and up to two more behind a point")
    try:
        hours = Decimal(text)
    except InvalidOperation:
        raise ValueError("must be hours") from None
    if not hours.is_finite() or not 0 <= hours <= _MAX_HOURS:
        raise ValueError(f"must be from 0 to {_MAX_HOURS}")
    if hours != round(hours, 2):
        raise ValueError("must have at most two decimals")
    return abs(round(hours, 2))  # abs: no negative zero


def _text_of_moment(value: object) -> object:
    """Pydantic would read numbers too, which the schema does not say."""
    if not isinstance(value, str):
        raise ValueError("must be a date and time with a zone, as text")  # noqa: TRY004 - see above
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return moment(value)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None


Id = Annotated[str, Field(pattern=ID_PATTERN, description="24 hex digits, small letters.")]
"""A key, in a body, a query or a path."""

TaskId = Annotated[Id, PathParameter(description="The id of a task.")]
UserId = Annotated[Id, PathParameter(description="The id of a user.")]
TeamId = Annotated[Id, PathParameter(description="The id of a team.")]
WatchListId = Annotated[Id, PathParameter(description="The id of a watch list.")]

Title = Annotated[str, Field(min_length=1, max_length=MAX_TITLE, pattern=_LINE)]
"""A line of text without blanks at its ends."""

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=_LINE)]
"""A shorter one."""

LongText = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")]

Email = Annotated[
    str, Field(max_length=254, pattern=r"^[^\s\x00-\x1f\x7f@]{1,64}@[^\s\x00-\x1f\x7f@]{1,189}$")
]
"""An address, letter by letter: whether it is somebody's is the auth service's affair."""

Color = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$", examples=["#00aaff"])]

# Not strict: a word is all that JSON has for them.
Status = Annotated[TaskStatus, Field(strict=False)]
Priority = Annotated[TaskPriority, Field(strict=False)]

Moment = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_text_of_moment), AfterValidator(_in_utc)
]
"""A point in time with its zone; kept in UTC and in whole milliseconds."""

Hours = Annotated[
    Decimal,
    BeforeValidator(_hours),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _HOURS, "examples": ["1.5"]},
                {"type": "number", "minimum": 0, "maximum": float(_MAX_HOURS), "multipleOf": 0.01},
            ]
        }
    ),
]
"""Hours from 0 to 999999.99, in hundredths."""

LabelIds = Annotated[list[Id], Field(max_length=MAX_LABELS)]
