"""The state of a key as something to hold against that of the other side, which may be another kind of database.

State travels as JSON texts, and each kind prints the same value in its own way. So values are compared in the types of the
columns: an instant as an instant, a numeric with its scale, a document that PostgreSQL keeps in parts (`jsonb`) by its
parts. What is the same only in another writing counts as different where in doubt: that costs a write, and no more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import Column
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import JSON, DateTime, Double, Float, Numeric

from backend.shared.domain.mapping import EntityMapping, Projection, encode_key
from backend.shared.domain.phases import Direction
from backend.shared.stores.postgres.projection_sql import DIALECT
from backend.shared.stores.protocol import Position, StateBatch

Rows = list[list[dict[str, Any]]]
"""The rows of one key, by projection. Numbers with a fraction are texts: a float would round them."""
_NOWHERE = Position(major=0, minor=0)


def rows_of(batch: StateBatch) -> dict[str, Rows]:
    """The rows of each key that is there, as they travel."""
    projections = batch.entity.projections(batch.direction)
    found: dict[str, Rows] = {key: [[] for _ in projections] for key in batch.present[0]}
    for number, (projection, text) in enumerate(zip(projections, batch.rows, strict=True)):
        for row in json.loads(text, parse_float=str):
            key = encode_key(tuple(row[name] for name in projection.key))
            if key in found:
                found[key][number].append(row)
    return found


def image_of(batch: StateBatch, key: str) -> str:
    """The state of one key as text, to be kept."""
    return json.dumps(rows_of(batch).get(key), ensure_ascii=False)


def batch_of_image(image: str, entity: EntityMapping, direction: Direction, *, key: str) -> StateBatch:
    """The state that a kept image says, without a position."""
    rows: Rows | None = json.loads(image, parse_float=str)
    tables: Rows = rows if rows is not None else [[] for _ in entity.projections(direction)]
    return StateBatch(
        entity=entity,
        direction=direction,
        keys=(key,),
        position=_NOWHERE,
        rows=tuple(json.dumps(table, ensure_ascii=False) for table in tables),
        present=tuple(frozenset([key] if table else []) for table in tables),
    )


def differing(one: StateBatch, other: StateBatch) -> frozenset[str]:
    """Keys of `one` whose state in `other` is not the same. Both are in the same shape."""
    ours, theirs = (_compared(batch) for batch in (one, other))
    return frozenset(key for key in one.keys if ours.get(key) != theirs.get(key))


def documents_by_table(batch: StateBatch, key: str) -> dict[str, str]:
    """The rows of a key by table, as JSON: what a conflict keeps of them."""
    rows = rows_of(batch).get(key)
    if rows is None:
        return {}
    projections = batch.entity.projections(batch.direction)
    return {
        projection.table.fullname: json.dumps(table, ensure_ascii=False)
        for projection, table in zip(projections, rows, strict=True)
        if table
    }


def _compared(batch: StateBatch) -> Mapping[str, list[list[str]]]:
    projections = batch.entity.projections(batch.direction)
    return {
        key: [
            sorted(repr(_values(projection, row)) for row in table)
            for projection, table in zip(projections, tables, strict=True)
        ]
        for key, tables in rows_of(batch).items()
    }


def _values(projection: Projection, row: Mapping[str, Any]) -> list[Any]:
    return [comparable(column, row.get(column.name)) for column in projection.columns]


def comparable(column: Column[Any], value: Any) -> Any:
    """A value of `column` as it travels, in the column's type: two that are the same are equal, however they were printed."""
    if value is None or isinstance(value, bool):
        return value
    kind = column.type
    try:
        if isinstance(kind, DateTime):
            return _instant(str(value), has_zone=bool(kind.timezone))
        if isinstance(kind, Float | Double):
            return repr(float(value))
        if isinstance(kind, Numeric):
            return Decimal(str(value)).as_tuple()
        if isinstance(kind, JSON) and isinstance(kind.dialect_impl(DIALECT), JSONB):
            return json.dumps(json.loads(value, parse_float=str, parse_int=str), sort_keys=True)
    except (ValueError, InvalidOperation, TypeError):
        return value  # such as infinity: as it is written
    return value


def _instant(text: str, *, has_zone: bool) -> datetime:
    found = datetime.fromisoformat(text)
    if not has_zone:
        return found.replace(tzinfo=None)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
