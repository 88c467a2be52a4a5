"""Results: one line each on the screen, one object each in `benchmarks/results/latest.json`."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

LATEST = Path(__file__).parent / "results" / "latest.json"
_GOALS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure. `ratio` is the figure by that of the peer; `goal` ("ratio >= 0.95", "value <= 0.05") may be missing."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    goal: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        what, sign, limit = self.goal.split()
        measured = self.ratio if what == "ratio" else self.value
        return measured is not None and bool(_GOALS[sign](measured, float(limit)))

    def to_dict(self) -> dict[str, object]:
        """As it stands in the file."""
        fields = asdict(self)
        for name in ("value", "peer_value", "ratio"):
            if fields[name] is not None:
                fields[name] = float(f"{fields[name]:.4g}")
        return fields | {"met": self.met}


def show(console: Console, title: str, results: Sequence[Result]) -> None:
    """Print the table of one benchmark."""
    table = Table(title=title, title_justify="left")
    table.add_column("measured", no_wrap=True)
    for name in ("value", "peer", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("goal", no_wrap=True)
    table.add_column("met")
    for result in results:
        peer = f"{result.peer}: {figure(result.peer_value)}" if result.peer else ""
        table.add_row(
            result.name.partition(".")[2],
            f"{figure(result.value)} {result.unit}",
            peer,
            figure(result.ratio),
            result.goal or "",
            {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[result.met],
        )
    console.print(table)


def figure(value: float | None) -> str:
    """A number with three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write_latest(results: Sequence[Result], *, benchmarks: Sequence[str], path: Path = LATEST) -> None:
    """Put `results` of some benchmarks in place of what the file held of the same; all else stays."""
    kept: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [entry for entry in kept if str(entry["name"]).split(".", maxsplit=1)[0] not in benchmarks]
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".tmp")
    entries = kept + [result.to_dict() for result in results]
    partial.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
