"""What a repair is asked for, and what it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from backend.shared.domain.phases import Side

Identity = tuple[str, str]
"""Name of an entity, and a canonical key of it."""


class RepairOutcome(StrEnum):
    """How a key stands after a repair."""

    REPAIRED = "repaired"
    """It was written, and both sides were seen to hold the same since."""
    EQUAL_ALREADY = "equal already"
    """Both sides held the same when it was looked at; nothing was written."""
    CHANGED_MEANWHILE = "changed meanwhile"
    """Somebody wrote it after it was looked at: that write stands, and nothing was written."""
    MOVING = "moving"
    """A change of it is on its way. `detail` says whether the repair has written before that was seen."""
    REFUSED = "refused"
    """It could not be made equal; `detail` says why."""
    PLANNED = "planned"
    """A dry run: it differs, and this is what would be done."""


@dataclass(frozen=True, kw_only=True)
class RepairRequest:
    """Which keys to repair, from where, who asks and why.

    Without `keys`, those that the last validation kept as open mismatches. `keys` are canonical JSON or, where a key is one
    column, bare values; they belong to `entity`, which may be left out if the service has one only. `source` None is the
    authoritative side.
    """

    by: str
    reason: str = "repair"
    entity: str | None = None
    keys: Sequence[str] = ()
    source: Side | None = None
    dry_run: bool = False
    show_values: bool = False
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """One field that differs on the side that is written: `before` and `after` as SQL literals, None where not shown."""

    field: str
    before: str | None = None
    after: str | None = None

    @property
    def shown(self) -> bool:
        """Whether values may be told."""
        return self.before is not None or self.after is not None


@dataclass(frozen=True, kw_only=True)
class KeyRepair:
    """What became of one key. `sql` is there in a dry run only."""

    entity: str
    key: str
    outcome: RepairOutcome
    fields: tuple[FieldChange, ...] = ()
    sql: tuple[str, ...] = ()
    detail: str = ""
    waits: bool = False
    """Refused because of another row that may yet be repaired: worth another try when that is done."""

    @property
    def identity(self) -> Identity:
        """Entity and key."""
        return self.entity, self.key

    def to_dict(self) -> dict[str, Any]:
        """One JSON document."""
        changes = {
            item.field: {"before": item.before, "after": item.after} if item.shown else {}
            for item in self.fields
        }
        found: dict[str, Any] = {
            "entity": self.entity,
            "key": self.key,
            "outcome": self.outcome.value,
            "fields": changes,
        }
        if self.sql:
            found["sql"] = list(self.sql)
        return found | ({"detail": self.detail} if self.detail else {})


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """How many keys came out how; the keys themselves were handed over one by one."""

    service: str
    source: Side
    target: Side
    dry_run: bool
    counts: Mapping[RepairOutcome, int] = field(default_factory=Counter)
    interrupted: bool = False
    note: str = ""
    """What a reader has to know beside the counts."""
    more: bool = False
    """Whether keys are known to differ that were not kept, and so could not be repaired."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left: all is equal or, in a dry run, all could be planned."""
        good = {RepairOutcome.REPAIRED, RepairOutcome.EQUAL_ALREADY, RepairOutcome.PLANNED}
        return not (self.interrupted or self.more) and all(
            outcome in good for outcome, n in self.counts.items() if n
        )

    def to_dict(self) -> dict[str, Any]:
        """One JSON document."""
        return {
            "service": self.service,
            "from": self.source.value,
            "to": self.target.value,
            "dry_run": self.dry_run,
            "complete": self.complete,
            "interrupted": self.interrupted,
            "counts": {outcome.value: self.counts.get(outcome, 0) for outcome in RepairOutcome},
        } | ({"note": self.note} if self.note else {})
