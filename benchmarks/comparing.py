"""Comparing two tables: ours, reladiff's, and the bare hash query that nobody can do without."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import warnings
from statistics import median

import asyncpg
from rich.console import Console

from backend.shared.testing.programs import REPOSITORY
from backend.shared.validation.any_tables.compare import DiffRequest, diff_tables
from backend.shared.validation.any_tables.results import RowDifference
from benchmarks.report import Result
from benchmarks.stack import Stack, run_sql

ROWS = 1_000_000
MORE_ROWS = 5_000_000
ROUNDS = 5
PEER_ROUNDS = 2
TABLE = "compared"
BARE = f"SELECT count(*), sum(hash_record_extended(t.*, 0)) FROM {TABLE} AS t"
_DDL = (
    f"CREATE TABLE {TABLE} (id integer PRIMARY KEY, label text, price numeric(12,2), made_at timestamptz, "
    "quantity integer, active boolean, note text)"
)
_ROWS = (
    f"INSERT INTO {TABLE} SELECT n, 'item ' || n, n * 0.01, "
    "'2024-01-01 00:00:00+00'::timestamptz + n * interval '1.000001 second', n % 1000, n % 3 = 0, "
    "CASE WHEN n % 10 > 0 THEN md5(n::text) END FROM generate_series({0}, {1}) AS n"
)
_DAMAGE = (
    f"UPDATE {TABLE} SET price = price + 0.01 WHERE id = 77777",
    f"UPDATE {TABLE} SET note = note || ' ' WHERE id = 123456",
    f"UPDATE {TABLE} SET made_at = made_at + interval '1 microsecond' WHERE id = 500001",
    f"DELETE FROM {TABLE} WHERE id = 900000",
    f"INSERT INTO {TABLE} VALUES (-1, 'extra')",
)
PLANTED = {"77777", "123456", "500001", "900000", "-1"}
_COLUMNS = ("label", "price", "made_at", "quantity", "active", "note")
_IN_A_PROCESS = """
import asyncio, resource, sys
from backend.shared.validation.any_tables.compare import DiffRequest, diff_tables
seen = []
request = DiffRequest(dsn_a=sys.argv[1], table_a=sys.argv[3], dsn_b=sys.argv[2], table_b=sys.argv[3])
report = asyncio.run(diff_tables(request, tell=seen.append))
assert len(seen) == 5, seen
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, report.counts.rows_a + report.counts.rows_b)
"""


async def measure_comparing(stack: Stack, console: Console) -> list[Result]:
    """Seconds for 1,000,000 rows of 7 columns with 5 differences; memory of a process at 1 and 5 million rows."""
    await _fill(stack, 1, ROWS)
    await asyncio.gather(*(run_sql(url, *_DAMAGE) for url in (stack.new_url,)))
    await _vacuum(stack)
    ours, bare, theirs = [], [], []
    for number in range(ROUNDS):
        bare.append(await _bare(stack))
        ours.append(await _ours(stack))
        if number < PEER_ROUNDS:
            theirs.append(await asyncio.to_thread(_reladiff, stack))
        console.print(f"  round {number + 1} of {ROUNDS}: {ours[-1]:.2f} s", style="dim")
    memory, rows = await _in_a_process(stack)
    results = [
        _ratio("compare.seconds_by_reladiff", theirs, ours, peer="tandem diff", goal="ratio >= 5.0"),
        _ratio("compare.seconds", ours, bare, peer="bare hash", goal="ratio <= 1.5"),
        Result(name="compare.rows_hashed", value=rows, unit="rows"),
        Result(name="compare.memory_at_1_million", value=memory, unit="MB", goal="value <= 200"),
    ]
    console.print(f"  {MORE_ROWS:,} rows, for the memory", style="dim")
    await _fill(stack, ROWS + 1, MORE_ROWS)
    memory, _ = await _in_a_process(stack)
    await asyncio.gather(*(run_sql(url, f"DROP TABLE {TABLE}") for url in (stack.legacy_url, stack.new_url)))
    return [
        *results,
        Result(name="compare.memory_at_5_million", value=memory, unit="MB", goal="value <= 200"),
    ]


def _ratio(name: str, value: list[float], peer_value: list[float], *, peer: str, goal: str) -> Result:
    return Result(
        name=name,
        value=median(value),
        unit="s",
        peer=peer,
        peer_value=median(peer_value),
        ratio=median(value) / median(peer_value),
        goal=goal,
    )


async def _fill(stack: Stack, first: int, last: int) -> None:
    statements = [_ROWS.format(first, last)]
    if first == 1:
        statements.insert(0, _DDL)
    await asyncio.gather(
        *(
            run_sql(url, *statements, settings={"synchronous_commit": "off"})
            for url in (stack.legacy_url, stack.new_url)
        )
    )


async def _vacuum(stack: Stack) -> None:
    await asyncio.gather(
        *(
            run_sql(url, f"VACUUM (FREEZE, ANALYZE) {TABLE}", "CHECKPOINT")
            for url in (stack.legacy_url, stack.new_url)
        )
    )


async def _bare(stack: Stack) -> float:
    """Both databases at once, each in one process, as ours has them."""
    settings = {"jit": "off", "max_parallel_workers_per_gather": "0"}
    connections = [
        await asyncpg.connect(url, server_settings=settings) for url in (stack.legacy_url, stack.new_url)
    ]
    try:
        started = time.perf_counter()
        await asyncio.gather(*(connection.fetch(BARE) for connection in connections))
        return time.perf_counter() - started
    finally:
        for connection in connections:
            await connection.close()


async def _ours(stack: Stack) -> float:
    seen: list[RowDifference] = []
    request = DiffRequest(dsn_a=stack.legacy_url, table_a=TABLE, dsn_b=stack.new_url, table_b=TABLE)
    started = time.perf_counter()
    await diff_tables(request, tell=seen.append)
    elapsed = time.perf_counter() - started
    _must_be_planted({str(row.key["id"]) for row in seen})
    return elapsed


def _reladiff(stack: Stack) -> float:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import reladiff  # noqa: PLC0415 - of the extra `bench`, which the other benchmarks do without
    except ImportError:
        raise RuntimeError("reladiff is missing: pip install -e '.[bench]'") from None
    logging.getLogger("reladiff").setLevel(logging.ERROR)
    started = time.perf_counter()
    a, b = (
        reladiff.connect_to_table(url, TABLE, "id", extra_columns=_COLUMNS)
        for url in (stack.legacy_url, stack.new_url)
    )
    seen = {str(row[0]) for _, row in reladiff.diff_tables(a, b)}
    elapsed = time.perf_counter() - started
    a.database.close()
    b.database.close()
    _must_be_planted(seen)
    return elapsed


def _must_be_planted(keys: set[str]) -> None:
    if keys != PLANTED:
        raise RuntimeError(f"not the planted differences: {sorted(keys)}")


async def _in_a_process(stack: Stack) -> tuple[float, int]:
    """Peak memory (MB) of a process that compares and does nothing else, and the rows that it had hashed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _IN_A_PROCESS,
        stack.legacy_url,
        stack.new_url,
        TABLE,
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the comparing process has failed")
    megabytes, rows = out.split()
    return float(megabytes), int(rows)
