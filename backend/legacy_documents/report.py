"""What a load did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.legacy_documents.misfits import Misfit, MisfitKind


@dataclass(frozen=True, kw_only=True)
class DocumentLoadReport:
    """Documents per collection, what is irregular in them by kind, and those that no table can hold.

    `left_out` names the kinds of misfits that the server itself refuses, of which there are none.
    """

    seed: int
    documents: Mapping[str, int]
    shapes: Mapping[str, int]
    misfits: tuple[Misfit, ...]
    left_out: frozenset[MisfitKind]
    duration_seconds: float

    @property
    def documents_loaded(self) -> int:
        """Documents in all collections together."""
        return sum(self.documents.values())

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {
            "seed": self.seed,
            "documents": dict(self.documents),
            "documents_loaded": self.documents_loaded,
            "shapes": dict(self.shapes),
            "misfits": [misfit.to_dict() for misfit in self.misfits],
            "left_out": sorted(kind.value for kind in self.left_out),
            "duration_seconds": round(self.duration_seconds, 3),
        }
