"""Single values: how each type of BSON that the schema knows stands in a column, and how it is read from one.

A kind turns a value into a column's, and a hint where the column cannot say it all: the hint is kept beside the row, in
`extra`. The column has the last word: a hint that no longer agrees with it (somebody has changed the row) is not heeded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Any, NamedTuple, Protocol

from bson import Decimal128, ObjectId

from backend.shared.domain.mapping import UnfitError

from .bson_text import same_bson, type_name

MAX_DIGITS = 1000
"""The longest number, written out without an exponent."""

_ID = re.compile(r"[0-9a-f]{24}")


class Kept(NamedTuple):
    """A value in a column, and what is to be kept beside it (None: nothing)."""

    column: Any
    hint: Any = None


class Kind(Protocol):
    """One type of values. Both directions raise `UnfitError` that names the field."""

    def keep(self, value: Any, *, field: str) -> Kept:
        """A value of a document, as the column holds it."""
        ...

    def restore(self, column: Any, hint: Any, *, field: str) -> Any:
        """The value of the document, from a column's value that is not NULL."""
        ...


def wrong_type(value: object, *, expected: str, field: str) -> UnfitError:
    """The error of a value that has another type than the field."""
    return UnfitError(f"{field}: {type_name(value)} where {expected} is expected")


@dataclass(frozen=True, kw_only=True)
class TextKind:
    """A string. `max_bytes` limits its UTF-8, `pattern` its form, which messages call `form`."""

    max_bytes: int | None = None
    pattern: str | None = None
    form: str = ""

    def keep(self, value: Any, *, field: str) -> Kept:
        if type(value) is not str:  # JavaScript code is a string to Python
            raise wrong_type(value, expected="string", field=field)
        return Kept(self._checked(value, field=field))

    def restore(self, column: Any, hint: Any, *, field: str) -> str:  # noqa: ARG002 - the protocol's
        if not isinstance(column, str):
            raise UnfitError(f"{field}: the column holds no text")
        return self._checked(column, field=field)

    def _checked(self, value: str, *, field: str) -> str:
        if "\0" in value:
            raise UnfitError(f"{field}: a text with a NUL character")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise UnfitError(f"{field}: a text that is not UTF-8") from None
        if self.max_bytes is not None and size > self.max_bytes:
            raise UnfitError(f"{field}: a text of more than {self.max_bytes} bytes")
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            raise UnfitError(f"{field}: a string that is no {self.form}")
        return value


class ReferenceKind:
    """An ObjectId, as its 24 digits."""

    def keep(self, value: Any, *, field: str) -> Kept:
        if not isinstance(value, ObjectId):
            raise wrong_type(value, expected="objectId", field=field)
        return Kept(str(value))

    def restore(self, column: Any, hint: Any, *, field: str) -> ObjectId:  # noqa: ARG002 - the protocol's
        if not isinstance(column, str) or not _ID.fullmatch(column):
            raise UnfitError(f"{field}: the column holds no 24 digits of an objectId")
        return ObjectId(column)


class BooleanKind:
    """True or false, and nothing that counts as such."""

    def keep(self, value: Any, *, field: str) -> Kept:
        if not isinstance(value, bool):
            raise wrong_type(value, expected="bool", field=field)
        return Kept(value)

    def restore(self, column: Any, hint: Any, *, field: str) -> bool:  # noqa: ARG002 - the protocol's
        if not isinstance(column, bool):
            raise UnfitError(f"{field}: the column holds no boolean")
        return column


