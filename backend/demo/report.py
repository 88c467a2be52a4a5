"""What the shop's demo came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from backend.legacy_shop.report import LoadReport

from .run_report import RunReport, closing_frame, closing_rows


@dataclass(frozen=True, kw_only=True)
class DemoReport(RunReport):
    """Everything that was counted, and what was loaded."""

    load: LoadReport
    old_program: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `docs/demo.md` describes the fields that others may rely on."""
        return {
            **super().to_dict(),
            "rows_loaded": self.load.rows_loaded,
            "load": self.load.to_dict(),
            "old_program": dict(self.old_program),
        }


def closing_table(report: DemoReport) -> Table:
    """The figures that matter, on one screen."""
    table = closing_frame()
    load = report.load
    table.add_row(
        "rows loaded",
        f"{load.rows_loaded:,}",
        f"{load.lines_loaded:,} of {load.lines_read:,} cart lines, {load.lines_rejected:,} rejected",
    )
    closing_rows(table, report)
    return table


def dirt_table(load: LoadReport) -> Table:
    """What was irregular in the data, and where lines went that no table could hold."""
    table = Table(title="Dirt in the data, all of it loaded", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    for kind, count in load.dirt.items():
        if count:
            table.add_row(kind.replace("_", " "), f"{count:,}")
    for reason, count in load.rejected.items():
        if count:
            table.add_row(f"[red]rejected: {reason.replace('_', ' ')}[/red]", f"{count:,}")
    return table
