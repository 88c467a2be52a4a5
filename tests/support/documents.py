"""Documents of the task service that fit, with everything that BSON knows, for Hypothesis."""

from __future__ import annotations

import math
from datetime import UTC
from decimal import Decimal
from typing import Any

import bson
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from hypothesis import strategies as st

from backend.task_service.app.mapping import CODEC, Collection, Items
from backend.task_service.app.mapping.embedded import EmbeddedKind
from backend.task_service.app.mapping.fields import Nested, ObjectFields, Scalar
from backend.task_service.app.mapping.values import (
    BooleanKind,
    ChoiceKind,
    Kind,
    MomentKind,
    NumberKind,
    ReferenceKind,
    TextKind,
)

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NAMES = st.one_of(
    st.sampled_from(["", "source.app", "extra", "mongo_id", "unknown", "null", "é", "long name " * 9, "_ID"]),
    TEXTS.filter(lambda name: not name.startswith("$")),
)
IDS = st.binary(min_size=12, max_size=12).map(ObjectId)
MOMENTS = st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
DOUBLES = st.floats().map(lambda number: math.nan if math.isnan(number) else number)
INTEGERS = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.integers(0, 9).map(Int64),
)


def _decimal(sign: int, digits: int, exponent: int) -> Decimal128:
    return Decimal128(Decimal((sign, tuple(map(int, str(digits))), exponent)))


def decimals(exponents: st.SearchStrategy[int]) -> st.SearchStrategy[Decimal128]:
    return st.one_of(
        st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "0E+3", "-0.00", "1E+6", "1.20"]).map(
            Decimal128
        ),
        st.builds(_decimal, st.integers(0, 1), st.integers(0, 10**34 - 1), exponents),
    )


SCALARS = st.one_of(
    *(st.none(), st.booleans(), INTEGERS, DOUBLES, TEXTS, MOMENTS, IDS, decimals(st.integers(-6176, 6111))),
    *(st.binary(max_size=8), st.just(MinKey()), st.just(MaxKey()), st.just(DatetimeMS(2**62))),
    st.builds(Binary, st.binary(max_size=8), st.sampled_from([0, 2, 5, 128])),
    st.builds(Binary, st.binary(min_size=16, max_size=16), st.just(4)),
    st.builds(Regex, TEXTS, st.sampled_from(["", "i", "imx"])),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.builds(Code, TEXTS),
    st.builds(Code, TEXTS, st.dictionaries(NAMES, INTEGERS, max_size=3)),
    st.builds(DBRef, TEXTS, IDS),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def _of_choice(kind: ChoiceKind) -> st.SearchStrategy[Any]:
    words = [*kind.choices, *(word for word, _ in kind.spellings)]
    forms = [
        str,
        str.upper,
        str.title,
        lambda word: word.replace("_", " "),
        lambda word: word.replace("_", "-"),
    ]
    return st.builds(lambda word, form: form(word), st.sampled_from(words), st.sampled_from(forms))


def of_kind(kind: Kind) -> st.SearchStrategy[Any]:
    """Values that fit a field of this kind."""
    match kind:
        case TextKind(pattern=None):
            return TEXTS
        case TextKind():
            return st.from_regex("[0-9A-Fa-f]{6}", fullmatch=True).map(lambda digits: f"#{digits}")
        case ChoiceKind():
            return _of_choice(kind)
        case ReferenceKind():
            return IDS
        case BooleanKind():
            return st.booleans()
        case MomentKind():
            return MOMENTS
        case NumberKind():
            return st.one_of(decimals(st.integers(-900, 900)), INTEGERS, DOUBLES)
        case EmbeddedKind():
            return st.dictionaries(NAMES, VALUES, max_size=4)
        case _:
            raise AssertionError(kind)


@st.composite
def _objects(draw: st.DrawFn, fields: ObjectFields, *, unknown: bool = True) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for item in fields.fields:
        found = of_kind(item.kind) if isinstance(item, Scalar) else _objects(ObjectFields(fields=item.fields))
        if isinstance(item, Nested) or item.nullable:
            state = draw(st.sampled_from(["there", "there", "null", "missing"]))
            if state != "there":
                value |= {item.name: None} if state == "null" else {}
                continue
        value[item.name] = draw(found)
    return value | (draw(_unknown(fields)) if unknown else {})


def _unknown(fields: ObjectFields) -> st.SearchStrategy[dict[str, Any]]:
    names = NAMES.filter(lambda name: name not in fields._known)
    return st.one_of(st.just({}), st.dictionaries(names, VALUES, max_size=3))


def _array(items: Items) -> st.SearchStrategy[Any]:
    if items.scalar is not None:
        one = of_kind(items.scalar.kind)
        return st.lists(one, max_size=3).map(lambda values: values + values[:1])
    return st.lists(_objects(items._item), max_size=3)


@st.composite
def documents(draw: st.DrawFn, collection: Collection) -> dict[str, Any]:
    """A document that fits, as the driver reads it, its known fields in the order of the schema."""
    known = draw(_objects(ObjectFields(fields=collection.fields), unknown=False))
    value = {"_id": draw(IDS), **known}
    for items in collection.items:
        state = draw(st.sampled_from(["there", "there", "null", "missing"]))
        if state != "missing":
            value[items.name] = draw(_array(items)) if state == "there" else None
    value |= draw(_unknown(collection._object))
    return bson.decode(bson.encode(value), CODEC)
