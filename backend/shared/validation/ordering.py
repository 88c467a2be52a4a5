"""Whether a side sorts the texts of a key by their bytes of its own accord: then its index serves ranges of keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backend.shared.domain.phases import Side
from backend.shared.stores.postgres import collations
from backend.shared.validation.relation import Relation, TablePair
from backend.shared.validation.sides import Sides, both


async def sorts_by_bytes(sides: Sides, side: Side, relations: Sequence[Relation]) -> bool:
    """Whether all of `relations`, on `side`, sort their keys' texts by bytes. True where no key holds a text."""
    for relation in relations:
        texts = [part.name for part in relation.key if part.is_text]
        if texts:
            (found,) = await sides.scan(side, collations.sorts_by_bytes(relation.typed, texts))
            if not found["by_bytes"]:
                return False
    return True


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
