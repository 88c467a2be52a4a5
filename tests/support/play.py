"""One generated schedule as it is played: who is under way, what was promised, and what has to hold in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Any

import asyncpg
from hypothesis import note

from backend.shared import ConflictError, DualWriteResult, FencedError, Side, SideError
from backend.shared.journal.carrier import TargetUnavailableError
from backend.shared.migration.backfill import Backfill
from backend.shared.migration.repair import Repairer
from backend.shared.migration.repair_results import RepairRequest
from backend.shared.observability.labels import Verdict
from backend.shared.stores.errors import is_database_error, may_pass
from backend.shared.sync_validator import SyncValidator
from backend.shared.validation.report import ValidationReport
from tests.support.actors import Actor, actors_hook, settle
from tests.support.audit import Event, disorder
from tests.support.changes import HISTORY, MEND, Change
from tests.support.people import PeopleManager
from tests.support.steps import Crash
from tests.support.world import Identity, World, identity

ACTORS_MOST = 6
SETTLE_SECONDS = 0.3
END_SECONDS = 40.0
_REFUSALS_OF_STRANGERS = (
    asyncpg.UniqueViolationError,
    asyncpg.ForeignKeyViolationError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
)


class Finale(Enum):
    """How those that are still held in the end are let go."""

    OLDEST_LAST = auto()
    NEWEST_LAST = auto()
    AFTER_A_RELAY = auto()
    """The oldest last, and after everything was carried that can be."""
    AFTER_A_BACKFILL = auto()
    """The oldest last, and after everything was copied that can be."""


@dataclass
class Play:
    """Everything is done on the loop of `world`. A check that fails raises out of whatever came upon it."""

    world: World
    actors: list[Actor] = field(default_factory=list)
    cuts: int = 0
    """How often connections were cut."""
    _tokens: int = 0
    _acknowledged: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)
    _history: set[Identity] = field(default_factory=set)
    _backfills: int = 0
    _openings: int = 0
    _backfilled: bool = False

    async def begin(self, rows: int) -> None:
        """Empty tables, or so many people with notes on the authoritative side that no journal knows of."""
        await self.world.clear()
        if rows:
            await self.world.strangers[self.world.source].execute(
                HISTORY[self.world.source].format(rows=rows)
            )
            await self.world.forget_changes()
            self._history = set(await self.world.state(self.world.source))

    # ---- who does what ----

    @property
    def under_way(self) -> int:
        """How many actors have not ended."""
        return sum(not actor.is_over for actor in self.actors)

    async def act(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        step: str | None = None,
        passing: int = 1,
        crashes: bool = False,
    ) -> None:
        """Begin a piece of work, if not too many are under way; it is held or crashes at the `passing`th `step`."""
        if self.under_way >= ACTORS_MOST:
            return
        actor = Actor(f"{name} {len(self.actors)}", step=step, passing=passing, crashes=crashes)
        self.actors.append(actor)
        actor.start(work())
        await self.settled()

    async def let_go(self, which: int, *, crash: bool) -> None:
        """Let one of those that are held go on, or die; nothing if there is none."""
        if held := [actor for actor in self.actors if actor.is_held]:
            actor = held[which % len(held)]
            note(f"{actor.name} goes on from {actor.step}")
            actor.let_go(crash=crash)
            await self.settled()

    async def cut(self, side: Side) -> None:
        """The server of `side` ends all connections of the engine."""
        self.cuts += 1
        await self.world.cut(side)

    async def let_all_go(self, *, newest_first: bool) -> None:
        """Let all go on, one after the other: of those that are let go last, what they know is the oldest or the newest."""
        held = [actor for actor in self.actors if actor.is_held]
        for actor in reversed(held) if newest_first else held:
            actor.let_go()
            await self.settled()

    async def settled(self) -> None:
        """Let everybody come as far as he comes."""
        await settle(self.actors, waiting_count=self.world.waiting_count, most_seconds=SETTLE_SECONDS)
        self._look_at_the_ended()

    def _look_at_the_ended(self) -> None:
        """Raise what an actor has raised, unless it died as it was told to, or could not have its way for a while."""
        for actor in self.actors:
            if not actor.is_over or actor.task is None:
                continue
            error = actor.task.exception()
            if error is None or isinstance(error, Crash):
                continue
            cause = error.cause if isinstance(error, TargetUnavailableError) else error
            if isinstance(cause, FencedError) and not self._openings:
                raise error
            away = isinstance(cause, SideError) and cause.unavailable
            if not away and not (is_database_error(cause) and may_pass(cause)):
                raise error

    async def write(self, manager: PeopleManager, unit: Sequence[Change]) -> None:
        """Run a unit of work; what it was told is held against the authoritative side in the end (I1)."""
        tokens: list[str] = []

        async def run(work: Any) -> list[str]:
            tokens[:] = [self._token() for _ in unit]
            return [token for change, token in zip(unit, tokens, strict=True) if await change(work, token)]

        cuts = self.cuts
        result: DualWriteResult[list[str]] = await manager.write("change", run)
        if result.success:
            written = result.unwrap()
            note(f"written: {written}, second write {result.second_write.value}")
            self._acknowledged |= set(written)
        elif cuts == self.cuts:
            self._refused |= set(tokens)

    async def stranger(self, side: Side, statement: str, a: int = 0, b: int = 0) -> None:
        """Another program runs `statement` on `side`."""
        try:
            async with self.world.strangers[side].acquire() as connection, connection.transaction():
                await connection.execute(statement.format(a=a, b=b, token=self._token()))
        except _REFUSALS_OF_STRANGERS as error:
            note(f"the stranger was refused: {type(error).__name__}")

    async def relay(self, manager: PeopleManager) -> None:
        """One pass; what waits is due by now."""
        await self.world.time_passes()
        note(f"relay: {await manager.relay().run_once()}")

    async def backfill(self, chunk_rows: int) -> None:
        """A backfill that runs to its end; another one may have begun anew by then."""
        self._backfills += 1
        begun = self._backfills
        work = Backfill(
            self.world.asynchronous.runtime,
            chunk_seconds=0.001,
            first_chunk_rows=chunk_rows,
            hook=actors_hook,
        )
        try:
            found = await work.run()
        except ConflictError:
            assert self._backfills > begun
            return
        assert found.is_complete or self._backfills > begun
        self._backfilled = True

    async def repair(self) -> None:
        """A repair of what validators have found, if they have found anything."""
        repairer = Repairer(self.world.asynchronous.runtime, patience_seconds=0.05, batch_keys=2)
        with suppress(ConflictError):
            note(f"repair: {await repairer.run(RepairRequest(by='tester'))}")

    async def begin_of_a_cutover(self) -> None:
        """The secondary is opened, and closed again; whatever is carried meanwhile has to be given up."""
        self._openings += 1
        with suppress(asyncpg.LockNotAvailableError):
            await self.world.open_target()
            await actors_hook("opened")
            await self.world.close_target()

    async def validate(self, *, changed: bool, alone: bool) -> None:
        """A validator must have a reason for what it reports (I5); if it is `alone` to its end, that is known exactly."""
        begun, excused = len(self.actors), await self._not_arrived()
        validator = SyncValidator(self.world.asynchronous.runtime, chunk_rows=2)
        report = await validator.run(changed=changed, patience_seconds=0.05, resume=not alone)
        reported = {(entity.entity, found.key) for entity in report.entities for found in entity.mismatches}
        note(f"validator: {report.verdict.value} {sorted(reported)}")
        excused |= await self._corrupted() | await self.world.failed(ever=True)
        assert reported <= excused, f"reported without a reason: {reported - excused}"
        alone = alone and begun == len(self.actors) and await self.world.target_is_closed()
        if alone and not changed:
            await self._is_exact(report, reported)

    def _token(self) -> str:
        self._tokens += 1
        return f"v{self._tokens}"

    # ---- what has to hold ----

    async def _is_exact(self, report: ValidationReport, reported: set[Identity]) -> None:
        """Nobody else does anything, so it is known what there is to report."""
        differing, journalled = await self.world.differing(), await self.world.journalled()
        failed = await self.world.failed()
        due, moving = (differing - journalled) | failed, (differing & journalled) - failed
        assert reported == due, f"reported {reported}, but {due} differ"
        assert sum(entity.moving for entity in report.entities) == len(moving), f"{moving} are on their way"

    async def _corrupted(self) -> set[Identity]:
        """What others than the engine have ever changed on the secondary."""
        return _identities(e for e in await self.world.audit(self.world.target) if not e.by_engine)

    async def _not_arrived(self) -> set[Identity]:
        """History that no carry and no copy has brought yet."""
        if self._backfilled:
            return set()
        return self._history - _identities(
            e for e in await self.world.audit(self.world.target) if e.by_engine
        )

    async def end(self, finale: Finale) -> None:
        """Let go of all, and come to rest: both sides are equal then, and never was anything lost or older."""
        async with asyncio.timeout(END_SECONDS):
            if finale is Finale.AFTER_A_RELAY:
                await self.act("relay", partial(self.relay, self.world.asynchronous))
            elif finale is Finale.AFTER_A_BACKFILL:
                await self.act("backfill", partial(self.backfill, 4))
            await self.let_all_go(newest_first=finale is not Finale.NEWEST_LAST)
            for actor in self.actors:
                actor.let_go()
            if tasks := [actor.task for actor in self.actors if actor.task is not None]:
                await asyncio.wait(tasks)
            self._look_at_the_ended()
            if self._openings:
                await self.world.close_target()
            if self.cuts:
                await self.world.reconnect()
            await self.stranger(self.world.source, MEND[self.world.source])
            await self._drain()
            excused = await self._not_arrived() | await self._corrupted()
            lost = await self.world.differing() - excused
            assert not lost, f"lost, though the journal is empty: {lost}"
            await self._all_is_mended()
        await self._nothing_went_back()

    async def give_up(self) -> None:
        """Leave nothing behind for the next schedule."""
        tasks = [actor.task for actor in self.actors if actor.task is not None]
        for task in tasks:
            task.cancel()
        await self.world.forget_connections()
        if tasks:
            await asyncio.wait(tasks, timeout=END_SECONDS)

    async def _drain(self) -> None:
        while True:
            await self.world.time_passes()
            with suppress(TargetUnavailableError):
                done = await self.world.asynchronous.relay().run_once()
                if not done.rows and not await self.world.journalled():
                    return
            await asyncio.sleep(0)

    async def _all_is_mended(self) -> None:
        """By a backfill from the first key to the last: it may have taken up one that had passed the corruption by."""
        for _ in range(2 if await self._corrupted() else 1):
            await self.backfill(4)
            await self._drain()
        different, failed = await self.world.differing(), await self.world.failed()
        assert not different, f"different after a backfill: {different}"
        assert not failed, f"FAILED after a backfill: {failed}"
        report = await SyncValidator(self.world.asynchronous.runtime).run(patience_seconds=2, resume=False)
        assert report.verdict is Verdict.EQUAL, f"equal, but the validator says: {report}"

    async def _nothing_went_back(self) -> None:
        source, target = [await self.world.audit(side) for side in (self.world.source, self.world.target)]
        found, unfenced = disorder(source, target), await self.world.unfenced()
        assert not found, found
        assert not unfenced, f"carried to a side that was open: {unfenced}"
        kept = "".join(event.image or "" for event in source)
        lost = {token for token in self._acknowledged if f'"{token}"' not in kept}
        kept_all_the_same = {token for token in self._refused if f'"{token}"' in kept}
        assert not lost, f"told, and not kept: {lost}"
        assert not kept_all_the_same, f"refused, and kept: {kept_all_the_same}"


def _identities(events: Iterable[Event]) -> set[Identity]:
    return {identity("note" if event.row[0] == "note" else "person", event.row[1]) for event in events}
