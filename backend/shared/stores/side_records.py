"""What a side says of itself, and the errors that every kind of side raises."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Connection = Any
"""What a side's own room makes of it: an `AsyncConnection`, or a session of documents."""


class StoreKind(StrEnum):
    """What kind of database a side is."""

    POSTGRES = "postgres"
    MONGO = "mongo"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A side's mark as it was read.

    `captures`: whether changes have to be journalled. `capture_token` is that of capture when the side was opened, `identity` the database and timeline it was then.
    """

    is_open: bool
    captures: bool
    epoch: int
    foreign_writes: str
    capture_change: int
    capture_token: str
    identity: str


@dataclass(frozen=True, kw_only=True)
class OnTheWay:
    """What of a side's changes had not been carried at one moment.

    `entities` are those with open journal rows; of the subject's own entity the rows of other keys are left out. None where
    there were too many to look at. `captured`: the side was open, and its changes were journalled.
    """

    captured: bool
    epoch: int
    entities: frozenset[str] | None

    @property
    def is_unknown(self) -> bool:
        """Whether anything at all may be on its way."""
        return not self.captured or self.entities is None

    def touches(self, entities: frozenset[str]) -> bool:
        """Whether anything of `entities` may be on its way; none named stands for all."""
        if not self.captured or self.entities is None:
            return True
        return bool(self.entities & entities if entities else self.entities)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool of connections: how many it keeps, how many are lent out, how many tasks wait for one."""

    size: int
    in_use: int
    waiting: int


class LockHeldError(Exception):
    """A lock was not to be had in the time given: somebody writes, or changes the phase too. Nothing was changed."""
