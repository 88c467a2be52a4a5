"""Compares keys that no index holds in an order that both sides share: in one pass per side, by bucket of their hash.

That is the way of text keys where a database sorts by the rules of a language: ranges by bytes would read the whole table for
each range, and those of two versions of a collation need not agree. Each side groups its rows into a few thousand buckets,
which takes no more memory than these. Keys are listed only of buckets that differ, a bounded number of rows at a time, each
in one more pass.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence

from backend.shared.stores.postgres.key_sql import KeyRange
from backend.shared.validation.opening import (
    MOST_PARTS,
    ByHash,
    Parts,
    differing,
    listed,
    part_totals,
    portions,
)
from backend.shared.validation.relation import InBuckets, Selection, TablePair
from backend.shared.validation.sides import Sides
from backend.shared.validation.walk import ChunkResult

_TOKEN = "#"  # noqa: S105 - the mark of a place to resume at: no canonical key begins so


async def compare_buckets(
    sides: Sides,
    tables: Sequence[TablePair],
    *,
    after: str | None = None,
    share: float = 1.0,
    seed: int = 0,
) -> AsyncGenerator[ChunkResult, None]:
    """Compare all tables, or with `share` those of their rows that are in some buckets drawn by `seed`.

    A sample, too, reads all rows; what it saves is hashing them. `after`, a `resume_at`, leaves out what has been told: the
    pass itself is made again. Raises `UnreadableRowError` if any row cannot be read, before the first result, as a rule.
    """
    first = int(after.removeprefix(_TOKEN)) if after and after.startswith(_TOKEN) else 0
    chosen: Sequence[int] = range(MOST_PARTS)
    if share < 1:
        lot = random.Random(seed)  # noqa: S311 - no secret is drawn here
        chosen = sorted(lot.sample(chosen, max(1, round(MOST_PARTS * share))))
    chosen = [bucket for bucket in chosen if bucket >= first]
    keys: Selection = KeyRange()
    if len(chosen) < MOST_PARTS:
        keys = InBuckets(buckets=tuple(chosen), count=MOST_PARTS)
    buckets = ByHash(count=MOST_PARTS)
    found = [await part_totals(sides, table, keys, buckets) for table in tables]
    suspicious = sorted({bucket for source, target in found for bucket in differing(source, target)})
    root_source, root_target = found[0]
    told = first
    parts = portions(suspicious, *(side for both in found for side in both))
    for number, part in enumerate(parts, start=1):
        suspects: set[str] = set()
        for table in tables:
            suspects |= await listed(sides, table, KeyRange(), buckets, parts=part)
        end = MOST_PARTS if number == len(parts) else part[-1] + 1
        yield ChunkResult(
            source_rows=_rows(root_source, told, end),
            target_rows=_rows(root_target, told, end),
            suspects=tuple(sorted(suspects)),
            resume_at=None if number == len(parts) else f"{_TOKEN}{end}",
        )
        told = end
    if not parts:
        yield ChunkResult(
            source_rows=_rows(root_source, told, MOST_PARTS),
            target_rows=_rows(root_target, told, MOST_PARTS),
        )


def _rows(buckets: Parts, start: int, end: int) -> int:
    return sum(totals.rows for bucket, totals in buckets.items() if start <= bucket < end)
