"""Compares keys in Python's reach: a bounded number of rows at a time, also those that a Python function makes.

The way of entities that functions map, of stretches in which some row cannot be read, and of keys by name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.shared.stores.postgres.key_sql import KeyRange
from backend.shared.stores.postgres.store import through_function
from backend.shared.validation.opening import unpaired
from backend.shared.validation.ranges import key_ranges
from backend.shared.validation.relation import Relation, Selection, TablePair
from backend.shared.validation.sides import Sides, UnreadableRowError, both
from backend.shared.validation.statements import TableStatements
from backend.shared.validation.walk import ChunkResult

Question = Callable[[Relation, str], str]


@dataclass(frozen=True, kw_only=True)
class SmallChunks:
    """Compares all tables of one entity, range by range. What it holds in memory is bounded by the range."""

    sides: Sides
    tables: Sequence[TablePair]

    async def between(self, keys: KeyRange, *, rows: int) -> AsyncGenerator[ChunkResult, None]:
        """Compare a range, by smaller ones; see `key_ranges`."""
        found = key_ranges(self.sides, self, rows=rows, after=keys.lower, upto=keys.upper)
        async for part in found:
            yield replace(await self.compare(part), resume_at=part.upper)

    async def compare(self, keys: Selection) -> ChunkResult:
        """Compare some keys, both sides at once."""
        counts: list[tuple[int, int]] = []
        suspects: set[str] = set()
        for table in self.tables:
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

    async def _differing(self, table: TablePair, keys: Selection) -> set[str]:
        """Keys whose rows differ, or that are not as often on one side as on the other."""
        source, target = await self._ask_both(table, keys, Relation.key_hashes)
        if source is None:
            ours, theirs = await self._keys(table, keys)
            return {*ours, *theirs}
        return unpaired(source, target)

    async def _keys(self, table: TablePair, keys: Selection) -> tuple[list[str], list[str]]:
        """All keys, on source and target, of a range in which some row cannot be read."""

        async def ask(relation: Relation, ask_side: Callable[..., Any]) -> list[str]:
            condition, parameters = keys.of(relation)
            return [row.k for row in await ask_side(relation.keys(condition), *parameters)]

        return await both(ask(table.source, self.sides.ask_source), ask(table.target, self.sides.ask_target))

    async def _ask_both(
        self, table: TablePair, keys: Selection, question: Question
    ) -> tuple[list[tuple[Any, ...]] | None, list[tuple[Any, ...]]]:
        """The answers of source and target; None for a source with a row that cannot be read."""
        condition, parameters = keys.of(table.target)
        target = self.sides.ask_target(question(table.target, condition), *parameters)
        ours, theirs = await both(self._ask_source(table, keys, question), target)
        return ours, [tuple(row) for row in theirs]

    async def _ask_source(
        self, table: TablePair, keys: Selection, question: Question
    ) -> list[tuple[Any, ...]] | None:
        condition, parameters = keys.of(table.source)
        try:
            if table.received is None or not isinstance(table, TableStatements):
                rows = await self.sides.ask_source(question(table.source, condition), *parameters)
            else:
                (read,) = await self.sides.ask_source(table.documents(condition), *parameters)
                made, _ = through_function(table.sql.entity, table.sql.projection, read.rows)
                rows = await self.sides.ask_target(question(table.received, ""), made)
        except UnreadableRowError:
            return None
        return [tuple(row) for row in rows]
