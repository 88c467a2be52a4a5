"""What a comparison of two tables has found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from backend.shared.validation.any_tables.plan import Plan

Fields = Mapping[str, str | None]
"""Values by column, as text; None is NULL."""


class RowKind(StrEnum):
    """How a row differs."""

    ONLY_IN_A = "only_in_a"
    ONLY_IN_B = "only_in_b"
    CHANGED = "changed"


@dataclass(frozen=True, kw_only=True)
class RowDifference:
    """One row: all its fields where it is on one side only, else those that differ."""

    kind: RowKind
    key: Fields
    a: Fields | None
    b: Fields | None

    def to_dict(self) -> dict[str, object]:
        """As one JSON document."""
        return {
            "kind": self.kind.value,
            "key": dict(self.key),
            "a": None if self.a is None else dict(self.a),
            "b": None if self.b is None else dict(self.b),
        }


@dataclass(kw_only=True)
class Counts:
    """Rows, by what has become of them."""

    rows_a: int = 0
    rows_b: int = 0
    only_in_a: int = 0
    only_in_b: int = 0
    changed: int = 0
    by_column: Counter[str] = field(default_factory=Counter)
    """Changed rows by column that differs."""

    def add(self, row: RowDifference) -> None:
        """Count one more row that differs."""
        if row.kind is RowKind.CHANGED:
            self.changed += 1
            self.by_column.update((row.a or {}).keys())
        elif row.kind is RowKind.ONLY_IN_A:
            self.only_in_a += 1
        else:
            self.only_in_b += 1

    @property
    def differing(self) -> int:
        """Rows that differ."""
        return self.only_in_a + self.only_in_b + self.changed

    @property
    def equal(self) -> int:
        """Rows of A that B has just so; about, if the tables are written to meanwhile."""
        return max(0, self.rows_a - self.only_in_a - self.changed)


@dataclass(frozen=True, kw_only=True)
class DiffReport:
    """The outcome. Rows that differ have been told one by one."""

    plan: Plan
    counts: Counts

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs: neither a row nor, unless it was left out, a column."""
        return not self.counts.differing and not self.plan.differences

    def to_dict(self) -> dict[str, object]:
        """As one JSON document."""
        counts = self.counts
        return {
            "equal": self.is_equal,
            "key": list(self.plan.key),
            "columns": list(self.plan.columns),
            "rows_a": counts.rows_a,
            "rows_b": counts.rows_b,
            "only_in_a": counts.only_in_a,
            "only_in_b": counts.only_in_b,
            "changed": counts.changed,
            "rows_equal": counts.equal,
            "changed_by_column": dict(sorted(counts.by_column.items())),
            "schema": [{"column": item.column, "a": item.a, "b": item.b} for item in self.plan.differences],
            "notes": list(self.plan.notes),
        }
