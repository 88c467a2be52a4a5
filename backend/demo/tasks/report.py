"""What the task service's demo came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from backend.demo.run_report import RunReport, closing_frame, closing_rows, judged
from backend.legacy_documents import DocumentLoadReport

from .misfits import Listing


@dataclass(frozen=True, kw_only=True)
class TasksReport(RunReport):
    """Everything that was counted, what was loaded, and which documents fitted no table."""

    load: DocumentLoadReport
    misfits: Listing

    def counted(self) -> dict[str, int]:
        """What should be 0, by what it says when it is not."""
        return {
            **super().counted(),
            "documents that fit no table were not listed": len(self.misfits.unlisted),
            "documents were listed that should fit": len(self.misfits.unexpected),
        }

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `docs/demo-tasks.md` describes the fields that others may rely on."""
        return {
            **super().to_dict(),
            "rows_loaded": self.load.documents_loaded,
            "documents_loaded": self.load.documents_loaded,
            "load": self.load.to_dict(),
            "misfits": self.misfits.to_dict(),
        }


def closing_table(report: TasksReport) -> Table:
    """The figures that matter, on one screen."""
    table = closing_frame()
    load, listing = report.load, report.misfits
    table.add_row(
        "documents loaded",
        f"{load.documents_loaded:,}",
        f"in {len(load.documents)} collections; {sum(load.shapes.values()):,} times something irregular",
    )
    listed = len(listing.expected) - len(listing.unlisted)
    table.add_row(
        "documents that fit no table", f"{len(listing.expected):,}", f"{listed:,} listed, with reasons"
    )
    table.add_row("listed by mistake", judged(len(listing.unexpected)), "they should fit")
    closing_rows(table, report)
    return table


def misfit_table(listing: Listing) -> Table:
    """Why documents fitted no table, all of them listed."""
    table = Table(title="Documents that fit no table", title_justify="left")
    table.add_column("reason")
    for heading in ("made", "listed"):
        table.add_column(heading, justify="right")
    for kind, counts in listing.to_dict()["by_reason"].items():
        table.add_row(kind.replace("_", " "), f"{counts['expected']:,}", f"{counts['listed']:,}")
    return table
