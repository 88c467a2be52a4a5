"""What a conflict is, whatever kind of database keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from backend.shared.domain.phases import Side


class ConflictOperation(StrEnum):
    """What a foreign program did to a row; or what became of a key without one."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    TRUNCATE = "truncate"
    FAILED = "failed"
    STRANDED = "stranded"
    """Both sides have changed it, each on its own: `DUAL_WRITE_AVAILABILITY=any`."""


BY_KEY = frozenset({ConflictOperation.FAILED, ConflictOperation.STRANDED})
"""Of these the rows by table are kept, of both sides."""


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """A foreign write to `side` while it was closed. `before` and `after` are JSON as the side wrote it; None is no row.

    Without both, the row was of a table that the entity only looks up. Of a FAILED or stranded key they are the rows by
    table of the other side, and of this one.
    """

    id: int
    side: Side
    entity: str
    key: str
    operation: ConflictOperation
    source_table: str
    before: str | None
    after: str | None
    written_at: datetime
    written_by: str
    application: str | None
    state: str
    detail: str | None
    kept: Side | None
    settled_by: str | None

    @property
    def identity(self) -> tuple[str, str]:
        """Entity and key."""
        return self.entity, self.key

    @property
    def has_images(self) -> bool:
        """Whether rows were kept."""
        return self.before is not None or self.after is not None


@dataclass(frozen=True, kw_only=True)
class FailedKey:
    """A key that is FAILED on a side that is being closed, with what both sides hold of it: rows by table, as JSON."""

    failure_id: int
    entity: str
    key: str
    source_table: str
    reason: str
    there: Mapping[str, str]
    here: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class OpenFailureKey:
    """A FAILED key, and why."""

    id: int
    entity: str
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SettledConflict:
    """A key that both sides had changed, with the state that was `dropped` on `side` and the other side's: rows by table."""

    side: Side
    entity: str
    key: str
    source_table: str
    kept_rows: Mapping[str, str]
    dropped_rows: Mapping[str, str]
    settled_by: str
    detail: str
