"""Opens keys whose totals differ: by buckets of their hash first, then key by key, where the buckets differ.

Both steps run inside the databases. What comes over the wire is the totals of some buckets, and the keys of those that differ,
a bounded number at a time: never a whole chunk.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any

from backend.shared.domain.phases import Side
from backend.shared.validation.relation import Relation, Selection, also
from backend.shared.validation.sides import Sides
from backend.shared.validation.statements import TableStatements
from backend.shared.validation.walk import Totals

ROWS_PER_BUCKET = 256
FEWEST_BUCKETS = 16
MOST_BUCKETS = 8192
LISTED_AT_ONCE = 50_000
"""Rows of both sides whose keys are listed in one go, unless one bucket alone has more."""

NONE = Totals()
Buckets = dict[int, Totals]


def bucket_count(rows: int) -> int:
    """How many buckets to make of `rows` rows: a power of two."""
    wanted = max(FEWEST_BUCKETS, min(MOST_BUCKETS, rows // ROWS_PER_BUCKET))
    return 1 << (wanted - 1).bit_length()


async def bucket_totals(
    sides: Sides, table: TableStatements, keys: Selection, *, count: int
) -> tuple[Buckets, Buckets]:
    """What source and target have in each bucket that is not empty."""

    async def ask(side: Side, relation: Relation) -> Buckets:
        condition, parameters = keys.of(relation)
        rows = await sides.scan(side, relation.buckets(condition, count=count), *parameters)
        return {row["b"]: Totals(rows=row["n"], hashes=row["h"]) for row in rows}

    direction = sides.direction
    source, target = await asyncio.gather(
        ask(direction.source, table.source), ask(direction.target, table.target)
    )
    return source, target


def differing(source: Buckets, target: Buckets) -> list[int]:
    """Buckets that are not the same on both sides, in order."""
    return sorted(b for b in source.keys() | target.keys() if source.get(b) != target.get(b))


def portions(buckets: Iterable[int], *sides: Buckets) -> list[list[int]]:
    """`buckets` in portions whose keys may be listed in one go; `sides` say what is in them."""
    found: list[list[int]] = []
    room = 0
    for bucket in buckets:
        rows = sum(side.get(bucket, NONE).rows for side in sides)
        if not found or rows > room:
            found.append([])
            room = LISTED_AT_ONCE
        found[-1].append(bucket)
        room -= rows
    return found


async def listed(
    sides: Sides, table: TableStatements, keys: Selection, *, buckets: list[int], count: int
) -> set[str]:
    """Keys in `buckets` whose rows differ, or that are not as often on one side as on the other."""

    async def ask(side: Side, relation: Relation) -> Counter[tuple[Any, ...]]:
        condition, parameters = keys.of(relation)
        chosen = f"{relation.bucket(count)} = ANY (${len(parameters) + 1}::bigint[])"
        rows = await sides.scan(side, relation.key_hashes(also(condition, chosen)), *parameters, buckets)
        return Counter((row["k"], row["h"]) for row in rows)

    direction = sides.direction
    ours, theirs = await asyncio.gather(
        ask(direction.source, table.source), ask(direction.target, table.target)
    )
    return {key for key, _ in [*(ours - theirs), *(theirs - ours)]}


async def opened(
    sides: Sides, table: TableStatements, keys: Selection, *, rows: int
) -> AsyncIterator[set[str]]:
    """Keys of a selection whose rows differ, some at a time. `rows` is how many the fuller side has in it, about.

    Raises `UnreadableRowError` if a row of the source cannot be read.
    """
    count = bucket_count(rows)
    source, target = await bucket_totals(sides, table, keys, count=count)
    for buckets in portions(differing(source, target), source, target):
        yield await listed(sides, table, keys, buckets=buckets, count=count)
