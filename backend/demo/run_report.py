"""What any demo came to: the verdict, the file, the tables. Each demo adds what is its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from backend.shared.domain.phases import Phase
from backend.shared.observability.labels import Verdict
from backend.shared.validation.report import ValidationReport

from .fault_log import Fault
from .ledger import Lost
from .phase_walk import PhaseChange
from .run_command import Judged
from .shop import HttpTally

LOST_LISTED = 100


@dataclass(frozen=True, kw_only=True)
class RunReport(Judged):
    """Everything that was counted. `drained` says whether nothing was on its way when both sides were compared."""

    seed: int
    traffic_seconds: float
    duration_seconds: float
    writes_by_source: Mapping[str, int]
    writes_acknowledged: int
    writes_in_doubt: int
    lost: Sequence[Lost]
    checked_reads: int
    wrong_answer_count: int
    wrong_answers: Sequence[str]
    http: HttpTally
    faults: Sequence[Fault]
    backfill: Mapping[str, Any]
    relay_max_lag_seconds: float
    relay_lag_by_service: Mapping[str, float]
    drained: bool
    drain_seconds: float
    failures_open: int
    validation: ValidationReport
    phase_changes: Sequence[PhaseChange]
    phases: Mapping[str, Phase]
    """The phase that each service ended in."""
    stuck: Mapping[str, str]
    """Why, of those that did not get where they should."""
    gates_forced: Sequence[str]
    legacy_written: Sequence[str]
    """Legacy tables that were written after their service had become `complete`."""
    conflicts_open: int

    @property
    def failed_by_phase_changes(self) -> int:
        """Requests that failed while a phase was being changed."""
        return sum(change.requests_failed for change in self.phase_changes)

    @property
    def writes_lost(self) -> int:
        """Acknowledged writes that at least one side does not show."""
        return len({id(loss.write) for loss in self.lost})

    @property
    def mismatches(self) -> int:
        """Keys that differ between the sides."""
        return int(self.validation.to_dict()["summary"]["mismatches"])

    def counted(self) -> dict[str, int]:
        """What should be 0, by what it says when it is not."""
        return {
            "acknowledged writes were lost": self.writes_lost,
            "keys differ between the sides": self.mismatches,
            "entities could not be compared to the end": sum(
                entity.verdict is Verdict.INCOMPLETE for entity in self.validation.entities
            ),
            "keys could not be carried, and are still FAILED": self.failures_open,
            "conflicts are open: something was written on a closed side": self.conflicts_open,
            "answers contradict what was acknowledged": self.wrong_answer_count,
            "answers were server errors that no fault excuses": self.http.unexcused_count,
            "requests failed while a phase was changed": self.failed_by_phase_changes,
            "gates were forced": len(self.gates_forced),
            "legacy tables were written after their service had let go of legacy": len(self.legacy_written),
        }

    @property
    def complaints(self) -> list[str]:
        """Why this run did not hold, a line each; empty if it did."""
        lines = [f"{count} {what}" for what, count in self.counted().items() if count]
        if not self.backfill["complete"]:
            lines.append("history was not moved to the end")
        if not self.drained:
            lines.append("the journals were not empty in the end")
        lines += [
            f"{service} is {phase.value} in the end, not complete: {self.stuck.get(service, 'nobody took it there')}"
            for service, phase in self.phases.items()
            if phase is not Phase.COMPLETE
        ]
        if not self.writes_acknowledged:
            lines.append("no write was acknowledged, so nothing has been shown")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `docs/demo.md` describes the fields that others may rely on."""
        return {
            "ok": not self.complaints,
            "complaints": self.complaints,
            "writes_acknowledged": self.writes_acknowledged,
            "writes_by_source": dict(self.writes_by_source),
            "writes_in_doubt": self.writes_in_doubt,
            "writes_lost": self.writes_lost,
            "lost": [loss.to_dict() for loss in self.lost[:LOST_LISTED]],
            "mismatches": self.mismatches,
            "failures_open": self.failures_open,
            "conflicts_open": self.conflicts_open,
            "checked_reads": self.checked_reads,
            "wrong_answers": self.wrong_answer_count,
            "wrong_answers_listed": list(self.wrong_answers),
            "http_5xx": self.http.server_error_count,
            "http": self.http.to_dict(),
            "relay_max_lag_seconds": round(self.relay_max_lag_seconds, 3),
            "relay_max_lag_seconds_by_service": {
                service: round(lag, 3) for service, lag in self.relay_lag_by_service.items()
            },
            "drained": self.drained,
            "drain_seconds": round(self.drain_seconds, 3),
            "phase_changes": [change.to_dict() for change in self.phase_changes],
            "phases": {service: phase.value for service, phase in self.phases.items()},
            "gates_forced": list(self.gates_forced),
            "legacy_written_after_complete": list(self.legacy_written),
            "faults": [fault.to_dict() for fault in self.faults],
            "backfill": dict(self.backfill),
            "validation": self.validation.to_dict(),
            "seed": self.seed,
            "traffic_seconds": round(self.traffic_seconds, 3),
            "duration_seconds": round(self.duration_seconds, 3),
        }

    def write(self, path: Path) -> None:
        """Replace `path` with this report in one step."""
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)


