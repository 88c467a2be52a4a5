"""How many documents each collection holds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from backend.legacy_documents.errors import DocumentLoadError

_LEAST = {"users": 60, "roles": 5, "labels": 20, "teams": 30, "tasks": 100}


@dataclass(frozen=True, kw_only=True)
class DocumentsSize:
    """Documents per collection, and how many there are of each kind that fits no table.

    Raises `DocumentLoadError` when there is no room for those.
    """

    users: int = 10_000
    roles: int = 20
    labels: int = 200
    teams: int = 1_000
    tasks: int = 40_000
    task_assignments: int = 20_000
    watchlists: int = 3_000
    user_team_details: int = 8_000
    user_roles: int = 2_780
    audit_logs: int = 15_000
    misfits_per_kind: int = 3

    def __post_init__(self) -> None:
        if self.misfits_per_kind < 0:
            raise DocumentLoadError("there cannot be less than no misfit")
        for name, least in _LEAST.items():
            if self.of(name) < least:
                raise DocumentLoadError(f"{name}: at least {least} documents, the others refer to them")

    def of(self, collection: str) -> int:
        """How many documents the collection holds."""
        count: int = getattr(self, collection)
        return count

    @property
    def total(self) -> int:
        """Documents in all collections together."""
        return sum(self.of(collection) for collection in COLLECTIONS)

    @classmethod
    def of_total(cls, total: int, *, misfits_per_kind: int = 3) -> Self:
        """About `total` documents, in the proportions of the default size; small collections may be larger than that."""
        default = cls()
        share = {
            name: max(_LEAST.get(name, 30), default.of(name) * total // default.total) for name in COLLECTIONS
        }
        return cls(**share, misfits_per_kind=misfits_per_kind)


COLLECTIONS = tuple(field.name for field in fields(DocumentsSize) if field.name != "misfits_per_kind")
"""Parents before children."""
