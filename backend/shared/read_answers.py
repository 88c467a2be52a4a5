"""What a unit answered, as something that stays as it is and can be held against another answer.

Two answers are equal when they are of the same types and hold the same values, all the way down. What differs is told by
the names of fields, never by values; a key of a dictionary may itself be a value, and is named only if it is a column.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any
from uuid import UUID

ANSWER = "answer"
"""Stands for the whole answer, where no field of it can be named."""
_SCALARS = (str, int, float, bytes, Decimal, date, time, timedelta, UUID, Enum, NoneType)


@dataclass(frozen=True)
class Leaf:
    """A value that is compared as it is."""

    type: type
    value: Any


@dataclass(frozen=True)
class Fields:
    """Values by attribute, or by key of a dictionary (then their names may be values)."""

    type: type
    parts: Mapping[Hashable, Image]
    are_attributes: bool


@dataclass(frozen=True)
class Items:
    """Values in order."""

    type: type
    parts: tuple[Image, ...]


Image = Leaf | Fields | Items


def image_of(value: object) -> Image:
    """`value` as it is now, sharing nothing with it that could change."""
    return _image(value, ())


def image_of_error(error: Exception) -> Image:
    """The answer of a unit that raised; what its message says is not compared."""
    return Leaf(type(error), None)


def _image(value: Any, above: tuple[int, ...]) -> Image:
    kind = type(value)
    if isinstance(value, _SCALARS):
        return Leaf(kind, value)
    if id(value) in above:
        return Leaf(kind, "itself")
    inside = (*above, id(value))
    if (attributes := _attributes(value)) is not None:
        return Fields(
            kind, {name: _image(part, inside) for name, part in attributes.items()}, are_attributes=True
        )
    if isinstance(value, Mapping):
        return Fields(kind, {key: _image(part, inside) for key, part in value.items()}, are_attributes=False)
    if isinstance(value, Sequence) and not isinstance(value, bytearray | memoryview):
        return Items(kind, tuple(_image(part, inside) for part in value))
    return Leaf(kind, copy.deepcopy(value))


def _attributes(value: Any) -> dict[str, Any] | None:
    """The fields of a value that has named ones; None for one that is compared in another way."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.compare]
    elif isinstance(found := getattr(value, "_fields", None), tuple):  # a named tuple, or a row
        names = list(found)
    elif isinstance(value, Mapping | Sequence | AbstractSet) or _has_equality(value):
        return None
    else:
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        names = [*getattr(value, "__dict__", ()), *slots]
    return {name: getattr(value, name, None) for name in names if not name.startswith(("_sa_", "__"))}


def _has_equality(value: object) -> bool:
    return getattr(type(value), "__eq__", None) is not getattr(object, "__eq__", None)


def differences(one: Image, other: Image, *, names: Collection[str] = ()) -> tuple[str, ...]:
    """The fields in which two answers differ, none if they are equal. `names`: keys of dictionaries that are no values."""
    return tuple(sorted({path.lstrip(".") or ANSWER for path in _differing(one, other, frozenset(names))}))


def _differing(one: Image, other: Image, names: frozenset[str]) -> Iterator[str]:
    if one.type is not other.type:
        yield ""
    elif isinstance(one, Fields) and isinstance(other, Fields):
        for name in {**one.parts, **other.parts}:
            ours, theirs = one.parts.get(name), other.parts.get(name)
            shown = f".{name}" if one.are_attributes or name in names else ".*"
            if ours is None or theirs is None:
                yield shown
            else:
                yield from (shown + below for below in _differing(ours, theirs, names))
    elif isinstance(one, Items) and isinstance(other, Items):
        if len(one.parts) != len(other.parts):
            yield "[]"
            return
        for ours, theirs in zip(one.parts, other.parts, strict=True):
            yield from ("[]" + below for below in _differing(ours, theirs, names))
    elif isinstance(one, Leaf) and isinstance(other, Leaf) and not _same(one.value, other.value):
        yield ""


def _same(one: Any, other: Any) -> bool:
    is_nan = one != one and other != other  # noqa: PLR0124 - nothing else is unequal to itself
    return bool(is_nan or one == other)
