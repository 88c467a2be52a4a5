"""What is irregular in the documents and fits all the same, and the draws that make it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp


class Shape(StrEnum):
    """The irregularities, as the report counts them; a document may have several."""

    FIELD_MISSING = "field_missing"
    FIELD_NULL = "field_null"
    FIELD_UNKNOWN = "field_unknown"
    FIELD_ORDER = "field_order"
    ARRAY_EMPTY = "array_empty"
    ARRAY_REPEATS = "array_repeats"
    NESTED_EMPTY = "nested_empty"
    NESTED_UNKNOWN = "nested_unknown"
    TEXT_EMPTY = "text_empty"
    TEXT_ODD = "text_odd"
    WORD_SPELLED = "word_spelled"
    NUMBER_NO_DECIMAL = "number_no_decimal"
    DECIMAL_ODD = "decimal_odd"
    DATE_FAR = "date_far"
    EMBEDDED_ORDER = "embedded_order"


MISSING = object()
"""Stands for a field that is not there."""

_FIRST_DAY = datetime(2021, 1, 1, tzinfo=UTC)
_MILLISECONDS = 4 * 365 * 86_400_000
_WORDS = [
    "review",
    "order",
    "ship",
    "call",
    "plan",
    "mend",
    "paint",
    "write",
    "count",
    "sort",
    "test",
    "clean",
    "move",
    "draw",
    "print",
    "pack",
]
_ODD_TEXTS = (
    *(
        "  padded ",
        "tab\there",
        "line\nbreak",
        'quote " and \\',
        "a literal \\u0000",
        "naïve café",
        "日本語 の 仕事",
    ),
    *(
        "🚚 deliver",
        "e\u0301 combined",
        "\u202eright to left",
        "\x01 control",
        "O'Brien; DROP TABLE",
        "null",
        "\ufffe",
    ),
)
_FAR_DATES = (
    *(
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1582, 10, 10, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999000, UTC),
    ),
    *(datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999000, UTC)),
)
_ODD_DECIMALS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "-0",
    "0E+3",
    "-0.00",
    "1E+6",
    "1.200",
    "1E-300",
    "9" * 34,
    "0." + "3" * 34,
)
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "todo": ("TODO", "to do", "To-Do"),
    "in_progress": ("In Progress", "inProgress", "IN_PROGRESS", "in-progress"),
    "done": ("Done", "completed"),
    "cancelled": ("canceled", "Cancelled"),
    "low": ("Low",),
    "medium": ("normal", "MEDIUM"),
    "high": ("HIGH",),
    "urgent": ("Urgent",),
}
_VALUES = (
    *(None, True, 42, Int64(5), 2.5, float("nan"), -0.0, "text", "", Decimal128("1E+3"), b"\x00\xff"),
    *(Regex("^a", "im"), Timestamp(1, 2), Code("f()"), Code("f()", {"b": 1, "a": 2}), MaxKey()),
)


class Draw:
    """Seeded draws, which count what is irregular."""

    def __init__(self, rng: random.Random, *, counts: Counter[Shape]) -> None:
        self.rng = rng
        self._counts = counts

    def chance(self, percent: float) -> bool:
        """True in so many of a hundred cases."""
        return self.rng.random() * 100 < percent

    def one_of(self, shape: Shape, values: tuple[Any, ...]) -> Any:
        """One of `values`, counted as `shape`."""
        self.count(shape)
        return self.rng.choice(values)

    def count(self, shape: Shape) -> None:
        """Note one of this shape."""
        self._counts[shape] += 1

    def optional(self, value: Callable[[], Any], *, missing: float = 15, null: float = 10) -> Any:
        """A value, or null, or `MISSING`."""
        if self.chance(missing):
            return self.one_of(Shape.FIELD_MISSING, (MISSING,))
        return self.one_of(Shape.FIELD_NULL, (None,)) if self.chance(null) else value()

    def text(self, words: int = 3) -> str:
        """A line of words, or something odd."""
        if self.chance(2):
            return str(self.one_of(Shape.TEXT_EMPTY, ("",)))
        line = " ".join(self.rng.choices(_WORDS, k=words))
        return f"{line} {self.one_of(Shape.TEXT_ODD, _ODD_TEXTS)}" if self.chance(6) else line

    def moment(self, *, far: float = 1) -> datetime:
        """A time with milliseconds; now and then at the end of the calendar."""
        if self.chance(far):
            found: datetime = self.one_of(Shape.DATE_FAR, _FAR_DATES)
            return found
        return _FIRST_DAY + timedelta(milliseconds=self.rng.randrange(_MILLISECONDS))

    def word(self, words: tuple[str, ...]) -> str:
        """One of a closed set, now and then spelled otherwise."""
        word = self.rng.choice(words)
        return str(self.one_of(Shape.WORD_SPELLED, _SPELLINGS[word])) if self.chance(5) else word

    def number(self) -> Any:
        """Hours, as Decimal128, or as what old programs wrote."""
        cents = self.rng.randrange(1, 10_000)
        if self.chance(10):
            others = (
                cents // 100,
                Int64(cents),
                cents / 100,
                -0.0,
                0.1,
                float("inf"),
                Int64(2**53 + 1),
                1e-7,
            )
            return self.one_of(Shape.NUMBER_NO_DECIMAL, others)
        odd = self.chance(3)
        return Decimal128(str(self.one_of(Shape.DECIMAL_ODD, _ODD_DECIMALS)) if odd else f"{cents / 100:.2f}")

    def unknown(self, *, percent: float = 6, shape: Shape = Shape.FIELD_UNKNOWN) -> dict[str, Any]:
        """Fields that no schema knows, of any type."""
        if not self.chance(percent):
            return {}
        self.count(shape)
        names = (
            "legacyFlag",
            "meta",
            "is deleted",
            "ünï",
            "__v",
            "_class",
            "x.y",
            "extra",
            "mongo_id",
            "sync_status",
        )
        return {name: self._anything() for name in self.rng.sample(names, k=self.rng.randrange(1, 4))}

    def _anything(self, depth: int = 2) -> Any:
        rng = self.rng
        if depth and self.chance(30):
            return [self._anything(depth - 1) for _ in range(rng.randrange(4))]
        if depth and self.chance(30):
            return {name: self._anything(depth - 1) for name in rng.sample(("zeta", "a", "", "b c"), k=2)}
        match rng.randrange(6):
            case 0:
                return self.moment(far=10)
            case 1:
                return self.id() if self.chance(50) else DBRef("users", self.id())
            case 2:
                return Binary(rng.randbytes(16), 4)
            case _:
                return rng.choice(_VALUES)

    def id(self) -> ObjectId:
        """An id of nothing."""
        return ObjectId(self.rng.randbytes(12))

    def arranged(self, document: dict[str, Any]) -> dict[str, Any]:
        """Without the missing fields, and now and then in another order."""
        fields = [(name, value) for name, value in document.items() if value is not MISSING]
        if self.chance(5):
            self.count(Shape.FIELD_ORDER)
            self.rng.shuffle(fields)
        return dict(fields)
