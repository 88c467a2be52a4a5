"""Cuts the keys of an entity into ranges that hold a bounded number of rows on either side."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from backend.shared.domain.mapping import decode_key
from backend.shared.domain.phases import Side
from backend.shared.stores.postgres.key_sql import KeyRange
from backend.shared.validation.relation import Relation, Tables
from backend.shared.validation.sides import Sides

BOUNDS_READ_AT_ONCE = 50
_MOST_EXTRA_BOUNDS = 2


def sortable(key: str) -> tuple[int | bytes, ...]:
    """A canonical key as both servers order it: numbers by value, texts by their bytes (collation "C")."""
    return tuple(part if isinstance(part, int) else str(part).encode() for part in decode_key(key))


@dataclass
class _Bounds:
    """Every nth key of one table on one side, read a few at a time."""

    side: Side
    relation: Relation
    waiting: deque[str] = field(default_factory=deque)
    last: str | None = None
    finished: bool = False

    async def refill(self, sides: Sides, *, rows: int) -> None:
        if self.waiting or self.finished:
            return
        parameters = [rows, rows * BOUNDS_READ_AT_ONCE, *([self.last] if self.last is not None else [])]
        statement = self.relation.bounds(lower="$3" if self.last is not None else None)
        found = [row.k for row in await sides.ask(self.side, statement, *parameters)]
        self.waiting.extend(found)
        self.finished = len(found) < BOUNDS_READ_AT_ONCE
        self.last = found[-1] if found else self.last

    async def limit(self, sides: Sides, upper: str | None, *, rows: int) -> str | None:
        """`upper`, or a lower key if there are many more rows than `rows` below it; forgets the bounds passed."""
        passed: list[str] = []
        while len(passed) <= _MOST_EXTRA_BOUNDS:
            await self.refill(sides, rows=rows)
            if not self.waiting or (upper is not None and sortable(self.waiting[0]) > sortable(upper)):
                return upper
            passed.append(self.waiting.popleft())
        self.waiting.extendleft(reversed(passed[-1:]))
        return passed[-2]


async def key_ranges(
    sides: Sides,
    statements: Tables,
    *,
    rows: int,
    after: str | None = None,
    upto: str | None = None,
) -> AsyncIterator[KeyRange]:
    """Ranges that follow each other without a gap, from behind `after` (before the first key) to `upto` (the last).

    About `rows` rows of the source's root table each, and at most three times as many of any table on either side: a
    side that has much more is cut by its own keys. (Rows that come while this runs may add to that.)
    """
    direction = sides.direction
    source, target = direction.source, direction.target
    main = _Bounds(side=source, relation=statements.tables[0].source, last=after)
    others = [_Bounds(side=target, relation=table.target, last=after) for table in statements.tables]
    others += [_Bounds(side=source, relation=table.source, last=after) for table in statements.tables[1:]]
    lower = after
    while True:
        await asyncio.gather(main.refill(sides, rows=rows), others[0].refill(sides, rows=rows))
        upper = main.waiting[0] if main.waiting else None
        if upto is not None and (upper is None or sortable(upper) > sortable(upto)):
            upper = upto
        for bounds in others:
            upper = await bounds.limit(sides, upper, rows=rows)
        if main.waiting and upper == main.waiting[0]:
            main.waiting.popleft()
        yield KeyRange(lower=lower, upper=upper)
        if upper == upto:
            return
        lower = upper
