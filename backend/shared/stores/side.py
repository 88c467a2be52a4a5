"""One side of a service, whatever kind of database it is: what journal, relay, guard, fence, cutover and backfill ask of it.

A side hands out connections; every method that takes one works in the transaction of that connection, and nobody but the
side's own room knows what a connection is. The contract that each kind keeps is held by tests/contract/test_sides.py.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Phase, Side
from backend.shared.stores.side_journal import (
    CaptureGap,
    ChangeStream,
    Conflicts,
    Failures,
    Journal,
    Marks,
    Stranded,
)
from backend.shared.stores.side_records import Connection, LockHeldError, Mark, OnTheWay, Pool, StoreKind
from backend.shared.stores.side_state import State

if TYPE_CHECKING:
    from backend.shared.stores.postgres.sync_columns import SyncColumns


class SideStore(Protocol):
    """One side of one service."""

    @property
    def side(self) -> Side:
        """Which side it is."""
        ...

    @property
    def kind(self) -> StoreKind:
        """What kind of database it is."""
        ...

    @property
    def journal(self) -> Journal:
        """Keys changed here and not carried over yet."""
        ...

    @property
    def failures(self) -> Failures:
        """Keys of this side that could not be carried."""
        ...

    @property
    def marks(self) -> Marks:
        """Mark and fence."""
        ...

    @property
    def state(self) -> State:
        """The state of entities."""
        ...

    @property
    def conflicts(self) -> Conflicts:
        """What this side keeps for somebody to decide."""
        ...

    @property
    def stranded(self) -> Stranded:
        """Keys that were written here alone."""
        ...

    @property
    def sync_columns(self) -> SyncColumns | None:
        """Columns by which rows here say how they stand to their documents, if there are any."""
        ...

    @property
    def change_stream(self) -> ChangeStream | None:
        """What captures other programs' writes here, where a process has to."""
        ...

    @property
    def engine_room(self) -> str:
        """What Tandem keeps here, in words: the last thing to be deleted."""
        ...

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """A connection whose transaction is rolled back at the end unless `connection.commit()` was awaited."""
        ...

    def begin(self) -> AbstractAsyncContextManager[Connection]:
        """A connection whose transaction is committed at the end, and rolled back if the body raises."""
        ...

    def reading(self) -> AbstractAsyncContextManager[Connection]:
        """A connection on which each reading stands by itself."""
        ...

    async def ping(self) -> None:
        """Raise what the database does when it does not answer."""
        ...

    def pool(self) -> Pool | None:
        """The pool as it is now; None where there is nothing to tell."""
        ...

    async def connection_share(self) -> float:
        """The share (0 to 1) of the server's connections that is in use; 0 where it does not tell."""
        ...

    async def on_the_way(
        self, *, entity: str | None, key: str | None, with_failures: bool, most: int
    ) -> OnTheWay:
        """What of this side's changes is not carried yet, seen at one moment; of `entity` only `key`, if that is given.

        `with_failures` also names what could not be carried. More than `most` rows are too many to look at.
        """
        ...

    async def now(self) -> datetime:
        """The server's clock."""
        ...

    async def await_older_units(self) -> None:
        """Wait until every unit has ended that may have begun before capture was on, where units write the journal."""
        ...

    async def estimated_rows(self, entity: EntityMapping) -> int:
        """About how many there are of an entity, quickly had, or 0 for unknown."""
        ...

    async def dispose(self) -> None:
        """Let go of all connections; new ones may be made."""
        ...

    async def identity(self, connection: Connection) -> str:
        """Which database this is, by what changes when it is restored or another server takes its place."""
        ...

    async def install(self, *, phase: Phase, epoch: int, foreign_writes: str) -> None:
        """Put journal, guards, mark and fence here, and capture if `phase` asks for it. May be repeated."""
        ...

    async def check_installation(self, *, phase: Phase) -> None:
        """Raise `InstallationError` unless this side bears what this version of the service needs in `phase`."""
        ...

    async def capture_token(self, connection: Connection, *, phase: Phase) -> str:
        """A text that stays the same as long as capture here has had no gap in `phase`, or "" while it has one now."""
        ...

    async def switch_capture(
        self, connection: Connection, *, phase: Phase, number: int, timeout_ms: int
    ) -> bool:
        """Make capture what `phase` asks for, under the number of the change; False where a later change has been.

        When the transaction has been committed, no unit is under way that began without knowing. Raises `LockHeldError`
        if it cannot be had in time.
        """
        ...

    async def epoch_of_mark(self, connection: Connection) -> int:
        """The epoch of the mark; raises `InstallationError` where there is none."""
        ...

    async def restore(self, connection: Connection, *, is_open: bool, epoch: int, phase: Phase) -> None:
        """After this side was restored: fence and capture in order, the mark what it has to be, whatever it says now.

        The caller holds the fence lock alone. The journal of a side that is closed is forgotten.
        """
        ...

    async def tables(self, entity: EntityMapping) -> list[str]:
        """What this side keeps an entity in, in words with sizes: what may be deleted when the side was let go."""
        ...


__all__ = [
    "CaptureGap",
    "ChangeStream",
    "Conflicts",
    "Connection",
    "Failures",
    "Journal",
    "LockHeldError",
    "Mark",
    "Marks",
    "OnTheWay",
    "Pool",
    "SideStore",
    "State",
    "StoreKind",
    "Stranded",
]
