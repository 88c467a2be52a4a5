"""Types of what callers send, each with a schema that says all that is checked."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from backend.shared.api.fields import MAX_INT32, DatabaseId

from .entities import MAX_PRICE, MAX_STOCK_COUNT

_PRICE = r"^(0|[1-9][0-9]{0,6})(\.[0-9]{1,2})?$"
_BLANKLESS_ENDS = r"^[^\s{0}]([^{0}]*[^\s{0}])?$"
_CONTROLS = r"\x00-\x1f\x7f"


def _price(value: object) -> Decimal:
    """A JSON string or number. A number is taken by its shortest decimal form, which is what the caller wrote."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        # pydantic reports a ValueError to the caller, and lets a TypeError through.
        raise ValueError("must be a price: a string like '12.50', or a number")  # noqa: TRY004
    text = repr(value) if isinstance(value, float) else str(value)
    if isinstance(value, str) and not re.fullmatch(_PRICE, text):
        raise ValueError("must have up to seven digits, and up to two more behind a point")
    try:
        price = Decimal(text)
    except InvalidOperation:  # an integer too long to be printed
        raise ValueError("must be a price") from None
    if not price.is_finite() or not 0 <= price <= MAX_PRICE:
        raise ValueError(f"must be from 0 to {MAX_PRICE}")
    if price != round(price, 2):
        raise ValueError("must have at most two decimals")
    return abs(round(price, 2))  # abs: no negative zero


def _whole(value: object) -> object:
    """As JSON Schema has it: 5.0 is an integer, and neither "5" nor true is one."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _flag(value: object) -> object:
    """As in the schema: pydantic would take 1, yes, on and others too."""
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


_STRING_PRICE: dict[str, Any] = {"type": "string", "pattern": _PRICE, "examples": ["12.50"]}
_NUMBER_PRICE: dict[str, Any] = {
    "type": "number",
    "minimum": 0,
    "maximum": float(MAX_PRICE),
    "multipleOf": 0.01,
}

Price = Annotated[Decimal, BeforeValidator(_price), WithJsonSchema({"anyOf": [_STRING_PRICE, _NUMBER_PRICE]})]
"""A price in a body: from 0 to 9999999.99, in whole cents."""

QueryPrice = Annotated[Decimal, BeforeValidator(_price), WithJsonSchema(_STRING_PRICE)]
"""A price in a query."""

StoredPrice = Annotated[
    Decimal, WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2}$", "examples": ["12.50"]})
]
"""A price as it stands in the database; history has some below zero."""

QueryFlag = Annotated[bool, BeforeValidator(_flag)]

Sku = Annotated[str, Field(min_length=1, max_length=20, pattern=_BLANKLESS_ENDS.format(_CONTROLS))]
"""A stock code; letter case counts."""

ProductName = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]
"""Any text at all, since a name that came from history must be able to go back as it is."""

CategoryName = Annotated[
    str, Field(min_length=1, max_length=100, pattern=_BLANKLESS_ENDS.format(_CONTROLS + "/"))
]
"""A segment of a path: no slash, no blanks at its ends, no control characters."""

BodyId = Annotated[DatabaseId, BeforeValidator(_whole)]
Quantity = Annotated[int, Field(ge=0, le=MAX_STOCK_COUNT), BeforeValidator(_whole)]
Delta = Annotated[int, Field(ge=-MAX_STOCK_COUNT, le=MAX_STOCK_COUNT), BeforeValidator(_whole)]

SearchText = Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$")]

IdList = Annotated[str, Field(max_length=2200, pattern=r"^[1-9][0-9]{0,9}(,[1-9][0-9]{0,9}){0,199}$")]
"""Up to 200 ids, separated by commas."""


def parse_ids(text: str) -> tuple[list[int], list[int]]:
    """The ids of an `IdList`: those that a database could have, and those that none can."""
    ids = {int(part) for part in text.split(",")}
    return sorted(i for i in ids if i <= MAX_INT32), sorted(i for i in ids if i > MAX_INT32)
