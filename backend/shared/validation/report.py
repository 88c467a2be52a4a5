"""What the validator answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backend.shared.observability.labels import Verdict


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
class EntityReport:
    """One entity compared. Rows are those of the entity's root table; `moving` counts keys that would not settle.

    `different` counts all that are on both sides and not the same, FAILED and unreadable ones among them.
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

    @property
    def mismatch_count(self) -> int:
        """Keys that differ, listed or not."""
        return self.missing_in_new + self.missing_in_legacy + self.different

    @property
    def verdict(self) -> Verdict:
        """Different if anything differs; unfinished is never equal."""
        if self.mismatch_count:
            return Verdict.DIFFERENT
        return Verdict.INCOMPLETE if self.moving else Verdict.EQUAL

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
            "verdict": self.verdict.value,
            "duration_seconds": round(self.duration_seconds, 3),
            **found,
        }


def _mismatch_dict(mismatch: Mismatch) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for item in mismatch.fields:
        shown = item.legacy is not None or item.new is not None
        fields[item.field] = {"legacy": item.legacy, "new": item.new} if shown else {}
    return {"key": mismatch.key, "kind": mismatch.kind.value, "fields": fields}


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """All entities that were asked for."""

    entities: tuple[EntityReport, ...]
    notes: tuple[str, ...] = ()
    """What a reader has to know to read this rightly."""

    @property
    def verdict(self) -> Verdict:
        """The worst of all: different before incomplete before equal. Nothing compared is incomplete."""
        verdicts = {report.verdict for report in self.entities}
        if Verdict.DIFFERENT in verdicts:
            return Verdict.DIFFERENT
        return Verdict.EQUAL if verdicts == {Verdict.EQUAL} else Verdict.INCOMPLETE

    def to_dict(self, *, mismatches: bool = False) -> dict[str, Any]:
        """`summary` and `entities`; with `mismatches`, the keys and fields that differ are listed by entity."""
        counts = {verdict: sum(r.verdict is verdict for r in self.entities) for verdict in Verdict}
        return {
            "summary": {
                "entities": len(self.entities),
                "equal": counts[Verdict.EQUAL],
                "different": counts[Verdict.DIFFERENT],
                "incomplete": counts[Verdict.INCOMPLETE],
                "rows_compared": sum(max(r.rows_legacy, r.rows_new) for r in self.entities),
                "mismatches": sum(r.mismatch_count for r in self.entities),
            },
            "entities": [report.to_dict(mismatches=mismatches) for report in self.entities],
        }
