"""Walks through all keys of an entity in their order, chunk by chunk: the source sets the pace, the target keeps step.

A chunk is the next rows of the source's root table, whose count, hash and last key the source tells in one statement. While
the target computes the same of that range, the source is at the next one already, so that both servers are busy all the
time, and no bounds are read beforehand. The last range is open above: rows that only the target has behind it are in it.
Hashing holds nothing in memory, however many more rows than the source some other table has in the range.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from backend.shared.domain.phases import Side
from backend.shared.stores.postgres.key_sql import KeyRange
from backend.shared.validation.relation import Relation, TablePair
from backend.shared.validation.sides import Sides, UnreadableRowError, both

CHUNKS_AHEAD = 4
"""Chunks that are measured while the one before them is opened, so that the servers need not wait for that."""


@dataclass(frozen=True, kw_only=True)
class ChunkResult:
    """Rows of the root table on either side, and keys that seem to differ: to be looked at again, not yet reported.

    `resume_at`, passed as `after`, goes on behind this chunk; None: it was the last one.
    """

    source_rows: int = 0
    target_rows: int = 0
    suspects: tuple[str, ...] = ()
    resume_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Totals:
    """How many rows, and the sum of their hashes."""

    rows: int = 0
    hashes: str = "0"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What each side has in a range, by table. `source` is None where a row of it cannot be read."""

    keys: KeyRange
    source: tuple[Totals, ...] | None
    target: tuple[Totals, ...]


async def totals(sides: Sides, side: Side, relation: Relation, keys: KeyRange) -> Totals:
    """The totals of a range."""
    condition, parameters = keys.of(relation)
    (row,) = await sides.scan(side, relation.chunk(condition), *parameters)
    return Totals(rows=row["n"], hashes=row["h"])


async def walk(
    sides: Sides,
    tables: Sequence[TablePair],
    keys: KeyRange,
    *,
    rows: int,
) -> AsyncGenerator[Measured, None]:
    """`keys` in ranges of about `rows` rows of the source's root table each, which follow each other without a gap.

    Raises `UnreadableRowError` where not even the keys can be read.
    """
    steps = _Steps(sides=sides, tables=tables, rows=rows)
    found: asyncio.Queue[asyncio.Task[Measured] | None] = asyncio.Queue()
    room = asyncio.Semaphore(CHUNKS_AHEAD)

    async def go_ahead() -> None:
        after = keys.lower
        try:
            while True:
                await room.acquire()
                step = await steps.next(after, keys.upper)
                found.put_nowait(asyncio.create_task(steps.measured(step)))
                if step.keys.upper == keys.upper:
                    return
                after = step.keys.upper
        finally:
            found.put_nowait(None)

    walker = asyncio.create_task(go_ahead())
    current: asyncio.Task[Measured] | None = None
    try:
        while (current := await found.get()) is not None:
            yield await current
            room.release()
        await walker
    finally:
        left = [walker, *([current] if current else []), *_emptied(found)]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _emptied(queue: asyncio.Queue[asyncio.Task[Measured] | None]) -> list[asyncio.Task[Measured]]:
    left = []
    while not queue.empty():
        task = queue.get_nowait()
        if task is not None:
            left.append(task)
    return left


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A range, and what the root table of the source has in it; None if it cannot be read."""

    keys: KeyRange
    root: Totals | None


@dataclass(frozen=True, kw_only=True)
class _Steps:
    sides: Sides
    tables: Sequence[TablePair]
    rows: int

    async def next(self, after: str | None, upto: str | None) -> _Step:
        side, root = self.sides.direction.source, self.tables[0].source
        bounds = [bound for bound in (after, upto) if bound is not None]
        lower = "$2" if after is not None else None
        upper = f"${len(bounds) + 1}" if upto is not None else None
        with suppress(UnreadableRowError):
            if root.knows_its_last:
                statement = root.next_chunk(lower=lower, upper=upper)
                (row,) = await self.sides.scan(side, statement, self.rows, *bounds)
                last = row["k"] if row["n"] >= self.rows else upto
                found = Totals(rows=row["n"], hashes=row["h"])
                return _Step(keys=KeyRange(lower=after, upper=last), root=found)
        found_keys = await self.sides.scan(side, root.nth_key(lower=lower, upper=upper), self.rows, *bounds)
        keys = KeyRange(lower=after, upper=found_keys[0]["k"] if found_keys else upto)
        try:
            return _Step(keys=keys, root=await totals(self.sides, side, root, keys))
        except UnreadableRowError:
            return _Step(keys=keys, root=None)

    async def measured(self, step: _Step) -> Measured:
        source, target = await both(self._source(step), self._target(step.keys))
        return Measured(keys=step.keys, source=source, target=target)

    async def _source(self, step: _Step) -> tuple[Totals, ...] | None:
        if step.root is None:
            return None
        side = self.sides.direction.source
        try:
            others = [await totals(self.sides, side, table.source, step.keys) for table in self.tables[1:]]
        except UnreadableRowError:
            return None
        return step.root, *others

    async def _target(self, keys: KeyRange) -> tuple[Totals, ...]:
        side = self.sides.direction.target
        return tuple([await totals(self.sides, side, table.target, keys) for table in self.tables])
