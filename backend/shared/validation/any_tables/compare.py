"""Compares two tables with the validator's engine: hashes first, then the rows of the keys that seem to differ."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from backend.shared.database import DatabaseLimits, create_side_engine
from backend.shared.domain.mapping import decode_key
from backend.shared.domain.phases import Direction, Side
from backend.shared.validation.any_tables.catalog import TableDescription, describe_table
from backend.shared.validation.any_tables.errors import DiffError, TwoDatabases, unreadable
from backend.shared.validation.any_tables.plan import Choice, Plan, make_plan
from backend.shared.validation.any_tables.results import Counts, DiffReport, Fields, RowDifference, RowKind
from backend.shared.validation.chunks import EntityComparer
from backend.shared.validation.relation import Relation, TablePair
from backend.shared.validation.sides import Sides, UnreadableRowError, both

CHUNK_ROWS = 20_000
ROWS_READ_AT_ONCE = 200
LOOKED_AT_AGAIN_MOST = 10_000

_Row = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class DiffRequest:
    """Two tables, each `name` or `schema.name` as SQL writes it, in databases given by URL.

    With `again_seconds`, keys that differ are looked at once more, not before so much time has gone, and only those that
    still differ are told: for a replica that follows. That holds for the first `LOOKED_AT_AGAIN_MOST` keys.
    """

    dsn_a: str
    table_a: str
    dsn_b: str
    table_b: str
    choice: Choice = field(default_factory=Choice)
    again_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class _OneTable:
    tables: tuple[TablePair, ...]


async def diff_tables(request: DiffRequest, *, tell: Callable[[RowDifference], None]) -> DiffReport:
    """Compare two tables; `tell` gets each row that differs, as soon as it is known.

    Reads only. Each statement sees one snapshot of one side, not the run as a whole: a row is told if both its hash and,
    read later, its values differ. Of tables that nobody writes to the answer is exact; of those that are written to, a row
    that was changed during the run may be told or not, and no other row is. Memory is bounded, whatever the tables' size.

    Raises `DiffError` when they cannot be compared, and `ConfigurationError` for a URL that is none.
    """
    async with _databases(request) as sides:
        try:
            plan = make_plan(*await _described(sides, request), request.choice)
            return await _Run(sides=sides, plan=plan, tell=tell).run(again_seconds=request.again_seconds)
        except UnreadableRowError as error:
            raise unreadable(error) from error


async def _described(sides: Sides, request: DiffRequest) -> tuple[TableDescription, TableDescription]:
    # Both are waited for, also when one fails: to end a connection that is just being made leaves a noise in the log.
    found = await asyncio.gather(
        describe_table(sides, Side.LEGACY, request.table_a),
        describe_table(sides, Side.NEW, request.table_b),
        return_exceptions=True,
    )
    a, b = found
    if isinstance(a, BaseException):
        raise a
    if isinstance(b, BaseException):
        raise b
    return a, b


@asynccontextmanager
async def _databases(request: DiffRequest) -> AsyncIterator[TwoDatabases]:
    limits = DatabaseLimits(pool_size=2)
    urls = {Side.LEGACY: (request.dsn_a, "DSN_A"), Side.NEW: (request.dsn_b, "DSN_B")}
    engines = {
        side: create_side_engine(url, application_name="tandem diff", variable=name, limits=limits)
        for side, (url, name) in urls.items()
    }
    try:
        yield TwoDatabases(engines=engines, direction=Direction.TO_NEW)
    finally:
        for engine in engines.values():
            await engine.dispose()


@dataclass(frozen=True, kw_only=True)
class _Run:
    sides: Sides
    plan: Plan
    tell: Callable[[RowDifference], None]
    counts: Counts = field(default_factory=Counts)

    async def run(self, *, again_seconds: float | None) -> DiffReport:
        again: list[str] = []
        room = 0 if again_seconds is None else LOOKED_AT_AGAIN_MOST
        async with aclosing(self._suspects()) as suspects:
            async for keys in suspects:
                differing = await self._differences(keys)
                waiting = list(differing)[: room - len(again)] if len(again) < room else []
                again += waiting
                self._tell(row for key in differing if key not in waiting for row in differing[key])
        if again:
            await asyncio.sleep(again_seconds or 0)
            for start in range(0, len(again), ROWS_READ_AT_ONCE):
                found = await self._differences(again[start : start + ROWS_READ_AT_ONCE])
                self._tell(row for rows in found.values() for row in rows)
        return DiffReport(plan=self.plan, counts=self.counts)

    async def _suspects(self) -> AsyncGenerator[Sequence[str], None]:
        tables = _OneTable(tables=(self.plan.pair,))
        comparer = EntityComparer(sides=self.sides, statements=tables, chunk_rows=CHUNK_ROWS)
        async with aclosing(comparer.chunks()) as chunks:
            async for chunk in chunks:
                self.counts.rows_a += chunk.source_rows
                self.counts.rows_b += chunk.target_rows
                for start in range(0, len(chunk.suspects), ROWS_READ_AT_ONCE):
                    yield chunk.suspects[start : start + ROWS_READ_AT_ONCE]

    def _tell(self, rows: Iterable[RowDifference]) -> None:
        for row in rows:
            self.counts.add(row)
            self.tell(row)

    async def _differences(self, keys: Sequence[str]) -> dict[str, list[RowDifference]]:
        """The rows of `keys` that differ, by key; both sides are read at the same time."""
        pair = self.plan.pair
        ours, theirs = await both(
            self._rows(Side.LEGACY, pair.source, keys), self._rows(Side.NEW, pair.target, keys)
        )
        found = {key: self._of_key(ours.get(key, []), theirs.get(key, [])) for key in keys}
        return {key: rows for key, rows in found.items() if rows}

    async def _rows(
        self, side: Side, relation: Relation, keys: Sequence[str]
    ) -> dict[str, list[dict[str, str | None]]]:
        # NULL is equal to nothing: a key that holds it is found by its text alone, without an index.
        has_null = any(None in decode_key(key) for key in keys)
        condition = relation.named("$1") if has_null else relation.among("$1")
        ((text,),) = await self.sides.scan(side, relation.texts(condition), list(keys))
        rows: dict[str, list[dict[str, str | None]]] = json.loads(text)
        return rows

    def _of_key(
        self, ours: Sequence[Mapping[str, str | None]], theirs: Sequence[Mapping[str, str | None]]
    ) -> list[RowDifference]:
        a, b = Counter(tuple(row.items()) for row in ours), Counter(tuple(row.items()) for row in theirs)
        gone, new = _sorted(a - b), _sorted(b - a)
        both = min(len(gone), len(new))
        return [
            *(self._changed(dict(one), dict(other)) for one, other in zip(gone, new, strict=False)),
            *(self._single(RowKind.ONLY_IN_A, dict(row)) for row in gone[both:]),
            *(self._single(RowKind.ONLY_IN_B, dict(row)) for row in new[both:]),
        ]

    def _changed(self, a: Fields, b: Fields) -> RowDifference:
        names = [name for name in a if a[name] != b[name]]
        return RowDifference(
            kind=RowKind.CHANGED,
            key=self._key(a),
            a={name: a[name] for name in names},
            b={name: b[name] for name in names},
        )

    def _single(self, kind: RowKind, row: Fields) -> RowDifference:
        in_a = kind is RowKind.ONLY_IN_A
        return RowDifference(kind=kind, key=self._key(row), a=row if in_a else None, b=None if in_a else row)

    def _key(self, row: Fields) -> Fields:
        return {name: row[name] for name in self.plan.key}


def _sorted(rows: Counter[_Row]) -> list[_Row]:
    return sorted(rows.elements(), key=repr)


__all__ = ["DiffError", "DiffRequest", "diff_tables"]
