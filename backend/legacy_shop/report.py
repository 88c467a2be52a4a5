"""What a load did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.legacy_shop.errors import LoadError


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Rows per table, and where every line of the source went.

    `dirt` counts what is irregular and was loaded all the same, by kind; one line may count under several kinds.
    `rejected` counts the lines that no table could hold, by reason. Raises `LoadError` when a line is in neither.
    """

    source: str
    seed: int
    rows: Mapping[str, int]
    dirt: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    lines_read: int
    lines_loaded: int
    duration_seconds: float

    def __post_init__(self) -> None:
        if self.lines_read != self.lines_loaded + self.lines_rejected:
            raise LoadError(
                f"{self.source}: {self.lines_read} lines were read, but {self.lines_loaded} loaded and "
                f"{self.lines_rejected} rejected"
            )
        if self.rows.get("cart_lines", 0) != self.lines_loaded:
            raise LoadError(
                f"{self.source}: {self.lines_loaded} lines should be in cart_lines, but "
                f"{self.rows.get('cart_lines', 0)} are"
            )

    @property
    def lines_rejected(self) -> int:
        return sum(self.rejected.values())

    @property
    def rows_loaded(self) -> int:
        """Rows in all tables together."""
        return sum(self.rows.values())

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {
            "source": self.source,
            "seed": self.seed,
            "rows": dict(self.rows),
            "rows_loaded": self.rows_loaded,
            "dirt": dict(self.dirt),
            "rejected": dict(self.rejected),
            "lines_read": self.lines_read,
            "lines_loaded": self.lines_loaded,
            "lines_rejected": self.lines_rejected,
            "duration_seconds": round(self.duration_seconds, 3),
        }
