"""Answers of units held against each other: by value and type, told by names only."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest

from backend.shared import ConflictError, NotFoundError
from backend.shared.read_answers import ANSWER, differences, image_of, image_of_error


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Line:
    quantity: int
    price: Decimal
    note: str = field(default="", compare=False)


@dataclass(frozen=True)
class Basket:
    owner: str | None
    lines: tuple[Line, ...]


class Tree:
    """Has no equality of its own."""

    def __init__(self, rows: dict[int, str]) -> None:
        self.rows = rows


class Slotted:
    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class Money:
    """Has one."""

    def __init__(self, cents: int, shown: str) -> None:
        self.cents, self.shown = cents, shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment]


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - as a library would
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def differing(one: Any, other: Any, *, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    there = differences(image_of(one), image_of(other), names=names)
    assert there == differences(image_of(other), image_of(one), names=names)
    return there


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, None),
        (1, 1),
        (Decimal("1.0"), Decimal("1.00")),
        (float("nan"), float("nan")),
        (NOON, NOON.astimezone(timezone(timedelta(hours=2)))),
        (UUID(int=1), UUID(int=1)),
        (Colour.RED, Colour.RED),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ({1, 2}, {2, 1}),
        (Line(1, Decimal(1), "x"), Line(1, Decimal(1), "y")),
        (Tree({1: "a"}), Tree({1: "a"})),
        (Slotted(1), Slotted(1)),
        (Money(100, "1.00"), Money(100, "1")),
        (Pair(1, 2), Pair(1, 2)),
        (b"x", b"x"),
    ],
)
def test_equal(one: object, other: object) -> None:
    assert differing(one, other) == ()


@pytest.mark.parametrize(
    ("one", "other", "fields"),
    [
        (None, 1, (ANSWER,)),
        (1, True, (ANSWER,)),
        (1, Decimal(1), (ANSWER,)),
        ("red", Colour.RED, (ANSWER,)),
        (NOON, NOON.replace(tzinfo=None), (ANSWER,)),
        ([1, 2], [2, 1], ("[]",)),
        ([1], [1, 2], ("[]",)),
        ((1,), [1], (ANSWER,)),
        ({1}, {2}, (ANSWER,)),
        ({"name": 1, "ann@example.org": 2}, {"name": 2, "ann@example.org": 3}, ("*", "name")),
        ({"name": 1}, {}, ("name",)),
        (Basket("a", ()), Basket(None, ()), ("owner",)),
        (
            Basket("a", (Line(1, Decimal(1)),)),
            Basket("a", (Line(2, Decimal(2)),)),
            ("lines[].price", "lines[].quantity"),
        ),
        (Tree({1: "a"}), Tree({1: "b"}), ("rows.*",)),
        (Slotted(1), Slotted(2), ("size",)),
        (Money(100, "1"), Money(200, "1"), (ANSWER,)),
        (Pair(1, 2), Pair(1, 3), ("right",)),
    ],
)
def test_different_by_names(one: object, other: object, fields: tuple[str, ...]) -> None:
    assert differing(one, other, names=("name",)) == fields


def test_an_image_stays_as_it_was() -> None:
    money, answer = Money(1, "x"), {"rows": [{"name": "a"}], "ids": {1}}
    answer["money"] = [money]
    before = image_of(answer)
    answer["rows"].append({"name": "b"})  # type: ignore[attr-defined]
    assert differences(before, image_of(answer)) == ("*[]",)
    answer["rows"].pop()  # type: ignore[attr-defined]
    money.cents = 2
    answer["ids"].add(2)  # type: ignore[attr-defined]
    assert differences(before, image_of(answer), names=("ids", "money")) == ("ids", "money[]")


def test_what_holds_itself_has_an_end() -> None:
    tree = Tree({})
    tree.rows[1] = tree  # type: ignore[assignment]
    other = Tree({})
    other.rows[1] = other  # type: ignore[assignment]
    assert differing(tree, other) == ()


def test_errors_are_answers() -> None:
    missing = image_of_error(NotFoundError("there is no person 1"))
    assert differences(missing, image_of_error(NotFoundError("none"))) == ()
    assert differences(missing, image_of_error(ConflictError("x"))) == (ANSWER,)
    assert differences(missing, image_of(None)) == (ANSWER,)
