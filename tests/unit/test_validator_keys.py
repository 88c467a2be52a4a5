"""`parse_key` takes what a key may be, and refuses all else with one kind of error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Integer, MetaData, SmallInteger, String, Table, Text, Uuid, select
from sqlalchemy.types import TypeEngine

from backend.shared import EntityMapping, Key, KeyPart, Projection, Source, ValidationError
from backend.shared.domain.mapping import encode_key
from backend.shared.sync_validator import parse_key
from backend.shared.validation.ranges import sortable


def entity(*types: TypeEngine[Any]) -> EntityMapping:
    names = [f"k{n}" for n in range(len(types))]
    table = Table("t", MetaData(), *[Column(name, kind) for name, kind in zip(names, types, strict=True)])
    projection = Projection(table=table, key=tuple(names), query=select(table))
    source = Source(table=table, keys=tuple(names))
    return EntityMapping(
        name="thing",
        key=tuple(KeyPart(name=name, type=kind) for name, kind in zip(names, types, strict=True)),
        to_new=(projection,),
        to_legacy=(projection,),
        legacy_sources=(source,),
        new_sources=(source,),
    )


@pytest.mark.parametrize(
    ("types", "text", "key"),
    [
        ([Integer()], "7", (7,)),
        ([Integer()], "[-7]", (-7,)),
        ([SmallInteger()], "32767", (32767,)),
        ([BigInteger()], "-9223372036854775808", (-(2**63),)),
        ([Text()], "plain", ("plain",)),
        ([Text()], "", ("",)),
        ([Text()], "[unclosed", ("[unclosed",)),
        ([Text()], '["[quoted"]', ("[quoted",)),
        ([String(3)], "abc", ("abc",)),
        ([Text(), Integer()], '["a, \\"b\\"", 3]', ('a, "b"', 3)),
        ([Uuid()], "6F0C1B0E-0000-4000-8000-000000000001", ("6f0c1b0e-0000-4000-8000-000000000001",)),
    ],
)
def test_keys(types: list[TypeEngine[Any]], text: str, key: Key) -> None:
    assert parse_key(entity(*types), text) == key


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ([Integer()], "2147483648"),
        ([Integer()], "9" * 5000),
        ([Integer()], f"[{'9' * 5000}]"),
        ([Integer()], "[" * 100_000),
        ([Integer()], "[1.0]"),
        ([Integer()], "[NaN]"),
        ([Integer()], '["1", 2]'),
        ([Integer()], "--1"),
        ([Integer()], " 1"),
        ([Integer()], "٣"),
        ([SmallInteger()], "32768"),
        ([BigInteger()], "9223372036854775808"),
        ([Text()], "a\0b"),
        ([Text()], '["\\ud800"]'),
        ([Text()], "[1]"),
        ([Text()], "[null]"),
        ([Text()], "x" * 1001),
        ([String(3)], "abcd"),
        ([Text(), Integer()], "a"),
        ([Text(), Integer()], '["a"]'),
        ([Text(), Integer()], '["a", "b"]'),
        ([Uuid()], "6f0c1b0e"),
        ([Uuid()], "[7]"),
    ],
)
def test_bad_keys_are_refused(types: list[TypeEngine[Any]], text: str) -> None:
    with pytest.raises(ValidationError):
        parse_key(entity(*types), text)


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.integers(-(2**31), 2**31 - 1),
)
def test_canonical_keys_are_read_back(text: str, number: int) -> None:
    assert parse_key(entity(Text(), Integer()), encode_key((text, number))) == (text, number)


@given(st.text())
def test_nothing_but_validation_errors_comes_out(text: str) -> None:
    for types in ([Integer()], [Text()], [Text(), Integer()]):
        try:
            parse_key(entity(*types), text)
        except ValidationError:
            continue


def test_order_of_keys_is_that_of_the_servers() -> None:
    ordered = [("", 9), ("A", -1), ("A", 2), ("A", 10), ("a", 0), ("z", 0), ("é", 0), ("漢", 0), ("🙂", 0)]
    assert sorted(map(encode_key, reversed(ordered)), key=sortable) == [encode_key(key) for key in ordered]
