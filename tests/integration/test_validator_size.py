"""Memory is bounded by the chunk, not by the table; each key is asked for a bounded number of times."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from backend.shared import SyncValidator
from backend.shared.observability.labels import Verdict
from backend.shared.validation.report import ValidationReport
from backend.shared.validation.sides import Sides
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager

LEGACY = "INSERT INTO folk (folk_no, mail, nm, cents, born) SELECT n, n || '@x', 'n' || n, n, '2001-02-03' FROM generate_series(1, {}) AS n"
NEW = "INSERT INTO people (id, email, name, credit, born) SELECT n, n || '@x', 'n' || n, n * 0.01, '2001-02-03' FROM generate_series(1, {}) AS n"


async def copied(make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, *, rows: int) -> PeopleManager:
    """People, copied past the relay."""
    manager = await make_manager()
    await legacy_sql(LEGACY.format(rows))
    await legacy_sql("TRUNCATE tandem_people.journal")
    await new_sql(NEW.format(rows))
    await legacy_sql("ANALYZE folk")
    await new_sql("ANALYZE people")
    return manager


async def peak_megabytes(manager: PeopleManager) -> tuple[ValidationReport, float]:
    """The report of a run, and the most that Python held meanwhile."""
    tracemalloc.start()
    report = await SyncValidator(manager.runtime).run(["person"], patience_seconds=0.2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return report, peak / 1e6


@pytest.mark.slow
async def test_one_cent_in_100_000_rows(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await copied(make_manager, legacy_sql, new_sql, rows=100_000)
    await new_sql("UPDATE people SET credit = credit + 0.01 WHERE id = 77777")
    asked: Counter[str] = Counter()

    def counted(ask: Callable[..., Awaitable[list[Any]]]) -> Callable[..., Awaitable[list[Any]]]:
        async def counting(sides: Sides, side: Any, statement: str, *parameters: Any) -> list[Any]:
            rows = await ask(sides, side, statement, *parameters)
            asked["statements"] += 1
            asked["rows"] += len(rows)
            return rows

        return counting

    for name in ("ask", "scan"):
        monkeypatch.setattr(Sides, name, counted(getattr(Sides, name)))
    report, megabytes = await peak_megabytes(manager)
    assert [(m.key, [f.field for f in m.fields]) for m in report.entities[0].mismatches] == [
        ("[77777]", ["people.credit"])
    ]
    assert report.entities[0].rows_new == 100_000
    # By chunk one statement for each table and side; a chunk opened by part and by key; a look; failures.
    assert asked["statements"] <= 11 * 4 + 6 + 2 + 6, asked
    assert asked["rows"] <= 1_500, "one part of one chunk is listed, on both sides"
    assert megabytes < 20


@pytest.mark.slow
async def test_memory_when_everything_differs(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await copied(make_manager, legacy_sql, new_sql, rows=40_000)
    await new_sql("TRUNCATE people CASCADE")
    report, megabytes = await peak_megabytes(manager)
    assert (report.verdict, report.entities[0].missing_in_new) == (Verdict.DIFFERENT, 40_000)
    assert len(report.entities[0].mismatches) == 1000
    assert megabytes < 30
