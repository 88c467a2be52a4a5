"""What the validator answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backend.shared.observability.labels import RunKind, Verdict


class MismatchKind(StrEnum):
    """How a key differs."""

    MISSING_IN_NEW = "missing_in_new"
    MISSING_IN_LEGACY = "missing_in_legacy"
    DIFFERENT = "different"
    FAILED = "failed"
    """It could not be carried, and nobody has decided yet."""
    UNREADABLE = "unreadable"
    """The source's row cannot be read in the types of the target, so the target cannot hold the same."""


@dataclass(frozen=True, kw_only=True)
class FieldMismatch:
    """A field that differs, in the shape of the target; values only if asked for, and never of a secret field."""

    field: str
    legacy: str | None = None
    new: str | None = None


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A key that truly differs: seen, rechecked, and only then reported."""

    key: str
    kind: MismatchKind
    fields: tuple[FieldMismatch, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MismatchChanges:
    """What a run found in comparison with those before it, among the mismatches that are kept."""

    new: int = 0
    still: int = 0
    gone: int = 0


@dataclass(frozen=True, kw_only=True)
class EntityReport:
    """One entity compared. Rows are those of the entity's root table; `moving` counts keys that would not settle.

    `different` counts all that are on both sides and not the same, FAILED and unreadable ones among them. `scope` says what
    was looked at: all keys, a sample of `share`, or the keys changed since the full run `since_run`. `rows_expected` is the
    database's own estimate, None where nobody asked for it.
    """

    service: str
    entity: str
    rows_legacy: int
    rows_new: int
    missing_in_new: int
    missing_in_legacy: int
    different: int
    moving: int
    duration_seconds: float
    mismatches: tuple[Mismatch, ...]
    """The first ones, up to a limit; the counts are complete."""
    scope: RunKind = RunKind.FULL
    share: float = 1.0
    since_run: int | None = None
    keys_changed: int = 0
    rows_expected: int | None = None
    changes: MismatchChanges = MismatchChanges()
    run_id: int | None = None

    @property
    def mismatch_count(self) -> int:
        """Keys that differ, listed or not."""
        return self.missing_in_new + self.missing_in_legacy + self.different

    @property
    def rows(self) -> int:
        """Rows compared, on the side that has more."""
        return max(self.rows_legacy, self.rows_new)

    @property
    def verdict(self) -> Verdict:
        """Different if anything differs; unfinished is never equal."""
        if self.mismatch_count:
            return Verdict.DIFFERENT
        return Verdict.INCOMPLETE if self.moving else Verdict.EQUAL

    @property
    def verdict_text(self) -> str:
        """The verdict, with what it rests upon where that is not everything."""
        if self.scope is RunKind.SAMPLE:
            return f"{self.verdict.value} {_sampled([self])}"
        if self.scope is RunKind.CHANGED:
            return (
                f"{self.verdict.value} in the {self.keys_changed:,} keys changed since run {self.since_run}"
            )
        return self.verdict.value

    def to_dict(self, *, mismatches: bool = False) -> dict[str, Any]:
        """The counts and the verdict; with `mismatches`, the keys and fields that differ too."""
        found = (
            {"mismatches": [_mismatch_dict(mismatch) for mismatch in self.mismatches]} if mismatches else {}
        )
        return {
            "service": self.service,
            "entity": self.entity,
            "rows_legacy": self.rows_legacy,
            "rows_new": self.rows_new,
            "missing_in_new": self.missing_in_new,
            "missing_in_legacy": self.missing_in_legacy,
            "different": self.different,
            "moving": self.moving,
            "verdict": self.verdict.value,
            "verdict_text": self.verdict_text,
            "scope": self.scope.value,
            "share": self.share,
            "run": self.run_id,
            "since_run": self.since_run,
            "mismatches_new": self.changes.new,
            "mismatches_still": self.changes.still,
            "mismatches_gone": self.changes.gone,
            "duration_seconds": round(self.duration_seconds, 3),
            **found,
        }


def _sampled(reports: Sequence[EntityReport]) -> str:
    """How much of all was looked at; the databases' estimate of all is never below what was seen."""
    rows, estimates = sum(report.rows for report in reports), [report.rows_expected for report in reports]
    about = f" of about {max(rows, sum(n or 0 for n in estimates)):,}" if None not in estimates else ""
    return f"in a sample of {reports[0].share * 100:g} %: {rows:,}{about} rows"


def _mismatch_dict(mismatch: Mismatch) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for item in mismatch.fields:
        shown = item.legacy is not None or item.new is not None
        fields[item.field] = {"legacy": item.legacy, "new": item.new} if shown else {}
    return {"key": mismatch.key, "kind": mismatch.kind.value, "fields": fields}


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """All entities that were asked for. `run_id` is the run's number among those kept, None for several services at once."""

    entities: tuple[EntityReport, ...]
    notes: tuple[str, ...] = ()
    """What a reader has to know to read this rightly."""
    run_id: int | None = None
    kind: RunKind = RunKind.FULL
    share: float = 1.0
    resumed: bool = False

    @property
    def verdict(self) -> Verdict:
        """The worst of all: different before incomplete before equal. Nothing compared is incomplete."""
        verdicts = {report.verdict for report in self.entities}
        if Verdict.DIFFERENT in verdicts:
            return Verdict.DIFFERENT
        return Verdict.EQUAL if verdicts == {Verdict.EQUAL} else Verdict.INCOMPLETE

    @property
    def verdict_text(self) -> str:
        """The verdict, with what it rests upon where that is not everything."""
        sampled = [report for report in self.entities if report.scope is RunKind.SAMPLE]
        changed = [report for report in self.entities if report.scope is RunKind.CHANGED]
        if sampled:
            return f"{self.verdict.value} {_sampled(sampled)}"
        if changed:
            keys = sum(report.keys_changed for report in changed)
            rest = (
                f", and in all keys of {len(self.entities) - len(changed)} more"
                if len(changed) < len(self.entities)
                else ""
            )
            return f"{self.verdict.value} in the {keys:,} keys changed since the last full run{rest}"
        return self.verdict.value

    @property
    def changes(self) -> MismatchChanges:
        """What was found in comparison with earlier runs, of all entities."""
        found = [report.changes for report in self.entities]
        return MismatchChanges(
            new=sum(item.new for item in found),
            still=sum(item.still for item in found),
            gone=sum(item.gone for item in found),
        )

    def to_dict(self, *, mismatches: bool = False) -> dict[str, Any]:
        """`summary`, `run` and `entities`; with `mismatches`, the keys and fields that differ are listed by entity."""
        counts = {verdict: sum(r.verdict is verdict for r in self.entities) for verdict in Verdict}
        return {
            "summary": {
                "entities": len(self.entities),
                "equal": counts[Verdict.EQUAL],
                "different": counts[Verdict.DIFFERENT],
                "incomplete": counts[Verdict.INCOMPLETE],
                "rows_compared": sum(r.rows for r in self.entities),
                "mismatches": sum(r.mismatch_count for r in self.entities),
            },
            "verdict": self.verdict.value,
            "verdict_text": self.verdict_text,
            "run": {
                "id": self.run_id,
                "kind": self.kind.value,
                "share": self.share,
                "resumed": self.resumed,
                "notes": list(self.notes),
            },
            "entities": [report.to_dict(mismatches=mismatches) for report in self.entities],
        }
