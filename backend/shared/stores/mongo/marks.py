"""The mark of a side on MongoDB, in the collection of the stripes that tell it to writers (R7).

The mark decides: it changes only from a lower epoch, in one transaction with the stripes. `epoch` of the stripes is that of
the mark while the side is closed; of an open side nobody asks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from backend.shared.domain.errors import FencedError, InstallationError
from backend.shared.domain.phases import Phase, Side
from backend.shared.stores.side import Mark

from .collections import Collections, Stored
from .connection import DocumentConnection, Stripe
from .fence import Fence

_OPEN, _CLOSED = "open", "closed"


class Established(Protocol):
    """Capture that has to begin before it counts."""

    async def generation(self) -> int | None:
        """How often it has begun; None before the first time."""
        ...

    async def establish(self, *, after: int | None) -> None:
        """From now on nothing is missed. Changes nothing where it has begun again since generation `after`."""
        ...

    async def is_established(self) -> bool:
        """Whether it has begun."""
        ...


class DocumentMarks:
    """Reads and changes the mark in the caller's transaction."""

    def __init__(self, collections: Collections, fence: Fence, side: Side) -> None:
        self.stream: Established | None = None
        """What captures other programs' writes too, if anything does."""
        self._collections = collections
        self._fence = fence
        self._side = side

    @property
    def captured_by(self) -> str:
        """What captures, as capture's token says it: another way of capturing is another token."""
        return "unit" if self.stream is None else "stream"

    async def read(self, connection: DocumentConnection) -> Mark:
        """The mark as this command sees it. Raises `InstallationError` where there is none."""
        found = await self._find(connection)
        return Mark(
            is_open=found["state"] == _OPEN,
            captures=found["captures"],
            epoch=found["epoch"],
            foreign_writes=found["foreign_writes"],
            capture_change=found["capture_change"],
            capture_token=found["capture_token"],
            identity=found["identity"],
        )

    async def _find(self, connection: DocumentConnection) -> Stored:
        found = await self._collections.fence.find_one({"_id": "mark"}, session=await connection.reader())
        if found is None:
            raise InstallationError(f"the journal is not installed on the {self._side.value} side")
        return found

    async def lock_alone(self, connection: DocumentConnection, *, timeout_ms: int) -> None:
        """Take the fence lock alone, before anything else is asked through this connection. `LockHeldError` in vain."""
        await self._fence.lock_alone(connection, timeout_ms=timeout_ms)

    async def share(self, connection: DocumentConnection) -> None:
        """Until the transaction ends the mark stays as it is."""
        await self._fence.enter(connection, check=lambda _: None)

    async def hold_open(self, connection: DocumentConnection) -> None:
        """Keep an open side open until the transaction ends; raises `FencedError` if it is closed."""
        await self._fence.enter(connection, check=self._check_open)

    async def hold_authority(self, connection: DocumentConnection, *, epoch: int) -> None:
        """Keep a side that is open in `epoch` open until the transaction ends; raises `FencedError` if it is not.

        The stripe holds it open. The mark is that of the same snapshot: whoever closes the side writes both at once.
        """
        await self.hold_open(connection)
        mark = await self.read(connection)
        if not mark.is_open or mark.epoch != epoch:
            raise FencedError(
                f"not open in epoch {epoch}, so nothing may be written to it",
                side=self._side,
                unavailable=True,
            )

    def _check_open(self, stripe: Stripe) -> None:
        if not stripe.is_open:
            raise FencedError("it is closed", side=self._side, unavailable=True)

    def unit_check(self, stripe: Stripe, *, journals: bool) -> None:
        """What a unit has to know before it writes. Raises `FencedError`, also where it would leave a gap in capture."""
        self._check_open(stripe)
        if stripe.captures and not journals:
            raise FencedError("changes have to be journalled by now", side=self._side, unavailable=True)

    def carry_check(self, stripe: Stripe, *, epoch: int) -> None:
        """What a carry has to know before it writes: raises `FencedError` unless closed in this epoch."""
        if stripe.is_open or stripe.epoch != epoch:
            raise FencedError(
                f"not closed in epoch {epoch}, so nothing may be carried to it",
                side=self._side,
                unavailable=True,
            )

    async def check_reader(self, connection: DocumentConnection) -> None:
        """Raise `FencedError` where the side is closed in the snapshot of this transaction.

        A reader need not keep it open: what it reads was the truth at the moment of its snapshot.
        """
        await connection.begun()
        if (await self._find(connection))["state"] != _OPEN:
            raise FencedError("it is closed", side=self._side, unavailable=True)

    async def holders(self) -> list[str]:
        """Nothing: MongoDB tells no login who holds a document."""
        return []

    async def close(self, connection: DocumentConnection, *, epoch: int) -> bool:
        """Close an open side with the commit. The caller holds the fence lock alone."""
        return await self._turn(connection, {"state": _CLOSED}, epoch=epoch, only_if=_OPEN)

    async def open(self, connection: DocumentConnection, *, epoch: int, capture_token: str) -> bool:
        """Open a closed side with the commit. The caller holds the fence lock alone."""
        changes = {"state": _OPEN, "capture_token": capture_token}
        return await self._turn(connection, changes, epoch=epoch, only_if=_CLOSED)

    async def raise_epoch(self, connection: DocumentConnection, *, epoch: int, is_open: bool) -> bool:
        """Leave an open side open, or a closed one closed, in a later epoch.

        Without the lock a closed side's stripes are written at once, and carries under way make that a write conflict.
        """
        state = _OPEN if is_open else _CLOSED
        if connection.fence_token is not None:
            return await self._turn(connection, {"state": state}, epoch=epoch, only_if=state)
        session, fence = await connection.session(), self._collections.fence
        changed = await fence.update_one(
            {"_id": "mark", "state": state, "epoch": {"$lt": epoch}},
            {"$set": {"epoch": epoch}},
            session=session,
        )
        if changed.matched_count and not is_open:
            await fence.update_many({"kind": "stripe"}, {"$set": {"epoch": epoch}}, session=session)
        return changed.matched_count > 0

    async def _turn(
        self, connection: DocumentConnection, changes: Mapping[str, Any], *, epoch: int, only_if: str
    ) -> bool:
        condition = {"state": only_if, "epoch": {"$lt": epoch}}
        # Not in the transaction: that would see what was there when it began.
        if await self._collections.fence.find_one({"_id": "mark", **condition}, {"_id": 1}) is None:
            return False
        await self._fence.change(
            connection,
            stripes={"state": changes["state"], "epoch": epoch},
            mark={**changes, "epoch": epoch},
            only_if=condition,
        )
        return True

    async def overrule(
        self,
        connection: DocumentConnection,
        *,
        is_open: bool,
        epoch: int,
        identity: str,
        capture_token: str = "",
    ) -> None:
        """Make the mark what it has to be after a restore, whatever it says now. The caller holds the fence lock alone."""
        told = {"state": _OPEN if is_open else _CLOSED, "epoch": epoch}
        await self._fence.change(
            connection,
            stripes=told,
            mark={**told, "identity": identity, "capture_token": capture_token},
            only_if={},
        )

    async def set_foreign_writes(self, connection: DocumentConnection, value: str) -> None:
        """Say what becomes of foreign programs' writes while the side is closed."""
        await self._collections.fence.update_one(
            {"_id": "mark", "foreign_writes": {"$ne": value}},
            {"$set": {"foreign_writes": value}},
            session=await connection.session(),
        )

    # Capture ------------------------------------------------------------------------------------------------------

    async def switch_capture(
        self, connection: DocumentConnection, *, phase: Phase, number: int, timeout_ms: int
    ) -> bool:
        """Enter with the commit whether units journal, under the number of the change; False after a later one.

        Taken with the fence lock alone where it changes anything: whoever began without knowing has ended by then.
        """
        fence, captures = self._collections.fence, phase.policy.captures
        generation = await self.stream.generation() if self.stream is not None else None
        now = await fence.find_one({"_id": "mark"})
        if now is None:
            raise InstallationError(f"the journal is not installed on the {self._side.value} side")
        if now["capture_change"] > number:
            return False
        changes: dict[str, Any] = {"captures": captures, "capture_change": number}
        if captures and not now["captures"]:
            changes["captured_since"] = number
            if self.stream is not None:
                await self.stream.establish(after=generation)
        only_if = {"capture_change": {"$lte": number}, "captures": now["captures"], "state": now["state"]}
        if captures and now["state"] == _OPEN:
            changes["capture_token"] = await self._token({**now, **changes})
        if captures == now["captures"]:
            changed = await fence.update_one(
                {"_id": "mark", **only_if}, {"$set": changes}, session=await connection.session()
            )
            return changed.matched_count > 0
        await self._fence.lock_alone(connection, timeout_ms=timeout_ms)
        await self._fence.change(connection, stripes={"captures": captures}, mark=changes, only_if=only_if)
        return True

    async def capture_token(self, connection: DocumentConnection, *, phase: Phase) -> str:
        """The token of capture by units: another one after each time that it was off, and after each known gap."""
        found = await self._find(connection)
        if phase.policy.captures and not found["captures"]:
            return ""
        return await self._token(found)

    async def _token(self, mark: Mapping[str, Any]) -> str:
        if self.stream is not None and not await self.stream.is_established():
            return ""
        gap = await self._collections.counter.find_one({"_id": "capture_gap"})
        return f"{self.captured_by}.{mark['captured_since']}.{gap['n'] if gap else 0}"

    async def note_capture_gap(self) -> None:
        """Say that changes may have been missed: copies and comparisons made until now count no more."""
        await self._collections.next_number("capture_gap")
