"""Moves the authority from one side to the other under traffic (R7).

The order is what makes it safe. What is about to be done is written down first. The side that is to open gets its sequences
moved. Then, in one transaction on the side that is to close: the fence lock alone, so that no writer is under way; nothing
left in the journal, seen by a statement later than the lock; the mark set to closed. Only then does the other side open. A
crash leaves the old authority, or none for a moment and the written intent, which any controller completes; never two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.control import Control
from backend.shared.domain.errors import ConflictError
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.journal.carrier import Hook, TargetUnavailableError, no_hook
from backend.shared.migration.sequences import move_sequences
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.postgres.errors import sqlstate_of

LOCK_MS = 250
"""How long traffic may queue up behind a try for the fence lock."""
DRAIN_MS = 200
"""How long the lock may be held until the last rows are carried."""
GIVE_UP_SECONDS = 30.0
_LOCK_NOT_AVAILABLE = "55P03"

log = structlog.get_logger(__name__)


class CutoverGivenUpError(ConflictError):
    """It could not be done in time, and nothing has changed: somebody held a lock, or the journal would not drain."""


class CutoverOvertakenError(ConflictError):
    """Somebody else has changed the phase meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What is about to be done, as it is written down."""

    to: Phase
    epoch: int
    by: str
    reason: str
    forced: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """As it stands in the phase row."""
        return {
            "to": self.to.value,
            "epoch": self.epoch,
            "by": self.by,
            "reason": self.reason,
            "forced": list(self.forced),
        }

    @classmethod
    def of(cls, kept: object) -> Intent:
        """The intent that the phase row holds."""
        if not isinstance(kept, dict):
            raise ConflictError("the phase row holds an intent that cannot be read")
        return cls(
            to=Phase(kept["to"]),
            epoch=int(kept["epoch"]),
            by=str(kept["by"]),
            reason=str(kept["reason"]),
            forced=tuple(kept["forced"]),
        )


class Cutover:
    """One step that moves the authority. `run` may be repeated by anybody until it is done; `hook` is for tests."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        *,
        hook: Hook = no_hook,
        give_up_seconds: float = GIVE_UP_SECONDS,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._runtime = runtime
        self._names = runtime.names
        self._hook = hook
        self._give_up_seconds = give_up_seconds
        self._say = say

    async def run(self, control: Control) -> float:
        """Do what `control.intent` says; answers the milliseconds in which no side took writes.

        Raises `CutoverGivenUpError` with the old authority as it was, and `CutoverOvertakenError` if somebody else has
        gone on in between.
        """
        intent = Intent.of(control.intent)
        opening = intent.to.policy.authoritative
        closing = opening.other
        if not await self._is_closed(closing, intent):
            moved = await move_sequences(self._runtime.engines, self._runtime.catalog, opening)
            for state in moved:
                self._say(f"{state.sequence} of the {opening.value} side goes on at {state.target}")
            await self._hook("cutover_sequences_moved")
            began = await self._close(closing, intent)
        else:
            began = time.monotonic()
        await self._hook("cutover_closed")
        await self._open(control, opening, intent, began)
        await self._hook("cutover_opened")
        return (time.monotonic() - began) * 1000

    async def _is_closed(self, side: Side, intent: Intent) -> bool:
        async with self._runtime.engines[side].connect() as connection:
            row = (await connection.execute(text(f"SELECT state, epoch FROM {self._names.mark}"))).one()
        if row.epoch > intent.epoch or (row.epoch == intent.epoch and row.state != "closed"):
            raise CutoverOvertakenError(f"the {side.value} side is in epoch {row.epoch} already")
        return bool(row.epoch == intent.epoch)

    async def _close(self, side: Side, intent: Intent) -> float:
        """Close `side` when nobody writes and nothing is left to carry; answers when the lock was had (monotonic)."""
        deadline = time.monotonic() + self._give_up_seconds
        blocked_by = ""
        while time.monotonic() < deadline:
            await self._almost_drained(side, deadline)
            began = await self._try_to_close(side, intent)
            if began is not None:
                return began
            blocked_by = await self._blockers(side) or blocked_by
            await asyncio.sleep(LOCK_MS / 1000)
        raise CutoverGivenUpError(
            f"the {side.value} side could not be closed within {self._give_up_seconds:g} s"
            + (f": {blocked_by}" if blocked_by else ": its journal would not drain")
        )

    async def _almost_drained(self, side: Side, deadline: float) -> None:
        """Help the relays along until little is left: the rest is carried while the lock is held."""
        relay = self._runtime.relays[Direction.towards(side.other)]
        while time.monotonic() < deadline:
            try:
                done = await relay.run_once()
            except TargetUnavailableError as error:
                raise CutoverGivenUpError(f"nothing can be carried: {error}") from error
            if done.rows < self._runtime.settings.batch_size:
                return

    async def _try_to_close(self, side: Side, intent: Intent) -> float | None:
        engine = self._runtime.engines[side].execution_options(isolation_level="READ COMMITTED")
        try:
            async with engine.connect() as connection, connection.begin() as transaction:
                await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
                await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._names.fence_lock})")
                began = time.monotonic()
                await self._hook("cutover_locked")
                if not await self._drained(connection, side):
                    await transaction.rollback()
                    return None
                closed = await connection.execute(
                    text(
                        f"UPDATE {self._names.mark} SET state = 'closed', epoch = :epoch WHERE epoch < :epoch "
                        "RETURNING epoch"
                    ),
                    {"epoch": intent.epoch},
                )
                if closed.first() is None:
                    raise CutoverOvertakenError(
                        f"the {side.value} side is in epoch {intent.epoch} or later already"
                    )
                await self._hook("cutover_closing")
        except Exception as error:
            if sqlstate_of(error) == _LOCK_NOT_AVAILABLE:
                return None
            raise
        return began

    async def _drained(self, connection: AsyncConnection, side: Side) -> bool:
        """Whether nothing is open but FAILED keys, seen by statements later than the lock."""
        relay = self._runtime.relays[Direction.towards(side.other)]
        deadline = time.monotonic() + DRAIN_MS / 1000
        while True:
            found = await connection.execute(text(f"SELECT EXISTS (SELECT 1 FROM {self._names.journal})"))
            if not found.scalar_one():
                return True
            if time.monotonic() > deadline:
                return False
            await relay.run_once()

    async def _blockers(self, side: Side) -> str:
        """Who holds the fence lock, by what the server tells this login."""
        async with self._runtime.engines[side].connect() as connection:
            rows = await connection.execute(
                text(
                    "SELECT a.pid, a.application_name, a.usename, "
                    "extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age "
                    "FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid "
                    "WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database "
                    "WHERE datname = current_database()) AND l.objsubid = 2 "
                    f"AND (l.classid, l.objid::int8) = (SELECT c, o & 4294967295 FROM (SELECT {self._names.fence_lock}::int8) "
                    "AS k(c, o)) ORDER BY a.xact_start LIMIT 3"
                )
            )
            return "; ".join(
                f"process {row.pid} ({row.application_name or row.usename}) has a transaction open for {row.age:.1f} s"
                for row in rows
            )

    async def _open(self, control: Control, side: Side, intent: Intent, began: float) -> None:
        """Open `side` and set the phase row. Where they are in one database that is one transaction."""
        await self._retried(lambda: self._open_mark(side, intent))
        await self._hook("cutover_mark_opened")
        await self._retried(lambda: self._set_phase(control, intent, began))

    async def _retried(self, work: Callable[[], Awaitable[None]]) -> None:
        """There is no way back from here but forward, and no authority until it is done: so try again for a while."""
        deadline = time.monotonic() + self._give_up_seconds
        while True:
            try:
                await work()
            except ConflictError:
                raise
            except Exception as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("cutover_held", service=self._runtime.service, error=type(error).__name__)
                await asyncio.sleep(0.1)
            else:
                return

    async def _open_mark(self, side: Side, intent: Intent) -> None:
        async with self._runtime.engines[side].begin() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._names.fence_lock})")
            opened = await connection.execute(
                text(
                    f"UPDATE {self._names.mark} SET state = 'open', epoch = :epoch WHERE epoch < :epoch RETURNING epoch"
                ),
                {"epoch": intent.epoch},
            )
            if opened.first() is not None:
                return
            row = (await connection.execute(text(f"SELECT state, epoch FROM {self._names.mark}"))).one()
        if (row.state, row.epoch) != ("open", intent.epoch):
            raise CutoverOvertakenError(f"the {side.value} side is in epoch {row.epoch} already")

    async def _set_phase(self, control: Control, intent: Intent, began: float) -> None:
        controls = self._runtime.controls
        async with self._runtime.engines[Side.NEW].begin() as connection:
            changed = await controls.change_phase(
                connection,
                intent.to,
                before=control,
                epoch=intent.epoch,
                by=intent.by,
                reason=intent.reason,
                forced=intent.forced,
                stall_ms=(time.monotonic() - began) * 1000,
            )
        if not changed:
            now = await controls.read()
            if (now.phase, now.epoch) != (intent.to, intent.epoch):
                raise CutoverOvertakenError(f"the phase is {now.phase.value} in epoch {now.epoch} already")
