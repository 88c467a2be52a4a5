"""Keeps a run while it is under way, so that another process can take it up where it was left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.errors import SideError
from backend.shared.observability.labels import RunKind, Verdict
from backend.shared.validation.mismatches import MismatchRepository
from backend.shared.validation.report import Mismatch, MismatchChanges
from backend.shared.validation.run_records import EntityProgress, KeptRun, RunTakenOverError
from backend.shared.validation.runs import HEARTBEAT_SECONDS, RunRepository

LAST_WORDS_SECONDS = 2.0
"""How long a run that ends before its time tries to say so. If it cannot, its silence says the same, a little later."""
PRUNED_EVERY_RUNS = 20


@dataclass(frozen=True, kw_only=True)
class Settled:
    """An entity at its end: how each of its kept mismatches was looked at, and which keys are still moving.

    `looked_at` are keys of mismatches that this part of the run has looked at by name. `countable`: all that was found is
    kept, so what was not found is not there.
    """

    looked_at: Sequence[str]
    moving: Sequence[str]
    countable: bool


class RunKeeper:
    """A run in hand, as a context: gives signs of life, and leaves the run to others when it ends before its time."""

    def __init__(self, runs: RunRepository, mismatches: MismatchRepository, run: KeptRun) -> None:
        self._runs = runs
        self._mismatches = mismatches
        self.run = run
        self._heart: asyncio.Task[None] | None = None
        self._lost: RunTakenOverError | None = None
        self._kept_at = time.monotonic()
        self._finished = False

    async def __aenter__(self) -> Self:
        self._heart = asyncio.ensure_future(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._heart is not None:
            self._heart.cancel()
            with suppress(asyncio.CancelledError):
                await self._heart
        if isinstance(error, Exception | asyncio.CancelledError) and not self._finished:
            with suppress(SideError, TimeoutError):
                async with asyncio.timeout(LAST_WORDS_SECONDS):
                    await self._runs.interrupt(self.run)

    @property
    def is_due(self) -> bool:
        """Whether it is time to keep progress."""
        return time.monotonic() - self._kept_at >= HEARTBEAT_SECONDS

    def check(self) -> None:
        """Raise `RunTakenOverError` if another process has taken up this run."""
        if self._lost is not None:
            raise self._lost

    async def save(self, progress: EntityProgress, found: Sequence[Mismatch]) -> None:
        """Keep how far an entity has come, with what was found on the way there: all in one transaction."""
        self.check()
        async with self._runs.transaction() as connection:
            await self._runs.hold(connection, self.run)
            await self._runs.save(connection, self.run, progress)
            if found:
                await self._mismatches.keep(
                    connection, run_id=self.run.id, entity=progress.entity, found=found
                )
        self._kept_at = time.monotonic()

    async def finish(
        self,
        progress: EntityProgress,
        found: Sequence[Mismatch],
        settled: Settled,
        *,
        verdict: Verdict | None,
    ) -> MismatchChanges:
        """Keep an entity that is at its end and, with `verdict`, the run's end too: all in one transaction."""
        self.check()
        changes, run, entity = MismatchChanges(), self.run, progress.entity
        async with self._runs.transaction() as connection:
            if verdict is None:
                await self._runs.hold(connection, run)
            else:
                await self._runs.finish(connection, run, verdict)
            await self._runs.save(connection, run, progress)
            if found:
                await self._mismatches.keep(connection, run_id=run.id, entity=entity, found=found)
            if settled.countable:
                await self._end_gone(connection, progress, settled)
            if found or settled.looked_at or progress.scope is RunKind.FULL:
                changes = await self._mismatches.changes(connection, run_id=run.id, entity=entity)
            if verdict is not None and run.id % PRUNED_EVERY_RUNS == 0:
                await self._runs.prune(connection)
                await self._mismatches.prune(connection)
        self._finished = verdict is not None
        return changes

    async def _end_gone(
        self, connection: AsyncConnection, progress: EntityProgress, settled: Settled
    ) -> None:
        """End the kept mismatches that this run would have found again, had they been there."""
        run, entity = self.run, progress.entity
        if settled.looked_at:
            await self._mismatches.end(
                connection,
                run_id=run.id,
                entity=entity,
                last_seen_before=run.read_at,
                moving=settled.moving,
                among=settled.looked_at,
            )
        if progress.scope is RunKind.FULL:
            await self._mismatches.end(
                connection,
                run_id=run.id,
                entity=entity,
                last_seen_before=run.started_at,
                moving=settled.moving,
            )

    async def _beat(self) -> None:
        """Give signs of life also while one statement takes long."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self._runs.beat(self.run)
            except RunTakenOverError as error:
                self._lost = error
                return
            except SideError:
                continue  # whoever compares will hear of it too
