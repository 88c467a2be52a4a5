"""One collection as a root table and a table for each of its arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table

from backend.shared.domain.mapping import (
    Document,
    DocumentShape,
    EntityMapping,
    RowsByTable,
    document_entity,
)

from ..models import UNMAPPED
from .bson_text import CODEC
from .fields import Extra, Nested, ObjectFields, Scalar, names_in, read_extra, write_extra
from .values import REFERENCE, wrong_type

KEY = "mongo_id"


@dataclass(frozen=True, kw_only=True)
class Items:
    """A field that is an array, or null, or missing: a row of `table` for each item, by `owner` and `position`.

    An item is either a single value (`scalar`) or an object (`item`), whose table has an `extra` too.
    """

    name: str
    table: Table
    owner: str
    scalar: Scalar | None = None
    item: ObjectFields | None = None

    def keep(self, value: Any, *, key: str, extra: Extra) -> list[dict[str, Any]]:
        """The rows of an array; `extra` of the root learns whether it is missing or null."""
        if value is None:
            extra.setdefault("null", []).append(self.name)
            return []
        if not isinstance(value, list | tuple):
            raise wrong_type(value, expected="array", field=self.name)
        return [
            {self.owner: key, "position": position, **self._columns(one, path=f"{self.name}.{position}")}
            for position, one in enumerate(value)
        ]

    def _columns(self, value: Any, *, path: str) -> dict[str, Any]:
        if self.scalar is not None:
            return {self.scalar.column_name: self.scalar.kind.keep(value, field=path).column}
        if not isinstance(value, Mapping):
            raise wrong_type(value, expected="object", field=path)
        columns, extra = self._item.keep(value, path=f"{path}.")
        return {**columns, "extra": write_extra(extra, path=f"{path}.")}

    def restore(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The items, in the order of their positions."""
        ordered = sorted(rows, key=lambda row: int(row["position"]))
        return [self._value(row, path=f"{self.name}.{position}") for position, row in enumerate(ordered)]

    def _value(self, row: Mapping[str, Any], *, path: str) -> Any:
        if self.scalar is not None:
            return self.scalar.kind.restore(row.get(self.scalar.column_name), None, field=path)
        return self._item.restore(row, read_extra(row.get("extra"), path=f"{path}."), path=f"{path}.")

    @property
    def _item(self) -> ObjectFields:
        if self.item is None:
            raise AssertionError(f"{self.name}: neither values nor objects")
        return self.item


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What the schema knows of a collection, whose name is that of its root table."""

    root: Table
    fields: tuple[Scalar | Nested, ...]
    items: tuple[Items, ...] = ()
    parents: tuple[str, ...] = ()
    secret: frozenset[str] = frozenset()
    _object: ObjectFields = field(init=False)

    def __post_init__(self) -> None:
        arrays = tuple(items.name for items in self.items)
        fields = ObjectFields(fields=self.fields, arrays=arrays, ignored=("_id",))
        object.__setattr__(self, "_object", fields)

    @property
    def name(self) -> str:
        """The name of the collection, of its root table and of its entity."""
        return self.root.name

    def rows_of(self, document: Document) -> RowsByTable:
        """See `DocumentShape`."""
        key = REFERENCE.keep(document.get("_id"), field="_id").column
        columns, extra = self._object.keep(document)
        rows: dict[str, Sequence[Mapping[str, Any]]] = {}
        for items in self.items:
            if items.name in document:
                rows[items.table.name] = items.keep(document[items.name], key=key, extra=extra)
            else:
                extra.setdefault("missing", []).append(items.name)
                rows[items.table.name] = []
        return {self.name: [{KEY: key, **columns, "extra": write_extra(extra)}], **rows}

    def document_of(self, rows: RowsByTable) -> Document:
        """See `DocumentShape`; fields stand in the schema's order, unknown ones after them."""
        (root,) = rows[self.name]
        extra = read_extra(root.get("extra"))
        document: dict[str, Any] = {"_id": REFERENCE.restore(root.get(KEY), None, field="_id")}
        document |= self._object.restore_known(root, extra)
        for items in self.items:
            its_rows = rows.get(items.table.name, ())
            if not its_rows and names_in(extra, "null", items.name):
                document[items.name] = None
            elif its_rows or not names_in(extra, "missing", items.name):
                document[items.name] = items.restore(its_rows)
        return document | self._object.restore_unknown(extra)

    def entity(self) -> EntityMapping:
        """The collection as the engine takes it."""
        mapped = [name for name in self.root.c.keys() if name not in UNMAPPED]  # noqa: SIM118 - columns, by name
        return document_entity(
            self.name,
            shape=DocumentShape(
                collection=self.name, rows_of=self.rows_of, document_of=self.document_of, codec=CODEC
            ),
            tables={self.root: KEY} | {items.table: items.owner for items in self.items},
            mapped={self.root: mapped},
            parents=self.parents,
            secret=self.secret,
        )
