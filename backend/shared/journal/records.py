"""What a journal says of itself, whatever kind of database keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from backend.shared.domain.phases import Direction


@dataclass(frozen=True, kw_only=True)
class ClaimedKey:
    """All claimed journal rows of one key, folded into one.

    `captured_at` is that of the first change, by which its age is told, `changed_at` that of the last; None: the same.
    """

    entity: str
    key: str
    captured_at: datetime
    attempts: int
    waits: int
    request_id: str | None
    changed_at: datetime | None = None

    @property
    def last_changed_at(self) -> datetime:
        """When the last of its changes was captured."""
        return self.changed_at or self.captured_at


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Some journal rows that this transaction has taken, folded by key."""

    row_count: int
    keys: dict[tuple[str, str], ClaimedKey]


@dataclass(frozen=True, kw_only=True)
class JournalDepth:
    """How much is waiting on a side. `lag_seconds` is the age of the oldest row; `fresh_lag_seconds` that of the oldest
    one that waits for nothing but the relay.
    """

    rows: int
    lag_seconds: float
    failures: int
    fresh_lag_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Remainder:
    """What is left to carry: rows, how many of them wait for something, and for what the last of these."""

    rows: int
    waiting: int = 0
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A key that could not be carried. `reason` holds no value of the row."""

    id: int
    entity: str
    key: str
    direction: Direction
    state: str
    attempts: int
    reason: str
    sqlstate: str | None
    request_id: str | None
    captured_at: datetime
    first_failed_at: datetime
    last_failed_at: datetime


def folded(claimed: Iterable[ClaimedKey]) -> Claim:
    """`claimed`, one for each row, folded by key."""
    keys: dict[tuple[str, str], ClaimedKey] = {}
    count = 0
    for new in claimed:
        count += 1
        old = keys.get((new.entity, new.key))
        keys[new.entity, new.key] = _folded(old, new) if old else new
    return Claim(row_count=count, keys=keys)


def _folded(one: ClaimedKey, other: ClaimedKey) -> ClaimedKey:
    older, newer = (one, other) if one.captured_at <= other.captured_at else (other, one)
    return replace(
        older,
        attempts=max(one.attempts, other.attempts),
        waits=max(one.waits, other.waits),
        request_id=newer.request_id or older.request_id,
        changed_at=max(one.last_changed_at, other.last_changed_at),
    )
