"""What a run of orders showed, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from backend.demo.fault_log import Fault
from backend.demo.phase_walk import PhaseChange
from backend.demo.run_command import Judged
from backend.demo.shop import HttpTally

from .audit import Findings
from .buyers import Bought, Kind


@dataclass(frozen=True, kw_only=True)
class OrdersReport(Judged):
    """One run."""

    seed: int
    style: str
    asked_for: int
    bought: Bought
    http: HttpTally
    findings: Findings
    faults: Sequence[Fault]
    phase_changes: Sequence[PhaseChange]
    stuck: Mapping[str, str]
    differing: Sequence[str]
    """Services whose sides differ in the end."""
    placing_seconds: float
    settling_seconds: float
    duration_seconds: float

    @property
    def final_states(self) -> dict[str, int]:
        """How many sagas ended how."""
        counted: Counter[str] = Counter()
        for way, count in self.findings.ways.items():
            counted[way.state] += count
        return dict(sorted(counted.items()))

    @property
    def complaints(self) -> list[str]:
        """Why this run did not hold, a line each; empty if it did."""
        lines = list(self.findings.broken)
        placed = len(self.bought.orders)
        if placed != self.asked_for:
            lines.append(f"{self.asked_for} orders were asked for, {placed} were placed")
        lines += [f"could not order: {line}" for line in self.bought.refused[:5]]
        if self.findings.unfinished:
            lines.append(
                f"{len(self.findings.unfinished)} sagas are not over: {self.findings.unfinished[:20]}"
            )
        lines += [f"{service}: {reason}" for service, reason in self.stuck.items()]
        lines += [f"the sides of {service} differ" for service in self.differing]
        failed = sum(change.requests_failed for change in self.phase_changes)
        if failed:
            lines.append(f"{failed} requests failed while a phase was changed")
        if self.http.unexcused_count:
            lines.append(
                f"{self.http.unexcused_count} server errors without a fault: {dict(self.http.server_errors)}"
            )
        if not any(way.kind is Kind.GOOD and way.state == "completed" for way in self.findings.ways):
            lines.append("no order was confirmed, so nothing has been shown")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `docs/demo-orders.md` describes the fields that others may rely on."""
        return {
            "ok": not self.complaints,
            "complaints": self.complaints,
            "style": self.style,
            "orders": len(self.bought.orders),
            "final_states": self.final_states,
            "ways": [
                {"kind": way.kind.value, "state": way.state, "because": way.because, "orders": count}
                for way, count in sorted(self.findings.ways.items())
            ],
            "unfinished_sagas": len(self.findings.unfinished),
            "invariants_broken": len(self.findings.broken),
            "broken": list(self.findings.broken),
            "http": self.http.to_dict(),
            "orders_asked_for_again": self.bought.repeated,
            "confirmation_seconds": {
                "median": round(self.findings.median_seconds, 3),
                "longest": round(self.findings.longest_seconds, 3),
            },
            "faults": [fault.to_dict() for fault in self.faults],
            "phase_changes": [change.to_dict() for change in self.phase_changes],
            "placing_seconds": round(self.placing_seconds, 2),
            "settling_seconds": round(self.settling_seconds, 2),
            "duration_seconds": round(self.duration_seconds, 2),
            "seed": self.seed,
        }

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")


def ways_table(report: OrdersReport) -> Table:
    """How many took which way."""
    table = Table("orders", "asked for", "ended", "because of", title="What became of the orders")
    for way, count in sorted(report.findings.ways.items()):
        table.add_row(f"{count:,}", way.kind.value, way.state, way.because)
    return table


def figures_table(report: OrdersReport) -> Table:
    """The rest."""
    table = Table("", "", title=f"{len(report.bought.orders):,} orders, {report.style}", show_header=False)
    findings = report.findings
    table.add_row("sagas that are not over", str(len(findings.unfinished)))
    table.add_row("invariants that do not hold", str(len(findings.broken)))
    table.add_row("faults", str(len(report.faults)))
    table.add_row("orders asked for again, under their key", str(report.bought.repeated))
    table.add_row(
        "from the order to its confirmation",
        f"median {findings.median_seconds:.2f} s, longest {findings.longest_seconds:.2f} s",
    )
    for change in report.phase_changes:
        step = change.step
        table.add_row(
            f"{step.service}: {step.origin.value} → {step.to.value}",
            f"{change.requests_failed} of {change.requests} requests failed, no side took writes for {step.stall_ms:.0f} ms",
        )
    table.add_row(
        "orders a second, while they were placed", f"{report.asked_for / report.placing_seconds:.1f}"
    )
    return table