def closing_rows(table: Table, report: RunReport) -> None:
    """Add the figures that matter, on one screen."""
    http = report.http
    sources = ", ".join(f"{name} {count:,}" for name, count in report.writes_by_source.items())
    table.add_row("writes acknowledged", f"{report.writes_acknowledged:,}", sources)
    table.add_row("writes lost", judged(report.writes_lost), "held against both sides")
    table.add_row(
        "writes in doubt", f"{report.writes_in_doubt:,}", "nobody was told how they ended; either is right"
    )
    compared = report.validation.to_dict()["summary"]
    table.add_row(
        "mismatches",
        judged(report.mismatches),
        f"{compared['rows_compared']:,} rows of {compared['entities']} entities compared, {compared['equal']} equal",
    )
    table.add_row("open failures", judged(report.failures_open), "keys that could not be carried")
    table.add_row(
        "answers that contradict",
        judged(report.wrong_answer_count),
        f"{report.checked_reads:,} reads checked",
    )
    excused = http.server_error_count - http.unexcused_count
    table.add_row(
        "server errors",
        judged(http.unexcused_count),
        f"besides {excused} times 503 or 504 while a fault was on",
    )
    table.add_row("requests", f"{http.requests:,}", _latencies(http))
    lags = ", ".join(f"{name} {lag:.1f} s" for name, lag in report.relay_lag_by_service.items())
    table.add_row("relay lag at most", f"{report.relay_max_lag_seconds:.1f} s", lags)
    table.add_row(
        "drained after", f"{report.drain_seconds:.1f} s", "" if report.drained else "not to the end"
    )
    moved, killed = report.backfill, report.backfill["killed"]
    table.add_row(
        "history moved", f"{moved['rows_copied']:,}", f"rows, under traffic, in {moved['seconds']:.0f} s"
    )
    if killed:
        table.add_row(
            f"backfill killed at {killed['at']:.0f} s",
            f"{killed['rows_copied']:,}",
            f"of {killed['rows_expected']:,} rows of {killed['service']} copied; "
            f"the next one went on at {killed['rows_copied_when_resumed']:,}",
        )
    for fault in report.faults:
        table.add_row(f"fault at {fault.at:.0f} s", f"{fault.lasted_seconds:.1f} s", fault.detail)
    changes = report.phase_changes
    if changes:
        table.add_row("phase changes", f"{len(changes)}", _stalls(changes))
        table.add_row(
            "failed by them",
            judged(report.failed_by_phase_changes),
            f"of {sum(change.requests for change in changes):,} requests under way meanwhile",
        )
    table.add_row(
        "duration", f"{report.duration_seconds:.0f} s", f"of it {report.traffic_seconds:.0f} s of traffic"
    )


def closing_frame() -> Table:
    """The table that `closing_rows` are added to."""
    table = Table(title="What it came to", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    return table


def phase_table(report: RunReport) -> Table:
    """Every change of a phase: who, from where to where, and what customers and staff noticed."""
    table = Table(title="The way through the phases", title_justify="left")
    for heading in ("at", "service", "step"):
        table.add_column(heading, no_wrap=True)
    for heading in ("no side wrote", "longest request", "failed"):
        table.add_column(heading, justify="right")
    for change in report.phase_changes:
        step = change.step
        table.add_row(
            f"{change.at:.0f} s",
            step.service,
            f"{step.origin.value} → {step.to.value}",
            f"{step.stall_ms:.0f} ms" if step.stall_ms else "-",
            f"{change.longest_request_ms:.0f} ms",
            judged(change.requests_failed),
        )
    return table


def judged(count: int) -> str:
    """A count that should be 0."""
    return "[green]0[/green]" if count == 0 else f"[bold red]{count:,}[/bold red]"


def _stalls(changes: Sequence[PhaseChange]) -> str:
    stalls = [change.step.stall_ms for change in changes if change.step.stall_ms]
    return f"{len(stalls)} moved the authority, and no side took writes for {max(stalls, default=0.0):.0f} ms at most"


def _latencies(http: HttpTally) -> str:
    median, slow = http.quantile_seconds(0.5), http.quantile_seconds(0.99)
    if median is None or slow is None:
        return ""
    return f"median {median * 1000:.0f} ms, 99 % within {slow * 1000:.0f} ms"
