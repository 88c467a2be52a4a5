"""Types for what comes over the wire, so narrow that a database never has to refuse it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool
from pydantic_core import PydanticCustomError

MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1


def _without_nul(text: str) -> str:
    # PostgreSQL's text cannot hold it.
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    return text


def _number(value: object) -> object:
    # Pydantic would also read "7" and true as numbers, which the OpenAPI document does not say.
    if isinstance(value, str | bytes | bool):
        raise PydanticCustomError("number_type", "Input should be a number")
    return value


PlainText = Annotated[str, AfterValidator(_without_nul)]
"""Text that PostgreSQL can store; give it a length where it is used."""

PathKey = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A key as part of a path."""

DatabaseId = Annotated[int, Field(ge=1, le=MAX_INT32)]
"""The id of a row in an `integer` column."""

BigDatabaseId = Annotated[int, Field(ge=1, le=MAX_INT64)]
"""The id of a row in a `bigint` column."""

JsonBool = StrictBool
"""A truth value in a JSON body: `true` or `false`, and not 0, "no" or "off"."""

JsonInt = Annotated[int, BeforeValidator(_number)]
"""A whole number in a JSON body, and not a text or a truth value."""

JsonFloat = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
"""A finite number in a JSON body, and not a text or a truth value."""