class MomentKind:
    """A date, in milliseconds since 1970 as BSON has it; one without a time zone is UTC, as the driver has it."""

    def keep(self, value: Any, *, field: str) -> Kept:
        if not isinstance(value, datetime):
            if type_name(value) == "date":
                raise UnfitError(f"{field}: a date outside of the years 1 to 9999")
            raise wrong_type(value, expected="date", field=field)
        moment = _utc(value, field=field)
        # Finer digits do not reach a document: the driver cuts them off.
        return Kept(moment.isoformat(timespec="milliseconds"))

    def restore(self, column: Any, hint: Any, *, field: str) -> datetime:  # noqa: ARG002 - the protocol's
        try:
            moment = datetime.fromisoformat(column)
        except (TypeError, ValueError):
            raise UnfitError(f"{field}: the column holds no date of the years 1 to 9999") from None
        if moment.microsecond % 1000:
            raise UnfitError(f"{field}: the column holds parts of a millisecond")
        return _utc(moment, field=field)


def _utc(moment: datetime, *, field: str) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise UnfitError(f"{field}: a date outside of the years 1 to 9999") from None


class NumberKind:
    """A Decimal128 in a numeric column; other numbers too, as old programs wrote them, with their type as the hint."""

    def keep(self, value: Any, *, field: str) -> Kept:
        column = self._plain(value, field=field)
        return Kept(column, None if same_bson(Decimal128(column), value) else value)

    def restore(self, column: Any, hint: Any, *, field: str) -> Any:
        if isinstance(column, bool) or not isinstance(column, str | int | Decimal):
            raise UnfitError(f"{field}: the column holds no exact number")
        try:
            number = Decimal(column)
            if hint is not None and _equal(Decimal(self._plain(hint, field=field)), number):
                return hint
            return Decimal128(number)
        except (DecimalException, ValueError):
            raise UnfitError(f"{field}: the column holds a number that Decimal128 cannot") from None

    @staticmethod
    def _plain(value: Any, *, field: str) -> str:
        """The number without exponent, and without the sign of a zero."""
        if isinstance(value, Decimal128):
            number = value.to_decimal()
            if Decimal128(str(value)) != value:
                raise UnfitError(f"{field}: a NaN with a sign or a payload, or a decimal out of form")
        elif isinstance(value, float):
            number = Decimal(repr(value))
        elif isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
            number = Decimal(int(value))
        else:
            raise wrong_type(value, expected="decimal", field=field)
        if not number.is_finite():
            return str(number)
        if number.is_zero():
            number = number.copy_abs()
        _, digits, exponent = number.as_tuple()
        if len(digits) + abs(int(exponent)) > MAX_DIGITS:
            raise UnfitError(f"{field}: {type_name(value)} of more than {MAX_DIGITS} digits")
        return format(number, "f")


def _equal(one: Decimal, other: Decimal) -> bool:
    return (one.is_nan() and other.is_nan()) or one == other


@dataclass(frozen=True, kw_only=True)
class ChoiceKind:
    """One of a closed set of words; old programs have spelled some of them otherwise, which is kept as the hint."""

    choices: tuple[str, ...]
    spellings: frozenset[tuple[str, str]] = frozenset()
    """Other words for a choice, in lower case with `_` between words."""

    def keep(self, value: Any, *, field: str) -> Kept:
        if type(value) is not str:
            raise wrong_type(value, expected="string", field=field)
        if value in self.choices:
            return Kept(value)
        choice = self._choice(value)
        if choice is None:
            raise UnfitError(f"{field}: a string that is none of {', '.join(self.choices)}")
        return Kept(choice, value)

    def restore(self, column: Any, hint: Any, *, field: str) -> str:
        if not isinstance(column, str) or column not in self.choices:
            raise UnfitError(f"{field}: the column holds none of {', '.join(self.choices)}")
        return hint if isinstance(hint, str) and self._choice(hint) == column else column

    def _choice(self, value: str) -> str | None:
        if not value.isascii() or not value.isprintable():
            return None
        word = re.sub(r"[ -]", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value)).lower()
        return word if word in self.choices else dict(self.spellings).get(word)


REFERENCE = ReferenceKind()
TEXT = TextKind()
BOOLEAN = BooleanKind()
MOMENT = MomentKind()
NUMBER = NumberKind()
