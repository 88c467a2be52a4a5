"""The comparing engine itself: goes on where it was, samples, is bounded where one side has more, and sorts by no language."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Column, Integer, MetaData, QueuePool, Table, Text, select

from backend.shared import Direction, EntityMapping, KeyPart, Projection, Side, Source
from backend.shared.database import create_side_engine
from backend.shared.testing.clusters import Databases
from backend.shared.validation import bucket_walk, chunks, opening, sample
from backend.shared.validation.chunks import ChunkResult, EntityComparer
from backend.shared.validation.lane import Lane
from backend.shared.validation.sides import Sides
from backend.shared.validation.statements import EntityStatements

ROWS = 1_000


def entity(key: Any) -> EntityMapping:
    table = Table(
        "t", MetaData(), Column("id", key, primary_key=True), Column("v", Text), Column("n", Integer)
    )
    projection = Projection(table=table, key=("id",), query=select(table))
    source = Source(table=table, keys=("id",))
    return EntityMapping(
        name="thing",
        key=(KeyPart(name="id", type=key),),
        to_new=(projection,),
        to_legacy=(projection,),
        legacy_sources=(source,),
        new_sources=(source,),
    )


@dataclass(frozen=True)
class Pair:
    sides: Sides
    source: asyncpg.Connection
    target: asyncpg.Connection
    mapping: EntityMapping

    def comparer(self, *, rows: int = 100) -> EntityComparer:
        statements = EntityStatements.of(self.mapping, self.mapping.to_new)
        return EntityComparer(sides=self.sides, statements=statements, chunk_rows=rows)

    async def results(self, *, rows: int = 100, **options: Any) -> list[ChunkResult]:
        return [result async for result in self.comparer(rows=rows).chunks(**options)]


@pytest.fixture(params=["integer", 'text COLLATE "C"', 'text COLLATE "C.utf8"'])
async def pair(
    request: pytest.FixtureRequest, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    """1,000 equal rows by a number, by a text that is sorted by its bytes, and by one that is not."""
    kind = request.param
    monkeypatch.setattr(bucket_walk, "MOST_PARTS", 64)
    monkeypatch.setattr(opening, "LISTED_AT_ONCE", 200)
    monkeypatch.setattr(sample, "STRETCH_ROWS", 20)
    urls = {Side.LEGACY: databases.legacy_url, Side.NEW: databases.new_url}
    engines = {side: create_side_engine(url, application_name="test") for side, url in urls.items()}
    source, target = [await asyncpg.connect(url) for url in urls.values()]
    for connection in (source, target):
        await connection.execute(f"CREATE TABLE t (id {kind} PRIMARY KEY, v text, n integer)")
        key = "n" if kind == "integer" else "'k' || n"
        await connection.execute(
            f"INSERT INTO t SELECT {key}, 'v' || n, n FROM generate_series(1, {ROWS}) AS n"
        )
    yield Pair(
        Sides(engines=engines, direction=Direction.TO_NEW),
        source,
        target,
        entity(Integer() if kind == "integer" else Text()),
    )
    for connection in (source, target):
        await connection.close()
    for engine in engines.values():
        await engine.dispose()


def suspects(results: list[ChunkResult]) -> list[str]:
    return sorted(key for result in results for key in result.suspects)


def rows(results: list[ChunkResult]) -> tuple[int, int]:
    return sum(result.source_rows for result in results), sum(result.target_rows for result in results)


async def numbers(pair: Pair, keys: list[str]) -> set[int]:
    found = await pair.source.fetch("SELECT n FROM t WHERE jsonb_build_array(id)::text = ANY ($1)", keys)
    return {row["n"] for row in found}


async def test_all_rows_once_and_only_what_differs(pair: Pair) -> None:
    assert rows(await pair.results()) == (ROWS, ROWS)
    await pair.target.execute("UPDATE t SET v = v || ' ' WHERE n IN (1, 100, 101, 555, 1000)")
    results = await pair.results()
    assert rows(results) == (ROWS, ROWS)
    assert len(suspects(results)) == 5
    assert await numbers(pair, suspects(results)) == {1, 100, 101, 555, 1000}
    assert [result.resume_at for result in results][-1] is None
    assert None not in [result.resume_at for result in results][:-1]


async def test_goes_on_where_it_was_from_any_place(pair: Pair) -> None:
    await pair.target.execute("UPDATE t SET v = v || ' '")
    results = await pair.results()
    assert len(results) > 3
    for stop, result in enumerate(results[:-1], start=1):
        rest = await pair.results(after=result.resume_at)
        assert rows([*results[:stop], *rest]) == (ROWS, ROWS)
        assert set(suspects([*results[:stop], *rest])) == set(suspects(results))
    assert len(suspects(results)) == ROWS, "and none is told twice"


async def test_a_key_that_is_there_twice_at_the_end_of_a_chunk(pair: Pair) -> None:
    await pair.source.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    order = "id" if pair.mapping.key[0].type.python_type is int else 'id COLLATE "C"'
    twice = await pair.source.fetchval(f"SELECT n FROM t ORDER BY {order} OFFSET 99 LIMIT 1")
    await pair.source.execute("INSERT INTO t SELECT * FROM t WHERE n = $1", twice)
    results = await pair.results(rows=100)
    assert rows(results) == (ROWS + 1, ROWS)
    assert await numbers(pair, suspects(results)) == {twice}


async def test_one_side_has_far_more_than_the_other(pair: Pair) -> None:
    key = "n" if pair.mapping.key[0].type.python_type is int else "'k5' || n"
    await pair.target.execute(f"INSERT INTO t SELECT {key}, 'x', n FROM generate_series(10000, 14999) AS n")
    results = await pair.results(rows=10_000)
    assert rows(results) == (ROWS, ROWS + 5000)
    assert len(suspects(results)) == 5000
    assert max(len(result.suspects) for result in results) <= 1_000, "opened in pieces"
    assert len(results) > 4


@pytest.mark.parametrize("share", [0.02, 0.3])
async def test_a_sample_is_a_share_of_the_rows_drawn_by_its_seed(pair: Pair, share: float) -> None:
    counts = []
    for seed in range(12):
        results = await pair.results(share=share, seed=seed)
        ours, theirs = rows(results)
        assert ours == theirs > 0
        assert results[-1].resume_at is None
        assert rows(await pair.results(share=share, seed=seed)) == (ours, theirs)
        counts.append(ours)
    assert len(set(counts)) > 1 or share * 64 < 2
    assert share * ROWS / 3 < sum(counts) / len(counts) < share * ROWS * 3
    await pair.target.execute("UPDATE t SET v = v || ' '")
    results = await pair.results(share=share, seed=1)
    assert len(suspects(results)) == rows(results)[0], "what is counted has been compared"


async def test_some_keys_only(pair: Pair) -> None:
    await pair.target.execute("UPDATE t SET v = v || ' ' WHERE n IN (5, 7)")
    keys = [
        row["k"]
        for row in await pair.source.fetch("SELECT jsonb_build_array(id)::text AS k FROM t WHERE n < 7")
    ]
    result = await pair.comparer().among([*keys, "[-1]" if keys[0] == "[1]" else '["nobody"]'])
    assert (result.source_rows, result.target_rows, result.resume_at) == (6, 6, None)
    assert await numbers(pair, list(result.suspects)) == {5}


@pytest.mark.parametrize("share", [1.0, 0.3])
async def test_no_transaction_is_left_behind_and_none_waits_open(pair: Pair, share: float) -> None:
    others = asyncio.all_tasks()
    results = pair.comparer(rows=10).chunks(share=share)
    await anext(results)
    await results.aclose()
    assert asyncio.all_tasks() == others, "nothing goes on that would ask for a connection anew"
    for connection in (pair.source, pair.target):
        left = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )
        assert left == 0


async def test_a_lane_whose_close_is_cancelled_keeps_no_connection(pair: Pair) -> None:
    engine = pair.sides.engines[Side.LEGACY]
    lane = Lane(engine)
    await lane.scan("SELECT 1", ())
    closing = asyncio.ensure_future(lane.close())
    await asyncio.sleep(0)  # it has asked the server to end the transaction
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedout() == 0
    await pair.sides.ask(Side.LEGACY, "SELECT n FROM t LIMIT 1")


async def test_a_row_that_cannot_be_read_costs_its_surroundings_only(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "UNREADABLE_CHUNK_ROWS", 10)
    urls = {Side.LEGACY: databases.legacy_url, Side.NEW: databases.new_url}
    engines = {side: create_side_engine(url, application_name="test") for side, url in urls.items()}
    source, target = [await asyncpg.connect(url) for url in urls.values()]
    for connection, kind in ((source, "text"), (target, "integer")):
        await connection.execute(f"CREATE TABLE t (id integer PRIMARY KEY, v text, n {kind})")
        await connection.execute("INSERT INTO t SELECT n, 'v', n FROM generate_series(1, 1000) AS n")
    await source.execute("UPDATE t SET n = 'no number' WHERE id = 333")
    await target.execute("UPDATE t SET v = 'w' WHERE id = 900")
    table = Table(
        "t", MetaData(), Column("id", Integer, primary_key=True), Column("v", Text), Column("n", Text)
    )
    wanted = entity(Integer())
    projection = Projection(table=wanted.to_new[0].table, key=("id",), query=select(table))
    mapping = EntityMapping(
        name="thing",
        key=wanted.key,
        to_new=(projection,),
        to_legacy=wanted.to_legacy,
        legacy_sources=wanted.legacy_sources,
        new_sources=wanted.new_sources,
    )
    pair = Pair(Sides(engines=engines, direction=Direction.TO_NEW), source, target, mapping)
    results = await pair.results()
    found = suspects(results)
    assert rows(results) == (1000, 1000)
    assert {"[333]", "[900]"} <= set(found)
    assert len(found) <= 31
    assert len(set(found)) == len(found)
    for connection in (source, target):
        await connection.close()
    for engine in engines.values():
        await engine.dispose()
