"""Runs a comparison of two tables in the way that a test of it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from backend.shared.testing.clusters import Databases
from backend.shared.validation.any_tables.compare import DiffRequest, diff_tables
from backend.shared.validation.any_tables.plan import Choice
from backend.shared.validation.any_tables.results import DiffReport, RowDifference

Seen = tuple[str, tuple[str | None, ...], tuple[str, ...]]
"""How a row differs, its key, and the columns that differ (of a row on one side only: none)."""


@dataclass(frozen=True)
class Diff:
    """What one comparison has said."""

    report: DiffReport
    rows: list[RowDifference]

    @property
    def seen(self) -> list[Seen]:
        """The rows, sorted."""
        return sorted(
            (
                (
                    row.kind.value,
                    tuple(row.key.values()),
                    tuple(sorted(row.a or ())) if row.kind.value == "changed" else (),
                )
                for row in self.rows
            ),
            key=repr,
        )


@dataclass(frozen=True)
class TwoTables:
    """Two databases with connections to them."""

    databases: Databases
    a: asyncpg.Connection
    b: asyncpg.Connection

    async def both(self, statement: str) -> None:
        """Run `statement` in both."""
        await self.a.execute(statement)
        await self.b.execute(statement)

    async def diff(
        self,
        a: str = "t",
        b: str = "t",
        *,
        again_seconds: float | None = None,
        **choice: Any,
    ) -> Diff:
        """Compare table `a` of A with table `b` of B."""
        rows: list[RowDifference] = []

        def tell(row: RowDifference) -> None:
            rows.append(row)

        request = DiffRequest(
            dsn_a=self.databases.legacy_url,
            table_a=a,
            dsn_b=self.databases.new_url,
            table_b=b,
            choice=Choice(**choice),
            again_seconds=again_seconds,
        )
        return Diff(await diff_tables(request, tell=tell), rows)
