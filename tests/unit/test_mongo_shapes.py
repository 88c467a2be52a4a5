"""Rows as they travel, as a `DocumentShape` is given them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bson import Int64, ObjectId
from sqlalchemy import Boolean, Column, Double, MetaData, Numeric, Table, Text

from backend.shared.domain.mapping import Document, DocumentShape, RowsByTable, UnfitError, document_entity
from backend.shared.domain.phases import Direction
from backend.shared.stores.mongo.errors import UnfitRowsError
from backend.shared.stores.mongo.shapes import documents_of, id_of, ids_of, key_of
from backend.shared.stores.protocol import Position, StateBatch

PRICES = Table(
    "prices",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("exact", Numeric(40, 20)),
    Column("about", Double),
    Column("paid", Boolean),
)
NUMBER = "00000000000000000000000a"


def _as_it_is(rows: RowsByTable) -> Document:
    (row,) = rows["prices"]
    return {"_id": ObjectId(NUMBER), **{name: value for name, value in row.items() if name != "id"}}


PRICE = document_entity(
    "price",
    shape=DocumentShape(collection="prices", rows_of=lambda _: {}, document_of=_as_it_is),
    tables={PRICES: "id"},
)


def _batch(rows: str, *, number: str = NUMBER) -> StateBatch:
    key = f'["{number}"]'
    return StateBatch(
        entity=PRICE,
        direction=Direction.TO_LEGACY,
        keys=(key,),
        position=Position(major=1, minor=0),
        rows=(rows,),
        present=(frozenset({key}),),
    )


@pytest.mark.parametrize(
    ("written", "given"),
    [
        (
            '"exact": 12345678901234567890.12345678901234567890',
            {"exact": "12345678901234567890.12345678901234567890"},
        ),
        ('"exact": 1.50', {"exact": "1.50"}),
        ('"exact": 7', {"exact": "7"}),
        ('"exact": "NaN"', {"exact": "NaN"}),
        ('"about": 1.5', {"about": 1.5}),
        ('"about": 2', {"about": 2.0}),
        ('"about": "Infinity"', {"about": float("inf")}),
        ('"paid": true', {"paid": True}),
        ('"exact": null', {"exact": None}),
    ],
)
def test_numbers_keep_every_digit(written: str, given: dict[str, Any]) -> None:
    batch = _batch(f'[{{"id": "{NUMBER}", {written}}}]')
    (found,) = documents_of(batch, frozenset(batch.keys)).values()
    assert found == {"_id": ObjectId(NUMBER), **given}
    assert {name: type(value) for name, value in found.items()} == {
        "_id": ObjectId,
        **{name: type(value) for name, value in given.items()},
    }


def test_a_document_of_another_key_is_refused() -> None:
    batch = _batch(json.dumps([{"id": "b" * 24}]), number="b" * 24)
    with pytest.raises(UnfitRowsError, match="_id: not that of the key"):
        documents_of(batch, frozenset(batch.keys))


@pytest.mark.parametrize("key", ['["xyz"]', "[7]", '[""]', '["' + "g" * 24 + '"]'])
def test_a_key_that_no_object_id_has_has_no_document(key: str) -> None:
    with pytest.raises(UnfitError, match="24 hexadecimal digits"):
        id_of(key)
    assert ids_of([key, f'["{NUMBER}"]']) == [(ObjectId(NUMBER), f'["{NUMBER}"]')]
    assert key_of(ObjectId(NUMBER)) == f'["{NUMBER}"]'


@pytest.mark.parametrize("number", ["a@example.com", NUMBER, 7, Int64(7), 7.5, {"a": 1}, None])
def test_a_document_with_an_id_of_another_kind_has_a_key_that_no_row_has(number: object) -> None:
    key = key_of(number)
    assert key != f'["{NUMBER}"]'
    ((found, same),) = ids_of([key])
    assert (found, type(found), same) == (number, type(number), key)
    with pytest.raises(UnfitError):
        id_of(key)
