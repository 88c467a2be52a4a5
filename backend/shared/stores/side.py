"""One side of a service, whatever kind of database it is: what journal, relay, guard, fence, cutover and backfill ask of it.

A side hands out connections; every method that takes one works in the transaction of that connection, and nobody but the
side's own room knows what a connection is. The contract that each kind keeps is held by tests/contract/test_sides.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.journal.conflict_records import Conflict, FailedKey, OpenFailureKey, SettledConflict
from backend.shared.journal.records import Claim, ClaimedKey, Failure, JournalDepth, Remainder
from backend.shared.journal.stranded_records import StrandedKey
from backend.shared.stores.protocol import Applied, Position, StateBatch

if TYPE_CHECKING:
    from backend.shared.stores.postgres.sync_columns import SyncColumns

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


class Journal(Protocol):
    """The list of keys changed on this side and not carried over yet (R1, R2)."""

    def claiming(self, *, limit: int) -> AbstractAsyncContextManager[tuple[Connection, Claim]]:
        """Take up to `limit` rows that are due, oldest first, past those that others hold; they end when the body does.

        Exactly the claimed rows end, in one transaction with what the body writes through the connection. If the body
        raises, all are there again, at once. A claim that its holder does not end (it was killed) is free again after a
        while. Until then everybody still sees the rows (`depth`, `open_keys`, `remainder`).
        """
        ...

    async def requeue(
        self, connection: Connection, key: ClaimedKey, *, delay_seconds: float, error: str
    ) -> None:
        """Write a claimed key back, to be tried again after `delay_seconds`; its age is kept."""
        ...

    async def add(self, connection: Connection, entity: str, keys: Iterable[str]) -> int | None:
        """Journal `keys` by hand; answers the id of the transaction that did, where there is such a thing."""
        ...

    async def end(self, connection: Connection, ids: Sequence[Any]) -> None:
        """End exactly these rows, by the numbers that the unit which wrote them has told; not those that a relay holds."""
        ...

    async def open_keys(self, connection: Connection, entity: str, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that have an open journal row."""
        ...

    async def changed_at(self, connection: Connection, entity: str, key: str) -> datetime | None:
        """When a key was last changed, as its open journal rows say; None where it has none."""
        ...

    async def depth(self, connection: Connection) -> JournalDepth:
        """How much is waiting, without reading a long journal to its end."""
        ...

    async def remainder(self, connection: Connection) -> Remainder:
        """What is left to carry, seen later than any lock that this connection holds."""
        ...

    async def forget(self, connection: Connection) -> None:
        """Delete every row: whoever goes on from here copies everything again."""
        ...


