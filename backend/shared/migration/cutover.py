"""Moves the authority from one side to the other under traffic (R7).

What is about to be done is written down first. Then one transaction on the side that is to close, holding its fence lock
alone, so that no writer is under way: nothing left in its journal, seen by a statement later than the lock; the fence lock of
the other side had, so that no carry is under way and nothing is left to wait for; the mark set to closed. Only then is the
other side opened.

The mark of the closing side is where it is decided, in one row: closed in the new epoch, and there is no way but forward, for
this controller or any other that finds the intent; or still open but in the new epoch, and it is given up for good, since
that epoch can be closed no more. A crash leaves the old authority, or none for a moment; never two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from enum import StrEnum

import structlog

from backend.shared.control import Intent
from backend.shared.domain.errors import ConflictError, FencedError, TandemError
from backend.shared.domain.phases import Direction
from backend.shared.journal.carrier import Hook, TargetUnavailableError, no_hook
from backend.shared.journal.relay import RelayPass
from backend.shared.migration.capture_proof import whole_since
from backend.shared.migration.failed_keys import keep_failed_keys
from backend.shared.migration.sequences import SequenceState, move_sequences
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import describe, is_connection_loss, is_database_error
from backend.shared.stores.protocol import Position
from backend.shared.stores.side import Connection, LockHeldError

LOCK_MS = 100
"""How long traffic may queue up behind one try for a fence lock."""
DRAIN_MS = 150
"""How long a lock may be held, in the first try, until the last rows are carried."""
MOST_DRAIN_MS = 600
"""The most that this grows to, doubling with each try that it was too short for: a slow target needs it."""
GIVE_UP_SECONDS = 30.0
STRANDED_KEYS = 500
"""As many keys are taken over at once."""
CAPTURE_GATE = "capture"
"""The gate by whose name an operator says that a gap in capture is known."""
_PAUSE_SECONDS = 0.5

log = structlog.get_logger(__name__)


class ChangeGivenUpError(ConflictError):
    """It could not be done in time, and the phase is as it was: somebody held a lock, or the journal would not drain."""


class ChangeOvertakenError(ConflictError):
    """Somebody else has changed the phase meanwhile."""


class Decision(StrEnum):
    """What the mark of the closing side says of an intent."""

    OPEN = "open"
    """Nothing is decided."""
    FORWARD = "forward"
    GIVEN_UP = "given_up"


class Cutover:
    """One step that moves the authority. Everything may be repeated, by anybody, until it is done; `hook` is for tests."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        intent: Intent,
        *,
        hook: Hook = no_hook,
        give_up_seconds: float = GIVE_UP_SECONDS,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._runtime = runtime
        self._intent = intent
        self._opening = runtime.stores[intent.to.policy.authoritative]
        self._closing = runtime.stores[self._opening.side.other]
        self._relay = runtime.relays[Direction.towards(self._opening.side)]
        self._hook = hook
        self._give_up_seconds = give_up_seconds
        self._say = say
        self._closed_at = time.monotonic()
        self._whole: frozenset[str] = frozenset()
        self._pass: asyncio.Future[RelayPass] | None = None
        self._commit_sent = False
        self._drain_ms = DRAIN_MS

    async def run(self) -> float:
        """Do what the intent says; answers the milliseconds from the last write on one side to the first on the other.

        Raises `ChangeGivenUpError` with the old authority as it was, and `ChangeOvertakenError` if somebody else has gone on
        in between. Whatever else it raises, the intent is still there.
        """
        decision = await self.decision()
        if decision is Decision.OPEN:
            decision = await self._try_to_close()
        if decision is Decision.GIVEN_UP:
            await self.give_up()
            raise ChangeGivenUpError(f"the change to {self._intent.to.value} was given up")
        await self._retried(self._open)
        await self._hook("cutover_opened")
        stall_ms = (time.monotonic() - self._closed_at) * 1000
        await self._retried(lambda: self._enter(stall_ms))
        await self._hook("cutover_entered")
        return stall_ms

    async def decision(self) -> Decision:
        """What is decided of the intent; raises `ChangeOvertakenError` where the epoch has gone past it."""
        async with self._closing.connect() as connection:
            mark = await self._closing.marks.read(connection)
        if mark.epoch < self._intent.epoch:
            return Decision.OPEN
        if mark.epoch > self._intent.epoch:
            raise ChangeOvertakenError(
                f"the {self._closing.side.value} side is in epoch {mark.epoch} already"
            )
        return Decision.GIVEN_UP if mark.is_open else Decision.FORWARD

    async def give_up(self) -> Decision:
        """Take the intent back, if it is not too late: then answers `FORWARD`, and it has to be gone through with."""
        async with self._closing.begin() as connection:
            await self._closing.marks.raise_epoch(connection, epoch=self._intent.epoch, is_open=True)
        decision = await self.decision()
        if decision is Decision.FORWARD:
            return decision
        await self._hook("cutover_given_up")
        await self._retried(self._raise_closed)
        await self._runtime.controls.withdraw(self._intent)
        return decision

    async def _raise_closed(self) -> None:
        """Bring the side that stays closed to the new epoch, with the fence lock alone.

        A copy of history that has looked at the mark must not go on in the old epoch beside carries of the new one, which
        its floor does not hold back (`RAISED_WITHOUT_LOCK` in docs/model).
        """
        marks = self._opening.marks
        async with self._opening.begin() as connection:
            await marks.lock_alone(connection, timeout_ms=LOCK_MS * 10)
            await marks.raise_epoch(connection, epoch=self._intent.epoch, is_open=False)

    async def _try_to_close(self) -> Decision:
        """Close the old side, or decide for good that it stays open."""
        try:
            await self._prepare()
            await self._close()
        except (ChangeOvertakenError, asyncio.CancelledError):
            raise
        except Exception as error:
            if not isinstance(error, TandemError | LockHeldError) and not is_database_error(error):
                raise
            # COMMIT may have come through all the same: the mark knows.
            if await self.give_up() is Decision.GIVEN_UP:
                if isinstance(error, ChangeGivenUpError):
                    raise
                reason = str(error) if isinstance(error, TandemError) else describe(error)
                raise ChangeGivenUpError(f"the authority stays where it was: {reason}") from error
        return Decision.FORWARD

    async def _prepare(self) -> None:
        """Move the sequences of the side that is to open while nobody waits for it."""
        marks = self._opening.marks
        async with self._opening.connect() as opening, self._closing.connect() as closing:
            await marks.share(opening)
            mark = await marks.read(opening)
            if mark.is_open or mark.epoch >= self._intent.epoch:
                raise ChangeOvertakenError(
                    f"the {self._opening.side.value} side is in epoch {mark.epoch} already"
                )
            moved = await self._move_sequences(opening, closing)
            await opening.commit()
            self._whole = await whole_since(self._runtime, closing, side=self._closing.side)
        for state in moved:
            self._say(f"{state.sequence} of the {self._opening.side.value} side goes on at {state.target}")
        await self._hook("cutover_sequences_moved")

    async def _close(self) -> None:
        try:
            await self._close_in_time()
        finally:
            await self._end_pass()

    async def _close_in_time(self) -> None:
        deadline = time.monotonic() + self._give_up_seconds
        reason = ""
        while time.monotonic() < deadline:
            await self._almost_drained(deadline)
            in_the_way = await self._try_once()
            if in_the_way is None:
                return
            reason = in_the_way or reason
            self._say(f"not yet: {reason}")
            await asyncio.sleep(_PAUSE_SECONDS)
        raise ChangeGivenUpError(
            f"the {self._closing.side.value} side could not be closed within {self._give_up_seconds:g} s: {reason}"
        )

    async def _almost_drained(self, deadline: float) -> None:
        """Help the relays along until little is left: the rest is carried while the lock is held."""
        while time.monotonic() < deadline:
            done = await self._carry(seconds=deadline - time.monotonic())
            if done < self._runtime.settings.batch_size:
                return

    async def _carry(self, *, seconds: float) -> int:
        """One pass of the relay; answers its rows. One that takes more than `seconds` goes on: the next call waits for it."""
        self._pass = self._pass or asyncio.ensure_future(self._relay.run_once())
        await asyncio.wait({self._pass}, timeout=max(0.0, seconds))
        if not self._pass.done():
            return 0
        done, self._pass = self._pass, None
        try:
            return done.result().rows
        except (TargetUnavailableError, FencedError) as error:
            raise ChangeGivenUpError(f"nothing can be carried: {error}") from error

    async def _end_pass(self) -> None:
        """Nothing outlives the tries. Rows of a pass that is cancelled are claimed, and carried, again."""
        under_way, self._pass = self._pass, None
        if under_way is not None:
            under_way.cancel()
            await asyncio.gather(under_way, return_exceptions=True)

    async def _try_once(self) -> str | None:
        """One try to close the old side and open the new; answers what stood in the way, and None if it is done."""
        self._commit_sent = False
        try:
            return await self._try_holding()
        except Exception as error:
            # Whoever is silent for long while it holds the lock alone is cut off, and may notice only when it lets go.
            # Nothing is decided before COMMIT.
            if self._commit_sent or not is_connection_loss(error):
                raise
            return f"a connection was lost while the fence lock was held ({describe(error)})"

    async def _try_holding(self) -> str | None:
        held_by = self._closing
        async with AsyncExitStack() as stack:
            closing = await stack.enter_async_context(self._closing.connect())
            opening = await stack.enter_async_context(self._opening.connect())
            try:
                await self._closing.marks.lock_alone(closing, timeout_ms=LOCK_MS)
                await self._hook("cutover_locked")
                if left := await self._drained(closing):
                    return left
                await self._check_capture(closing)
                held_by = self._opening
                await self._opening.marks.lock_alone(opening, timeout_ms=LOCK_MS)
                if left := await self._stranded(opening):
                    return left
                kept = await keep_failed_keys(self._runtime, closing, opening, side=self._closing.side)
                await self._commit_closed(closing)
            except LockHeldError:
                pass
            else:
                await self._open_on(opening, closing)
                if kept:
                    self._say(f"{kept} keys that could not be carried are conflicts now: `tandem conflicts`")
                return None
        name = held_by.side.value
        return "; ".join(await held_by.marks.holders()) or f"a transaction on the {name} side held on"

    async def _check_capture(self, connection: Connection) -> None:
        """Raise `ChangeGivenUpError` unless every change was captured, seen under the lock.

        The gates were looked at before, perhaps hours ago by a controller that died: a journal that is empty because
        nobody wrote it proves nothing (`GATE_BEFORE_LOCK` in docs/model).
        """
        if CAPTURE_GATE in self._intent.forced:
            return
        token = await self._runtime.capture_token(connection, self._closing.side)
        if not token or token not in self._whole:
            raise ChangeGivenUpError(
                f"capture on the {self._closing.side.value} side has had a gap: changes may be missing on the "
                f"{self._opening.side.value} side; run `tandem backfill {self._runtime.service}`, then try again"
            )

    async def _commit_closed(self, connection: Connection) -> None:
        if not await self._closing.marks.close(connection, epoch=self._intent.epoch):
            raise ChangeOvertakenError(f"the {self._closing.side.value} side is in a later epoch already")
        await self._hook("cutover_closing")
        self._closed_at = time.monotonic()
        self._commit_sent = True
        await connection.commit()
        await self._hook("cutover_closed")

    async def _drained(self, connection: Connection) -> str:
        """What is left but FAILED keys, seen by statements later than the lock; empty if nothing is."""
        deadline = time.monotonic() + self._drain_ms / 1000
        while True:
            found = await self._closing.journal.remainder(connection)
            if not found.rows:
                return ""
            if time.monotonic() > deadline:
                self._drain_ms = min(MOST_DRAIN_MS, 2 * self._drain_ms)
                return f"{found.rows} changes are not carried yet" + (
                    f", {found.waiting} of them wait ({found.reason})" if found.waiting else ""
                )
            await self._carry(seconds=deadline - time.monotonic())

    async def _stranded(self, connection: Connection) -> str:
        """What was written on the side that is to open alone, seen under its fence lock; empty if nothing is left of it."""
        if self._runtime.both_sql:
            return ""
        count = await self._opening.stranded.count(connection)
        return f"{count} keys were written on the {self._opening.side.value} side alone" if count else ""

    async def _open(self) -> None:
        """Open the other side, if it is not open yet."""
        marks = self._opening.marks
        async with self._opening.connect() as opening, self._closing.connect() as closing:
            mark = await marks.read(opening)
            if mark.is_open and mark.epoch == self._intent.epoch:
                return
            if mark.epoch >= self._intent.epoch:
                raise ChangeOvertakenError(
                    f"the {self._opening.side.value} side is in epoch {mark.epoch} already"
                )
            await marks.lock_alone(opening, timeout_ms=LOCK_MS * 10)
            await self._take_over_stranded(opening, epoch=mark.epoch)
            await self._open_on(opening, closing)

    async def _take_over_stranded(self, opening: Connection, *, epoch: int) -> None:
        """What was written here alone, after a controller had died behind the closing, is carried like any other change.

        The other side was closed before, and drained: nothing there is newer. It is still closed, in
        `epoch`; its guards begin anew in the one to come.
        """
        if self._runtime.both_sql:
            return
        store = self._opening
        while found := await store.stranded.page(opening, limit=STRANDED_KEYS):
            for item in found:
                await store.journal.add(opening, item.entity, [item.key])
                await store.state.set_guards(
                    opening,
                    self._runtime.catalog[item.entity],
                    keys=[item.key],
                    guard=(0, Position(major=0, minor=0)),
                    epoch=epoch,
                )
                await store.stranded.end(opening, item.entity, item.key)
            self._say(
                f"{len(found)} keys that were written on the {store.side.value} side alone are carried from now on"
            )

    async def _open_on(self, opening: Connection, closing: Connection) -> None:
        """Open the side whose fence lock the transaction of `opening` holds alone.

        After a last look at its sequences: numbers went on being taken until the old side was closed.
        """
        await self._move_sequences(opening, closing)
        token = await self._runtime.capture_token(opening, self._opening.side)
        await self._opening.marks.open(opening, epoch=self._intent.epoch, capture_token=token)
        await opening.commit()

    async def _move_sequences(self, opening: Connection, closing: Connection) -> list[SequenceState]:
        """Sequences of the side that is to open; where one of them is no SQL database, nobody draws keys from one."""
        if not self._runtime.both_sql:
            return []
        return await move_sequences(opening, closing, self._runtime.catalog, self._opening.side)

    async def _enter(self, stall_ms: float) -> None:
        if not await self._runtime.controls.enter(self._intent, stall_ms=stall_ms, done=True):
            now = await self._runtime.controls.read()
            if now.epoch < self._intent.epoch:
                raise ChangeOvertakenError(f"the phase is {now.phase.value} in epoch {now.epoch}")

    async def _retried(self, work: Callable[[], Awaitable[None]]) -> None:
        """There is no way from here but forward, and no authority until it is done: so try again for a while."""
        deadline = time.monotonic() + self._give_up_seconds
        while True:
            try:
                await work()
            except TandemError:
                raise
            except Exception as error:
                held = isinstance(error, LockHeldError) or is_database_error(error)
                if time.monotonic() > deadline or not held:
                    raise
                log.warning("cutover_held", service=self._runtime.service, error=describe(error))
                await asyncio.sleep(0.05)
            else:
                return
