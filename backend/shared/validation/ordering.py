"""Whether a side sorts the texts of a key by their bytes of its own accord: then its index serves ranges of keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backend.shared.domain.phases import Side
from backend.shared.validation.relation import Relation, TablePair
from backend.shared.validation.sides import Sides, both

# All locales of the provider "builtin" (b) sort by code point, which in UTF-8 is the order of the bytes. `to_jsonb`, since
# what a database says of its collation has other column names in each version.
_BYTES = (
    "SELECT bool_and(CASE WHEN k.provider = 'd' THEN coalesce(d.d ->> 'datlocprovider', 'c') = 'b' "
    "OR coalesce(d.d ->> 'datlocprovider', 'c') = 'c' AND d.d ->> 'datcollate' IN ('C', 'POSIX') "
    "ELSE k.provider = 'b' OR k.provider = 'c' AND k.locale IN ('C', 'POSIX') END) AS by_bytes "
    "FROM unnest($1::text[]) AS n, LATERAL (SELECT c.collprovider::text AS provider, c.collcollate AS locale "
    "FROM pg_collation AS c WHERE c.oid = n::regcollation) AS k, "
    "(SELECT to_jsonb(x) AS d FROM pg_database AS x WHERE x.datname = current_database()) AS d"
)


async def sorts_by_bytes(sides: Sides, side: Side, relations: Sequence[Relation]) -> bool:
    """Whether all of `relations`, on `side`, sort their keys' texts by bytes. True where no key holds a text."""
    names: set[str] = set()
    for relation in relations:
        if any(part.is_text for part in relation.key):
            (row,) = await sides.scan(side, relation.collations())
            if None in row.values():
                return False
            names.update(row.values())
    if not names:
        return True
    (found,) = await sides.scan(side, _BYTES, sorted(names))
    return bool(found["by_bytes"])


async def in_order(sides: Sides, tables: Sequence[TablePair]) -> tuple[TablePair, ...] | None:
    """`tables` for sides that both sort their keys by bytes, with an index; None if one does not."""
    if not all(table.has_ranges for table in tables):
        return None
    direction = sides.direction
    by_bytes = await both(
        sorts_by_bytes(sides, direction.source, [table.source for table in tables]),
        sorts_by_bytes(sides, direction.target, [table.target for table in tables]),
    )
    if not all(by_bytes):
        return None
    return tuple(
        replace(
            table,
            source=replace(table.source, sorts_by_bytes=True),
            target=replace(table.target, sorts_by_bytes=True),
        )
        for table in tables
    )
