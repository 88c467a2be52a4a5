"""Ranges of keys drawn by lot: a sample of the rows whose cost is in proportion to it."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Iterator

from backend.shared.domain.mapping import decode_key, encode_key
from backend.shared.stores.postgres.key_sql import KeyRange
from backend.shared.validation.opening import span_of
from backend.shared.validation.relation import Relation, TablePair
from backend.shared.validation.sides import Sides

CELLS = 2_000
"""Pieces that the keys are cut into, of which some are drawn."""
STRETCH_ROWS = 1_000


async def sampled_ranges(
    sides: Sides, root: TablePair, *, after: str | None, share: float, seed: int
) -> AsyncGenerator[KeyRange, None]:
    """Ranges behind `after`, in order, that hold about `share` of the rows; at least one.

    Where the key is one whole number, its span is cut into equal cells and each is drawn with a chance of `share`, so that
    every row has the same chance, and rows that are not drawn cost nothing. Other keys are counted off in the source's
    index: stretches of rows with gaps of random length between. Goes on elsewhere when resumed after rows have come or gone.
    """
    if root.source.is_numbered:
        span = await span_of(sides, root, KeyRange())
        for keys in _cells(span, after=after, share=share, seed=seed) if span else [KeyRange()]:
            yield keys
        return
    async for keys in _stretches(sides, root.source, after=after, share=share, seed=seed):
        yield keys


def _cells(span: tuple[int, int], *, after: str | None, share: float, seed: int) -> Iterator[KeyRange]:
    low, high = span
    count = min(CELLS, high - low + 1)
    edges = [low - 1 + (high - low + 1) * n // count for n in range(count + 1)]
    # No secret is drawn here, but something that must come out the same again.
    drawn = [n for n in range(count) if random.Random(f"{seed} {n}").random() < share]  # noqa: S311
    (start,) = decode_key(after) if after else (None,)
    for n in drawn or [seed % count]:
        # The first and the last cell are open: so are rows that come while this runs.
        lower = edges[n] if n else None
        if start is not None:
            if n < count - 1 and edges[n + 1] <= start:
                continue
            lower = start if lower is None else max(lower, start)
        upper = edges[n + 1] if n < count - 1 else None
        yield KeyRange(
            lower=None if lower is None else encode_key((lower,)),
            upper=None if upper is None else encode_key((upper,)),
        )


async def _stretches(
    sides: Sides, relation: Relation, *, after: str | None, share: float, seed: int
) -> AsyncGenerator[KeyRange, None]:
    lot = random.Random(f"{seed} {after}")  # noqa: S311 - as above
    mean_gap = STRETCH_ROWS * (1 - share) / share
    lower, drawn = after, False
    while True:
        start = await _key_after(sides, relation, lower, rows=int(lot.expovariate(1 / mean_gap)) + 1)
        if start is None and drawn:
            return
        start = lower if start is None else start
        lower = await _key_after(sides, relation, start, rows=STRETCH_ROWS)
        yield KeyRange(lower=start, upper=lower)
        drawn = True
        if lower is None:
            return


async def _key_after(sides: Sides, relation: Relation, key: str | None, *, rows: int) -> str | None:
    bounds = [] if key is None else [key]
    statement = relation.nth_key(lower="$2" if bounds else None, upper=None)
    found = await sides.scan(sides.direction.source, statement, rows, *bounds)
    return str(found[0]["k"]) if found else None
