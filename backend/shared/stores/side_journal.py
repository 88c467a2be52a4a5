"""What a side keeps for the engine: journal, failures, mark, conflicts, stranded keys; the protocols that make up a side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.conflict_records import Conflict, FailedKey, OpenFailureKey, SettledConflict
from backend.shared.journal.records import Claim, ClaimedKey, Failure, JournalDepth, Remainder
from backend.shared.journal.stranded_records import StrandedKey
from backend.shared.stores.protocol import Position
from backend.shared.stores.side_records import Connection, Mark


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
        """Delete every row: whoever goes on from here copies everything again. `LockHeldError` if others hold some."""
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

    async def hold_authority(self, connection: Connection, *, epoch: int) -> None:
        """The same for a side that was looked at in `epoch`; raises `FencedError` unless it is open in that epoch.

        The first thing in its transaction but for the unit's beginning.
        """
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

    async def hold_free(self, connection: Connection, numbers: Sequence[int]) -> set[int]:
        """Hold those open ones of `numbers` that nobody else holds, until the transaction ends: the first thing in it."""
        ...

    async def last_id(self, connection: Connection) -> int:
        """The highest number that is open now, or 0."""
        ...

    async def written_since(self, connection: Connection, conflict: Conflict) -> bool:
        """Whether a foreign program has written the same key again after this conflict."""
        ...

    async def claim_settlement(
        self, connection: Connection, conflict: Conflict, *, kept: Side, by: str
    ) -> bool:
        """Say, in the transaction that writes it here, that `conflict` was settled so; False if one has done so before.

        On the side that is written, which need not be the one that keeps the conflict.
        """
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
