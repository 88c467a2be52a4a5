"""Between documents and rows: what a `DocumentShape` says, in the form in which state travels (R6).

State travels as one JSON array of rows per projection, as PostgreSQL writes and reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from bson import ObjectId, json_util
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from sqlalchemy import Column
from sqlalchemy.types import Double, Float, Numeric

from backend.shared.domain.mapping import (
    Document,
    DocumentShape,
    EntityMapping,
    Projection,
    RowsByTable,
    UnfitError,
    decode_key,
    encode_key,
)
from backend.shared.domain.phases import Direction
from backend.shared.stores.protocol import Position, StateBatch, UnfitKeysError

from .collections import Stored
from .errors import UnfitRowsError

Row = Mapping[str, Any]
_WRITTEN = json_util.CANONICAL_JSON_OPTIONS.with_options(uuid_representation=UuidRepresentation.STANDARD)
"""Extended JSON as keys and kept documents have it: of what the engine's clients read, all can be written."""
EXTENDED = json_util.CANONICAL_JSON_OPTIONS.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
"""The same to be read: a UUID as the binary that it is, which every collection takes."""


def shape_of(entity: EntityMapping) -> DocumentShape:
    """How `entity` looks in its collection."""
    if entity.document is None:
        raise AssertionError(f"entity {entity.name} is no document on either side")
    return entity.document


def key_of(number: Any) -> str:
    """The canonical key of the document with this `_id`: an ObjectId's digits, else the value in extended JSON.

    No row has a key of the second kind; but what cannot be carried has to have a name (I8).
    """
    if isinstance(number, ObjectId):
        return encode_key((str(number),))
    return encode_key((json_util.dumps(number, json_options=_WRITTEN),))


def as_kept(document: Document) -> str:
    """A document as text that says its types too: canonical extended JSON, in which a long stays one."""
    return json_util.dumps(document, json_options=_WRITTEN)


def id_of(key: str) -> ObjectId:
    """The `_id` of a canonical key. Raises `UnfitError` for a key that no ObjectId has."""
    (text,) = decode_key(key)
    if not ObjectId.is_valid(text) or not isinstance(text, str):
        raise UnfitError("_id: not 24 hexadecimal digits")
    return ObjectId(text)


def ids_of(keys: Iterable[str]) -> list[tuple[Any, str]]:
    """`_id` and key of each of `keys`. A key that is none of a document's is left out."""
    found: list[tuple[Any, str]] = []
    for key in keys:
        try:
            found.append((id_of(key), key))
        except UnfitError:
            with suppress(ValueError, TypeError, BSONError):
                found.append((json_util.loads(decode_key(key)[0], json_options=EXTENDED), key))
    return found


def batch_of(
    entity: EntityMapping,
    direction: Direction,
    documents: Iterable[Document],
    *,
    keys: Sequence[str],
    position: Position,
) -> StateBatch:
    """What `documents` are as rows. Raises `UnfitKeysError` that names all that cannot be."""
    tables: dict[str, dict[str, Sequence[Row]]] = {}
    reasons: dict[str, str] = {}
    for document in documents:
        key = key_of(document["_id"])
        try:
            tables[key] = {name: rows for name, rows in shape_of(entity).rows_of(document).items() if rows}
        except UnfitError as error:
            reasons[key] = str(error)
    if reasons:
        raise UnfitKeysError(reasons, position=position)
    projections = entity.projections(direction)
    return StateBatch(
        entity=entity,
        direction=direction,
        keys=tuple(keys),
        position=position,
        rows=tuple(_as_text(projection, tables) for projection in projections),
        present=tuple(
            frozenset(key for key, rows in tables.items() if projection.table.name in rows)
            for projection in projections
        ),
    )


def _as_text(projection: Projection, tables: Mapping[str, Mapping[str, Sequence[Row]]]) -> str:
    names = [column.name for column in projection.columns]
    rows = [
        {name: row.get(name) for name in names}
        for key in sorted(tables)
        for row in tables[key].get(projection.table.name, ())
    ]
    return json.dumps(rows, ensure_ascii=False)


def documents_of(batch: StateBatch, keys: frozenset[str]) -> dict[str, Stored]:
    """The documents that a batch says of `keys`; those without a root row have none. Raises `UnfitRowsError`."""
    tables = _rows_by_key(batch, keys)
    found: dict[str, Stored] = {}
    reasons: dict[str, str] = {}
    for key in sorted(keys & batch.present[0]):
        try:
            found[key] = _document(batch.entity, key, tables[key])
        except UnfitError as error:
            reasons[key] = str(error)
    if reasons:
        raise UnfitRowsError(reasons)
    return found


def _document(entity: EntityMapping, key: str, tables: RowsByTable) -> Stored:
    document = dict(shape_of(entity).document_of(tables))
    if document.get("_id") != id_of(key):
        raise UnfitError("_id: not that of the key")
    return document


def _rows_by_key(batch: StateBatch, keys: frozenset[str]) -> dict[str, dict[str, list[Row]]]:
    projections = batch.entity.projections(batch.direction)
    empty = [projection.table.name for projection in projections]
    found: dict[str, dict[str, list[Row]]] = {}
    for projection, text in zip(projections, batch.rows, strict=True):
        columns = {column.name: column for column in projection.columns}
        (key_column,) = projection.key_columns
        # Numbers stay as they are written until it is known what they are.
        for row in json.loads(text, parse_float=str):
            key = encode_key((row[key_column.name],))
            if key in keys:
                tables = found.setdefault(key, {name: [] for name in empty})
                tables[projection.table.name].append(
                    {name: _as_shapes_say(columns[name], value) for name, value in row.items()}
                )
    return found


def _as_shapes_say(column: Column[Any], value: Any) -> Any:
    """A value of a row as `DocumentShape` wants it: a numeric's as text, a floating number's as number."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(column.type, Float | Double):
        return float(value)
    if isinstance(column.type, Numeric):
        return str(value)
    return value
