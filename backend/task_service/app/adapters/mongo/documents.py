"""Things as documents: by way of the rows of `app.mapping`, so that a document and its rows always mean the same thing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

from bson import ObjectId, encode
from sqlalchemy import DateTime, Numeric, Table

from ...mapping import COLLECTIONS
from ...mapping.fields import Scalar
from ...mapping.values import ChoiceKind, ReferenceKind
from ..rows.shapes import KEY, POSITION, Row, Rows, Shape

Item = TypeVar("Item")
_BY_NAME = {collection.name: collection for collection in COLLECTIONS}


class Documents(Generic[Item]):
    """How the things of one shape stand in their collection. Raises `UnfitError` for what does not fit, naming the field."""

    def __init__(self, shape: Shape[Item]) -> None:
        self._shape = shape
        self._collection = _BY_NAME[shape.table]
        self._arrays = {items.table.name: items for items in self._collection.items}
        self._fields = {field.name: field for field in self._collection.fields if isinstance(field, Scalar)}

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self._collection.name

    def read(self, document: Mapping[str, Any]) -> Item:
        """The thing that a document stands for."""
        return self._shape.of_rows(*self._rows(document))

    def key(self, item: Item) -> str:
        """The key of a thing."""
        return str(self._shape.to_row(item)[KEY])

    def new(self, item: Item) -> dict[str, Any]:
        """The document of a thing that has none yet. What is None is missing, an array without items is empty."""
        root = {**_written(self._shape.to_row(item)), "extra": "{}"}
        rows: dict[str, list[Row]] = {self.collection: [root]}
        for items in self._shape.items:
            rows[items.table] = self._placed(items.owner, self.key(item), items.rows(item, ()))
        return dict(self._collection.document_of(rows))

    def change(self, document: Mapping[str, Any], item: Item) -> dict[str, Any]:
        """The update that makes `document` that of `item`; empty where it is already. All else in it stays."""
        root, arrays = self._rows(document)
        rows = {name: list(found) for name, found in self._collection.rows_of(document).items()}
        wanted = self._shape.to_row(item)
        changed = {name: value for name, value in wanted.items() if root[name] != value}
        rows[self.collection] = [{**rows[self.collection][0], **_written(changed)}]
        for items in self._shape.items:
            there = arrays[items.table]
            found = items.rows(item, there)
            if found != [{name: row[name] for name in items.columns} for row in there]:
                rows[items.table] = self._placed(items.owner, self.key(item), found)
        return _update(document, self._collection.document_of(rows))

    def query(self, wanted: object, *, after: str | None) -> dict[str, Any]:
        """What finds the documents of the things that fit a filter, past the key `after`."""
        query: dict[str, Any] = {"_id": {"$gt": ObjectId(after)}} if after is not None else {}
        for name, value in vars(wanted).items():
            if value is None:
                continue
            if name in self._shape.within:
                array = self._arrays[self._shape.within[name][0]]
                query[array.name] = self._sought(array.scalar, value)
            else:
                field = self._shape.equal[name]
                query[field] = self._sought(self._fields[field], value)
        return query

    @staticmethod
    def _sought(field: Scalar | None, value: Any) -> Any:
        match field.kind if field else None:
            case ReferenceKind():
                return ObjectId(value)
            case ChoiceKind() as kind:
                # Old programs have spelled some words otherwise.
                words = [word for word, choice in kind.spellings if choice == value]
                spelled = [re.escape(word).replace("_", "[ _-]?") for word in (value, *sorted(words))]
                return re.compile(f"^(?:{'|'.join(spelled)})$", re.IGNORECASE)
            case _:
                return value

    def _rows(self, document: Mapping[str, Any]) -> tuple[Row, Mapping[str, Rows]]:
        rows = self._collection.rows_of(document)
        (root,) = rows[self.collection]
        items = {
            name: [_read(row, array.table) for row in rows[name]] for name, array in self._arrays.items()
        }
        return _read(root, self._collection.root), items

    @staticmethod
    def _placed(owner: str, key: str, rows: Sequence[Row]) -> list[Row]:
        return [{owner: key, POSITION: position, **_written(row)} for position, row in enumerate(rows)]


def _read(row: Row, table: Table) -> dict[str, Any]:
    """A row of the mapping's, whose values are as in JSON, with those that its columns have."""
    values = dict(row)
    for name, value in row.items():
        if not isinstance(value, str):
            continue
        kind = table.c[name].type
        if isinstance(kind, DateTime):
            values[name] = datetime.fromisoformat(value)
        elif isinstance(kind, Numeric):
            values[name] = Decimal(value)
    return values


def _written(row: Row) -> dict[str, Any]:
    """The inverse of `_read`."""
    return {name: _json_value(value) for name, value in row.items()}


def _json_value(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat(timespec="milliseconds")
        case Decimal():
            return format(value, "f")
        case dict():
            return json.dumps(value)
        case _:
            return value


def _update(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The update that makes the one document into the other, of the fields that differ alone."""
    changed = {
        name: value
        for name, value in after.items()
        if name not in before or encode({"v": before[name]}) != encode({"v": value})
    }
    gone = [name for name in before if name not in after]
    update: dict[str, Any] = {"$set": changed} if changed else {}
    return {**update, "$unset": dict.fromkeys(gone, "")} if gone else update
