"""What the engine asks of a side's database, whatever kind it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import total_ordering
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.mapping import EntityMapping, Key
from backend.shared.domain.phases import Direction


@total_ordering
@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a snapshot stands in the source's history; a later snapshot that sees more is greater.

    On PostgreSQL `major` is the snapshot's xmax and `minor` minus the number of transactions in progress below it.
    """

    major: int
    minor: int

    def __lt__(self, other: Position) -> bool:
        return (self.major, self.minor) < (other.major, other.minor)


@dataclass(frozen=True, kw_only=True)
class StateBatch:
    """The state of some keys of one entity, read by one statement, in the shape of the target.

    `rows` holds one JSON array of rows per projection, as text that Python does not parse; `present` the keys that
    each projection has a row for.
    """

    entity: EntityMapping
    direction: Direction
    keys: tuple[str, ...]
    position: Position
    rows: tuple[str, ...]
    present: tuple[frozenset[str], ...]

    def same_rows(self, other: StateBatch) -> bool:
        """Whether both hold the same rows, whatever their positions."""
        return self.rows == other.rows and self.present == other.present


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What one apply did: the keys whose guard moved, and those where something newer was there already."""

    moved: frozenset[str]
    skipped: frozenset[str]


class OutdatedReadError(Exception):
    """A backfill has copied newer state since this state was read: read it again. Nothing was written."""


class UnfitKeysError(Exception):
    """The state of these keys cannot be said in the target's shape: `reasons` by canonical key, without values.

    That of the others that were asked for can. `position`: of the snapshot that has seen them.
    """

    def __init__(self, reasons: Mapping[str, str], *, position: Position) -> None:
        super().__init__(next(iter(reasons.values()), ""))
        self.reasons = dict(reasons)
        self.position = position


class Trouble(StrEnum):
    """Why a database said no."""

    REFUSED = "refused"
    """This row's data does not fit. Trying again without a change will not help."""
    CLASH = "clash"
    """A unique value is held by another key, which may be on its way to give it up."""
    MISSING_PARENT = "missing_parent"
    """A foreign key asks for a row that has not come yet."""
    UNAVAILABLE = "unavailable"
    """Lost connection, timeout, deadlock, full disk, missing permission, missing table: nothing to do with this row."""


class StateStore(Protocol):
    """Reads and writes the state of entities on one side; the caller owns the connection and its transaction."""

    async def read_state(
        self, connection: AsyncConnection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """State and position of `keys`, in one statement."""
        ...

    async def apply(
        self, connection: AsyncConnection, batches: Sequence[StateBatch], *, epoch: int
    ) -> dict[str, Applied]:
        """Write `batches` (by entity) where their guards move forward. One call is one transaction's work."""
        ...


def json_ready(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with everything that JSON lacks turned into the text that a database reads it from."""
    return {name: _json_value(value) for name, value in values.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _json_value(item) for name, item in value.items()}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


__all__ = [
    "Applied",
    "Key",
    "OutdatedReadError",
    "Position",
    "StateBatch",
    "StateStore",
    "Trouble",
    "UnfitKeysError",
    "json_ready",
]