class Failures(Protocol):
    """Keys of this side that could not be carried (R5)."""

    async def record(
        self,
        connection: Connection,
        key: ClaimedKey,
        *,
        direction: Direction,
        epoch: int,
        position: Position | None,
        reason: str,
        sqlstate: str | None,
    ) -> bool:
        """Keep a key as FAILED, once however often it fails; answers whether it was already.

        `position`: of the state that was refused.
        """
        ...

    async def close(
        self,
        connection: Connection,
        keys: Mapping[tuple[str, str], Position | None],
        *,
        epoch: int,
        by: str,
    ) -> int:
        """Close the open failures of keys that have been carried, unless they are of something newer; answers how many."""
        ...

    async def page(
        self,
        connection: Connection,
        *,
        after_id: int = 0,
        limit: int = 50,
        state: str = "open",
        entity: str | None = None,
    ) -> list[Failure]:
        """Failures in order of their number, past `after_id`."""
        ...

    async def count_by_entity(self, connection: Connection) -> dict[str, int]:
        """Open failures by entity; entities without any are left out."""
        ...

    async def get(self, connection: Connection, failure_id: int) -> Failure | None:
        """One failure by its number."""
        ...

    async def find(self, connection: Connection, entity: str, key: str) -> Failure | None:
        """The open failure of a key."""
        ...

    async def delete_closed(self, connection: Connection, *, closed_before: datetime, limit: int) -> int:
        """Delete up to `limit` failures that were closed before then; answers how many."""
        ...

    async def retry(
        self,
        connection: Connection,
        *,
        failure_id: int | None = None,
        entity: str | None = None,
        failed_before: datetime | None = None,
    ) -> int:
        """Journal the keys of open failures again: one, those of an entity, or all. They close when carried."""
        ...

    async def failed_keys(self, connection: Connection, entity: str, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that have an open failure."""
        ...


class Marks(Protocol):
    """The mark of this side and the fence that goes by it (R7). Marks change only from a lower epoch."""

    async def read(self, connection: Connection) -> Mark:
        """The mark as this statement sees it."""
        ...

    async def lock_alone(self, connection: Connection, *, timeout_ms: int) -> None:
        """Take the fence lock alone: from then on until the transaction ends nobody writes here. `LockHeldError` in vain.

        Whoever was writing has ended by then. A holder that falls silent loses it after about a second; then neither
        `close` nor `open` of its transaction comes through.
        """
        ...

    async def share(self, connection: Connection) -> None:
        """Until the transaction ends the mark stays as it is."""
        ...

    async def hold_open(self, connection: Connection) -> None:
        """Keep an open side open until the transaction ends; raises `FencedError` if it is closed."""
        ...

    async def holders(self) -> list[str]:
        """Who holds the fence lock, in words, as far as this login is told."""
        ...

    async def close(self, connection: Connection, *, epoch: int) -> bool:
        """Close an open side. The caller holds the fence lock alone."""
        ...

    async def open(self, connection: Connection, *, epoch: int, capture_token: str) -> bool:
        """Open a closed side. The caller holds the fence lock alone."""
        ...

    async def raise_epoch(self, connection: Connection, *, epoch: int, is_open: bool) -> bool:
        """Leave an open side open, or a closed one closed, in a later epoch."""
        ...

    async def overrule(self, connection: Connection, *, is_open: bool, epoch: int, identity: str) -> None:
        """Make the mark what it has to be after a restore, whatever it says now. The caller holds the fence lock alone."""
        ...

    async def set_foreign_writes(self, connection: Connection, value: str) -> None:
        """Say what becomes of foreign programs' writes while the side is closed."""
        ...


class State(Protocol):
    """Reads and writes the state of entities on this side (R2, R3)."""

    async def read_state(
        self, connection: Connection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """State of `keys` on this side, the source, with the position of the snapshot that read it.

        Raises `UnfitKeysError` for keys whose state cannot be said in the target's shape.
        """
        ...

    async def read_uncommitted(
        self, connection: Connection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """State of `keys` as the open transaction of `connection` sees it, its own writes included.

        The position says nothing. Where it fails, the transaction goes on.
        """
        ...

    async def read_stored(
        self, connection: Connection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """What this side, the target of `direction`, itself holds of `keys`: mapped columns only."""
        ...

    async def stored_rows(
        self, connection: Connection, entity: EntityMapping, keys: Sequence[str]
    ) -> dict[str, dict[str, str]]:
        """The rows that this side holds of `keys`, mapped columns only: by key and table or collection, as JSON."""
        ...

    async def position(self, connection: Connection) -> Position:
        """Where this side, the source, stands: the position of a snapshot taken now."""
        ...

    async def make_durable(self, connection: Connection) -> None:
        """What the snapshot before this call has counted outlives a crash of this side's server."""
        ...

    async def apply(
        self, connection: Connection, batches: Sequence[StateBatch], *, epoch: int
    ) -> dict[str, Applied]:
        """Write `batches`, one per entity, where their guards move forward; answers by entity name.

        Everything in the caller's transaction, which should do nothing else. Raises `FencedError` unless this side, the
        target, is closed in `epoch`, `OutdatedReadError` where a backfill has copied newer state, and whatever the
        database raises when it refuses a row.
        """
        ...

    async def enter(self, connection: Connection, direction: Direction, *, epoch: int) -> None:
        """Make the transaction a carry in `direction`, where `apply` is not the first thing that it does."""
        ...

    async def move_guards(self, connection: Connection, batch: StateBatch, *, epoch: int) -> frozenset[str]:
        """Move the guards of a batch to its position, in a transaction that has entered; answers the keys that moved.

        Raises as `apply` does.
        """
        ...

    async def set_guards(
        self,
        connection: Connection,
        entity: EntityMapping,
        *,
        keys: Sequence[str],
        guard: tuple[int, Position],
        epoch: int,
    ) -> None:
        """Make the guards of `keys`, which this transaction holds, `guard`, whatever they are.

        Raises `FencedError` unless this side is closed in `epoch`.
        """
        ...

    async def write(
        self, connection: Connection, batches: Sequence[StateBatch], moved: Mapping[str, frozenset[str]]
    ) -> None:
        """Make the `moved` keys (by entity) what the batches, parents first, say of them. Asks no guard."""
        ...

    async def lock_guards(
        self, connection: Connection, entity: EntityMapping, *, keys: Sequence[str]
    ) -> None:
        """Hold the guards of `keys` until the transaction ends, without moving them."""
        ...

    async def read_guards(
        self, connection: Connection, entity: EntityMapping, *, keys: Sequence[str]
    ) -> dict[str, tuple[int, Position]]:
        """Epoch and position of the guards of `keys` that have one."""
        ...

    async def missing_parents(
        self, connection: Connection, batches: Sequence[StateBatch], constraint: str | None
    ) -> dict[str, list[str]]:
        """Keys by entity that a foreign key asks for and this side lacks; nothing where that cannot be told."""
        ...

    async def find_unique(
        self, connection: Connection, batch: StateBatch, constraint: str | None
    ) -> object | None:
        """The unique index of that name which `batch` has clashed with; None where nothing can be done about it."""
        ...

    async def holders(self, connection: Connection, batch: StateBatch, unique: Any) -> set[str]:
        """Keys that hold, on this side, a unique value which the batch is to get."""
        ...

    async def let_go(
        self, connection: Connection, entity: EntityMapping, unique: Any, keys: list[str]
    ) -> None:
        """Take what `keys` have here out of the unique index's way, in the caller's transaction."""
        ...

    async def keys_after(
        self, connection: Connection, entity: EntityMapping, *, after: str | None, limit: int
    ) -> list[str]:
        """Up to `limit` canonical keys of the entity's root that this side holds, past `after`, in the order of their bytes."""
        ...

    async def strange_keys(self, connection: Connection, entity: EntityMapping, *, most: int) -> list[str]:
        """Up to `most` keys that are none of the entity's kind, and which `keys_after` leaves out: nothing can hold them."""
        ...

    async def count(self, connection: Connection, entity: EntityMapping) -> int:
        """About how many there are of an entity."""
        ...


class Conflicts(Protocol):
    """What this side keeps for somebody to decide (I8)."""

    async def count(self, connection: Connection) -> int:
        """How many are open; a longer list is counted up to `COUNT_LIMIT`."""
        ...

    async def page(
        self,
        connection: Connection,
        *,
        after_id: int = 0,
        limit: int = 50,
        entity: str | None = None,
        state: str = "open",
    ) -> list[Conflict]:
        """Conflicts in the order of their numbers, past `after_id`."""
        ...

    async def get(self, connection: Connection, number: int) -> Conflict | None:
        """One conflict, open or not."""
        ...

    async def hold(self, connection: Connection, number: int) -> Conflict | None:
        """One conflict, held until the transaction ends; `LockHeldError` if somebody else holds it."""
        ...

    async def settle(
        self, connection: Connection, numbers: Sequence[int], *, kept: Side, by: str, detail: str
    ) -> None:
        """Close conflicts, and say which side's state was kept, and by whom."""
        ...

    async def note(self, connection: Connection, number: int, detail: str) -> None:
        """Keep why a conflict could not be settled."""
        ...

    async def open_failures(
        self, connection: Connection, *, after_id: int, limit: int
    ) -> list[OpenFailureKey]:
        """FAILED keys of this side, past number `after_id`."""
        ...

    async def keep_failed(
        self, connection: Connection, failed: Iterable[FailedKey], *, side: Side, by: str
    ) -> None:
        """Make conflicts of FAILED keys of `side`, and close their failures."""
        ...

    async def keep_settled(self, connection: Connection, settled: SettledConflict) -> None:
        """Keep a conflict that is settled already, so that what was dropped can be seen."""
        ...


class Stranded(Protocol):
    """Keys that were written on this side alone while it was the secondary one."""

    async def keep(
        self, connection: Connection, entity: str, images: Mapping[str, str], *, request_id: str | None
    ) -> None:
        """Keep the keys of `images` with their state before. Of one that is kept already, only the time changes."""
        ...

    async def page(self, connection: Connection, *, limit: int) -> list[StrandedKey]:
        """Those that have been there for longest."""
        ...

    async def get(self, connection: Connection, entity: str, key: str) -> StrandedKey | None:
        """One key, if it is stranded."""
        ...

    async def count(self, connection: Connection) -> int:
        """How many there are."""
        ...

    async def end(self, connection: Connection, entity: str, key: str) -> None:
        """Forget one."""
        ...


@dataclass(frozen=True, kw_only=True)
class CaptureGap:
    """Changes of other programs that capture could not tell. `number` counts them."""

    number: int
    reason: str


class ChangeStream(Protocol):
    """Capture of what other programs write, where the database tells it afterwards, by a process that listens."""

    on_gap: Callable[[CaptureGap], None] | None
    """Called when changes may have been missed, in the process that found out."""

    async def run(self, stop: asyncio.Event, *, paused: Callable[[], bool]) -> None:
        """Listen until `stop` is set. Any number of processes may; one of them does."""
        ...

    async def open_gap(self) -> CaptureGap | None:
        """The last gap, unless a backfill has copied since what it may have hidden."""
        ...

    async def mended(self, gap: CaptureGap) -> None:
        """A backfill that began after `gap` is complete."""
        ...


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
