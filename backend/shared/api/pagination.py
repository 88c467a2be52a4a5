"""Keyset pagination: a page, and an opaque cursor that holds the sort key of its last item.

A cursor is no secret and grants nothing: it only says where to go on, and the query filters as ever. It names its
listing, so that one listing's cursor is refused by another.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from backend.shared.api.fields import MAX_INT64
from backend.shared.domain.errors import ValidationError

MAX_PAGE_SIZE = 200
DEFAULT_PAGE_SIZE = 50
MAX_CURSOR_LENGTH = 1024

T = TypeVar("T")
Row = TypeVar("Row")
CursorValue = int | str | Decimal | datetime
CursorType = type[int] | type[str] | type[Decimal] | type[datetime]


class Page(BaseModel, Generic[T]):
    """Some items of a listing, and the cursor of the next ones; None at the end."""

    items: list[T]
    next_cursor: str | None = Field(
        default=None, description="Give it back as `cursor` to go on; null at the end."
    )


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """How much to list, and from where on."""

    limit: int = DEFAULT_PAGE_SIZE
    cursor: str | None = None

    def after(self, listing: str, *, types: Sequence[CursorType]) -> tuple[CursorValue, ...] | None:
        """The sort key of the last item already seen, or None at the beginning.

        Raises ValidationError when the cursor is not one of this `listing`.
        """
        return None if self.cursor is None else decode_cursor(self.cursor, listing=listing, types=types)

    def page(
        self, rows: Sequence[Row], *, listing: str, key: Callable[[Row], Sequence[CursorValue]]
    ) -> Page[Row]:
        """A page of `rows`, of which the caller fetched up to `limit + 1`, to see whether there are more."""
        items = list(rows[: self.limit])
        more = len(rows) > self.limit
        return Page(items=items, next_cursor=encode_cursor(key(items[-1]), listing=listing) if more else None)


def page_request(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Items per page.")] = DEFAULT_PAGE_SIZE,
    cursor: Annotated[
        str | None, Query(max_length=MAX_CURSOR_LENGTH, description="`next_cursor` of the page before.")
    ] = None,
) -> PageRequest:
    """The query parameters of every listing."""
    return PageRequest(limit=limit, cursor=cursor or None)


DepPage = Annotated[PageRequest, Depends(page_request)]


def encode_cursor(values: Sequence[CursorValue], *, listing: str) -> str:
    """An opaque cursor for the sort key `values`."""
    parts = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    text = json.dumps([listing, *(str(part) if isinstance(part, Decimal) else part for part in parts)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *, listing: str, types: Sequence[CursorType]) -> tuple[CursorValue, ...]:
    """The sort key that `encode_cursor` was given. Raises ValidationError for anything else."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
        return _values(parts, listing=listing, types=types)
    except (ValueError, binascii.Error, RecursionError, InvalidOperation) as error:
        raise ValidationError("the cursor is not one that this listing has given out") from error


def _values(parts: object, *, listing: str, types: Sequence[CursorType]) -> tuple[CursorValue, ...]:
    if not isinstance(parts, list) or len(parts) != len(types) + 1 or parts[0] != listing:
        raise ValueError("not a cursor of this listing")
    return tuple(_value(part, kind=kind) for part, kind in zip(parts[1:], types, strict=True))


def _value(part: object, *, kind: CursorType) -> CursorValue:
    if kind is int and isinstance(part, int) and not isinstance(part, bool) and abs(part) <= MAX_INT64:
        return part
    if not isinstance(part, str) or "\x00" in part or any("\ud800" <= char <= "\udfff" for char in part):
        raise ValueError("a cursor part of another type")
    if kind is str:
        return part
    if kind is datetime:
        return _moment(part)
    if kind is Decimal:
        return _number(part)
    raise ValueError("a cursor part of another type")


def _moment(part: str) -> datetime:
    moment = datetime.fromisoformat(part)
    if moment.tzinfo is None:
        raise ValueError("a time without zone")
    return moment


def _number(part: str) -> Decimal:
    number = Decimal(part)
    if not number.is_finite() or abs(number.adjusted()) > 30:
        raise ValueError("not a number to sort by")
    return number
