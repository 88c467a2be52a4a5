"""Compares an entity: chunk by chunk, by count and hash, and key by key only where these differ."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from backend.shared.stores.postgres.key_sql import KeyRange
from backend.shared.validation.bucket_walk import compare_buckets
from backend.shared.validation.opening import opened
from backend.shared.validation.ordering import in_order
from backend.shared.validation.relation import Among, TablePair, Tables
from backend.shared.validation.sample import sampled_ranges
from backend.shared.validation.sides import Sides, UnreadableRowError
from backend.shared.validation.small_chunks import SmallChunks
from backend.shared.validation.walk import ChunkResult, Measured, walk

SMALL_CHUNK_ROWS = 10_000
"""The most rows of a chunk that passes through Python."""
UNREADABLE_CHUNK_ROWS = 500
"""Rows of a chunk all of whose keys are suspects, since one of them cannot be read."""

Way = Callable[[KeyRange], AsyncGenerator[ChunkResult, None]]


class EntityComparer:
    """Compares all tables of one entity. Reads only; what it holds in memory is bounded, whatever the size of the tables.

    `chunk_rows` is the number of rows of the source between two places to resume at. A transaction lasts no longer than one
    statement, so nothing holds back the servers' vacuum.
    """

    def __init__(self, *, sides: Sides, statements: Tables, chunk_rows: int) -> None:
        self._sides = sides
        self._statements = statements
        self._chunk_rows = chunk_rows
        self._small = SmallChunks(sides=sides, tables=statements.tables)

    async def chunks(
        self, *, after: str | None = None, share: float = 1.0, seed: int = 0
    ) -> AsyncGenerator[ChunkResult, None]:
        """Compare all keys behind `after` (a `resume_at`; None, from the first on), chunk by chunk.

        With `share` below 1, a random sample of about that share of the rows, chosen by `seed`: whole ranges of keys, or
        buckets of their hashes, and at least one of them. Raises `SideError` if a side does not answer, and
        `UnreadableRowError` if keys cannot be read.

        Keys that are compared by bucket (see `bucket_walk`) are read from the start again by a resumed run, which tells
        of no chunk twice all the same.
        """
        async with self._sides.in_lanes() as sides:
            comparer = EntityComparer(sides=sides, statements=self._statements, chunk_rows=self._chunk_rows)
            results = comparer._chunks(after or None, share=share, seed=seed)
            async with aclosing(results):
                async for result in results:
                    yield result

    async def _chunks(
        self, after: str | None, *, share: float, seed: int
    ) -> AsyncGenerator[ChunkResult, None]:
        tables = await in_order(self._sides, self._statements.tables)
        way = self._way(tables)
        if way is None:
            results = self._by_bucket(after, share=share, seed=seed)
        elif share < 1:
            results = self._sample(way, after, share=share, seed=seed)
        else:
            results = way(KeyRange(lower=after, upper=None))
        async with aclosing(results):
            async for result in results:
                yield result

    async def among(self, keys: Sequence[str]) -> ChunkResult:
        """Compare `keys` only; the cost is in proportion to them."""
        return await self._small.compare(Among(keys=tuple(keys)))

    def _way(self, tables: tuple[TablePair, ...] | None) -> Way | None:
        """How a range of keys is compared; None if ranges are not the way. `tables` is None without an order of keys."""
        if any(table.received for table in self._statements.tables):
            small = replace(self._small, tables=tables or self._statements.tables)
            return partial(small.between, rows=min(self._chunk_rows, SMALL_CHUNK_ROWS))
        return None if tables is None else partial(self._between, tables)

    async def _by_bucket(
        self, after: str | None, *, share: float, seed: int
    ) -> AsyncGenerator[ChunkResult, None]:
        found = compare_buckets(self._sides, self._statements.tables, after=after, share=share, seed=seed)
        try:
            async with aclosing(found):
                async for result in found:
                    yield result
        except UnreadableRowError:
            # Rare enough to be slow: each range sorts the table anew. A sample is all of it then.
            keys = KeyRange(lower=None, upper=None)
            async for result in self._small.between(keys, rows=SMALL_CHUNK_ROWS):
                yield result

    async def _sample(
        self, way: Way, after: str | None, *, share: float, seed: int
    ) -> AsyncGenerator[ChunkResult, None]:
        last = ChunkResult()
        root = self._statements.tables[0]
        ranges = sampled_ranges(self._sides, root, after=after, share=share, seed=seed)
        async with aclosing(ranges):
            async for keys in ranges:
                async with aclosing(way(keys)) as results:
                    async for result in results:
                        if last.resume_at is not None:
                            yield last
                        end = keys.upper if result.resume_at is None else result.resume_at
                        last = replace(result, resume_at=end)
        yield replace(last, resume_at=None)

    async def _between(
        self, tables: tuple[TablePair, ...], keys: KeyRange
    ) -> AsyncGenerator[ChunkResult, None]:
        small = replace(self._small, tables=tables)
        found = walk(self._sides, tables, keys, rows=self._chunk_rows)
        async with aclosing(found):
            async for measured in found:
                try:
                    async for result in self._opened(tables, measured):
                        yield result
                except UnreadableRowError:
                    async for result in small.between(measured.keys, rows=UNREADABLE_CHUNK_ROWS):
                        yield result

    async def _opened(
        self, tables: Sequence[TablePair], measured: Measured
    ) -> AsyncGenerator[ChunkResult, None]:
        """The suspects of a range, some at a time; the last of these results counts its rows.

        Interrupted, it is opened again.
        """
        if measured.source is None:
            raise UnreadableRowError
        keys, suspects = measured.keys, set[str]()
        for table, ours, theirs in zip(tables, measured.source, measured.target, strict=True):
            if ours == theirs:
                continue
            async for found in opened(self._sides, table, keys, rows=max(ours.rows, theirs.rows)):
                if suspects:
                    yield ChunkResult(suspects=tuple(sorted(suspects)), resume_at=keys.lower or "")
                suspects = found
        yield ChunkResult(
            source_rows=measured.source[0].rows,
            target_rows=measured.target[0].rows,
            suspects=tuple(sorted(suspects)),
            resume_at=keys.upper,
        )


__all__ = ["ChunkResult", "EntityComparer"]
