"""Compares an entity: chunk by chunk, by count and hash, and key by key only where these differ."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from backend.shared.stores.postgres.store import through_function
from backend.shared.validation.ranges import key_ranges
from backend.shared.validation.sides import Sides, UnreadableRowError
from backend.shared.validation.statements import EntityStatements, Relation, TableStatements

Question = Callable[[Relation, str], str]


class Selection(Protocol):
    """Some keys of an entity."""

    def of(self, relation: Relation) -> tuple[str, tuple[Any, ...]]:
        """The condition that these are in `relation`, with its parameters from `$1` on."""
        ...


@dataclass(frozen=True, kw_only=True)
class Among:
    """Keys by name, canonical."""

    keys: tuple[str, ...]

    def of(self, relation: Relation) -> tuple[str, tuple[list[str]]]:
        """See `Selection`."""
        return relation.among("$1"), (list(self.keys),)


@dataclass(frozen=True, kw_only=True)
class ChunkResult:
    """Rows of the root table on either side, and keys that seem to differ: to be looked at again, not yet reported.

    `resume_at`, passed as `after`, goes on behind this chunk; None: it was the last one.
    """

    source_rows: int
    target_rows: int
    suspects: tuple[str, ...]
    resume_at: str | None = None


class EntityComparer:
    """Compares all tables of one entity. Reads only; what it holds in memory is bounded by `chunk_rows`."""

    def __init__(self, *, sides: Sides, statements: EntityStatements, chunk_rows: int) -> None:
        self._sides = sides
        self._statements = statements
        self._chunk_rows = chunk_rows

    async def chunks(
        self, *, after: str | None = None, share: float = 1.0, seed: int = 0
    ) -> AsyncIterator[ChunkResult]:
        """Compare all keys behind `after`, chunk by chunk.

        With `share` below 1, a random sample of about that share of the rows, in whole chunks, chosen by `seed`. Raises
        `SideError` if a side does not answer, `UnreadableRowError` if keys cannot be read.
        """
        comparer = ChunkComparer(sides=self._sides, statements=self._statements)
        async for keys in key_ranges(self._sides, self._statements, rows=self._chunk_rows, after=after):
            if share < 1 and random.Random(f"{seed} {keys.lower}").random() >= share:  # noqa: S311 - no secret
                if keys.upper is None:
                    yield ChunkResult(source_rows=0, target_rows=0, suspects=())
                continue
            found = await comparer.compare(keys)
            yield replace(found, resume_at=keys.upper)

    async def among(self, keys: Sequence[str]) -> ChunkResult:
        """Compare `keys` only; the cost is in proportion to them."""
        comparer = ChunkComparer(sides=self._sides, statements=self._statements)
        return await comparer.compare(Among(keys=tuple(keys)))


@dataclass(frozen=True, kw_only=True)
class ChunkComparer:
    """Compares all tables of one entity, range by range. What it holds in memory is bounded by the range."""

    sides: Sides
    statements: EntityStatements

    async def compare(self, keys: Selection) -> ChunkResult:
        """Compare some keys, both sides at once."""
        counts: list[tuple[int, int]] = []
        suspects: set[str] = set()
        for table in self.statements.tables:
            source, target = await self._ask_both(table, keys, Relation.chunk)
            if source is None:
                ours, theirs = await self._keys(table, keys)
                counts.append((len(ours), len(theirs)))
                suspects.update(ours, theirs)
                continue
            counts.append((source[0][0], target[0][0]))
            if source != target:
                suspects |= await self._differing(table, keys)
        return ChunkResult(
            source_rows=counts[0][0], target_rows=counts[0][1], suspects=tuple(sorted(suspects))
        )

    async def _differing(self, table: TableStatements, keys: Selection) -> set[str]:
        """Keys whose rows differ, or that are not as often on one side as on the other."""
        source, target = await self._ask_both(table, keys, Relation.key_hashes)
        if source is None:
            ours, theirs = await self._keys(table, keys)
            return {*ours, *theirs}
        ours_by_hash, theirs_by_hash = Counter(source), Counter(target)
        return {key for key, _ in [*(ours_by_hash - theirs_by_hash), *(theirs_by_hash - ours_by_hash)]}

    async def _keys(self, table: TableStatements, keys: Selection) -> tuple[list[str], list[str]]:
        """All keys, on source and target, of a range in which some row cannot be read."""

        async def ask(relation: Relation, ask_side: Callable[..., Any]) -> list[str]:
            condition, parameters = keys.of(relation)
            return [row.k for row in await ask_side(relation.keys(condition), *parameters)]

        source, target = await asyncio.gather(
            ask(table.source, self.sides.ask_source), ask(table.target, self.sides.ask_target)
        )
        return source, target

    async def _ask_both(
        self, table: TableStatements, keys: Selection, question: Question
    ) -> tuple[list[tuple[Any, ...]] | None, list[tuple[Any, ...]]]:
        """The answers of source and target; None for a source with a row that cannot be read."""
        condition, parameters = keys.of(table.target)
        target = self.sides.ask_target(question(table.target, condition), *parameters)
        ours, theirs = await asyncio.gather(self._ask_source(table, keys, question), target)
        return ours, [tuple(row) for row in theirs]

    async def _ask_source(
        self, table: TableStatements, keys: Selection, question: Question
    ) -> list[tuple[Any, ...]] | None:
        condition, parameters = keys.of(table.source)
        try:
            if table.received is None:
                rows = await self.sides.ask_source(question(table.source, condition), *parameters)
            else:
                (read,) = await self.sides.ask_source(table.documents(condition), *parameters)
                made, _ = through_function(table.sql.entity, table.sql.projection, read.rows)
                rows = await self.sides.ask_target(question(table.received, ""), made)
        except UnreadableRowError:
            return None
        return [tuple(row) for row in rows]
