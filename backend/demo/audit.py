"""Holds the ledger against both sides: reads every row that it tells of, on each side in the ledger's own shape."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.mapping import EntityMapping, Projection
from backend.shared.domain.phases import Direction, Side
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.stores.postgres.projection_sql import quoted, select_text, sql_type, table_name

from .ledger import Ledger, Lost, Row

ROWS_PER_QUERY = 1_000
Found = dict[Row, Mapping[str, Any] | None]


async def audit(
    ledger: Ledger, managers: Mapping[str, DualWriteManager], *, sides: Collection[Side] = tuple(Side)
) -> list[Lost]:
    """The acknowledged writes that a side does not bear out."""
    lost: list[Lost] = []
    for side in sides:
        lost += ledger.compare(await read_rows(ledger.rows, managers, side=side), side=side)
    return lost


async def read_rows(rows: Iterable[Row], managers: Mapping[str, DualWriteManager], *, side: Side) -> Found:
    """What `side` holds of `rows`, each in its own shape: as it stands in that side's tables, else through the mapping."""
    found: Found = {}
    ordered = sorted(rows, key=lambda row: (*_kind(row), row.values))
    for _, members in groupby(ordered, key=_kind):
        group = list(members)
        manager = managers[group[0].service]
        entity = manager.catalog()[group[0].entity]
        engine = manager.runtime.engines[side]
        for start in range(0, len(group), ROWS_PER_QUERY):
            found |= await _read(engine, entity, group[start : start + ROWS_PER_QUERY], side=side)
    return found


def _kind(row: Row) -> tuple[str, str, str, tuple[str, ...]]:
    return row.service, row.entity, row.shape.value, row.columns


async def _read(engine: AsyncEngine, entity: EntityMapping, rows: Sequence[Row], *, side: Side) -> Found:
    """Rows of one kind. One that is spread over several tables is put together; without its root row it is not there."""
    shape, columns = rows[0].shape, rows[0].columns
    wanted = json.dumps([row.values for row in rows], ensure_ascii=False)
    merged: dict[tuple[int | str, ...], dict[str, Any]] = {}
    async with engine.connect() as connection:
        for number, projection in enumerate(entity.projections(Direction.towards(shape))):
            names = columns if number == 0 else projection.key
            answer = await connection.exec_driver_sql(
                _query(projection, names, stored=side is shape), (wanted,)
            )
            for (text,) in answer:
                values = json.loads(text, parse_float=Decimal)
                key = tuple(values[name] for name in names)
                if number == 0:
                    merged[key] = values
                elif key in merged:
                    merged[key] |= values
    return {row: merged.get(row.values) for row in rows}


def _query(projection: Projection, names: Sequence[str], *, stored: bool) -> str:
    """JSON of the rows whose columns `names` hold one of the lists of values in `$1`."""
    relation = table_name(projection.table) if stored else f"({select_text(projection.query)})"
    parts = [
        f"(w ->> {number})::{sql_type(projection.table.c[name].type)}" for number, name in enumerate(names)
    ]
    wanted = f"SELECT {', '.join(parts)} FROM json_array_elements($1::json) AS w"
    columns = [f"p.{quoted(name)}" for name in names]
    # An array is what PostgreSQL looks up in an index, through the projection as well.
    condition = (
        f"{columns[0]} = ANY (ARRAY({wanted}))"
        if len(names) == 1
        else f"({', '.join(columns)}) IN ({wanted})"
    )
    return f"SELECT to_json(p)::text FROM {relation} AS p WHERE {condition}"
