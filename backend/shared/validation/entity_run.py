"""One entity from its first key to its last, and what has been found on the way."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from backend.shared.domain.phases import Side
from backend.shared.journal.carrier import Hook
from backend.shared.observability.labels import RunKind, Verdict
from backend.shared.stores.protocol import Position
from backend.shared.validation.keeper import RunKeeper, Settled
from backend.shared.validation.mismatches import MISMATCHES_KEPT
from backend.shared.validation.plans import EntityPlan
from backend.shared.validation.recheck import Look, Recheck
from backend.shared.validation.report import EntityReport, Mismatch, MismatchKind
from backend.shared.validation.run_records import EntityProgress
from backend.shared.validation.suspects import LOOKED_AT_ONCE, Suspects
from backend.shared.validation.walk import ChunkResult

BY_NAME_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: rows of the source compared of about `expected`, and keys found to differ."""

    entity: str
    rows: int
    expected: int | None
    mismatches: int
    finished: bool = False


Tell = Callable[[Progress], None]


class Comparer(Protocol):
    """Finds keys of one entity that seem to differ."""

    def chunks(
        self, *, after: str | None = None, share: float = 1.0, seed: int = 0
    ) -> AsyncGenerator[ChunkResult, None]:
        """Compare all keys behind `after`, or about a `share` of them, chunk by chunk."""
        ...

    async def among(self, keys: Sequence[str]) -> ChunkResult:
        """Compare `keys` only."""
        ...


@dataclass
class EntityRun:
    """Compares one entity once, as `plan` says. Memory is bounded, whatever the size of the tables.

    `expected` is the number of rows that there are, about. `hook` is called after each chunk.
    """

    recheck: Recheck
    comparer: Comparer
    plan: EntityPlan
    keeper: RunKeeper
    listed: int
    patience_seconds: float
    began_at: Position
    expected: int | None
    tell: Tell
    hook: Hook
    _rows: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))
    _kinds: dict[MismatchKind, int] = field(default_factory=lambda: dict.fromkeys(MismatchKind, 0))
    _mismatches: dict[str, Mismatch] = field(default_factory=dict)
    _convicted: set[str] = field(default_factory=set)
    """Keys of the range in hand that differ: it may be told of twice, once by each table."""
    _by_name: set[str] = field(default_factory=set)
    _unkept: list[Mismatch] = field(default_factory=list)
    _kept_count: int = 0
    _among_failures: bool = False
    _resume_at: str | None = None
    _exhausted: bool = False
    _began: float = field(default_factory=time.monotonic)

    async def run(self, *, run_verdict: Callable[[EntityReport], Verdict] | None = None) -> EntityReport:
        """Compare what the plan says, and keep it. `run_verdict` is given with the last entity: it ends the run.

        Raises `SideError` if a side does not answer, `UnreadableRowError` if keys cannot be read, `RunTakenOverError` if
        another process has taken up this run.
        """
        suspects = Suspects(self.recheck, self._convict, self.patience_seconds)
        self._take_up()
        await self._compare_by_name(suspects)
        if self.plan.scope is not RunKind.CHANGED and not self._exhausted:
            await self._compare_chunks(suspects)
        # Keys with an open failure differ even where the rows happen to be equal. They are counted here and nowhere else.
        self._among_failures = True
        async for failed in self._failed_keys():
            await suspects.add(failed)
        await self._progressed(suspects)
        await suspects.settle()
        return await self._finish(suspects, run_verdict)

    def _take_up(self) -> None:
        before = self.plan.taken_up
        if before is not None:
            self._resume_at, self._exhausted = before.resume_at, before.exhausted
            self._rows = {side: before.counts.get(f"rows_{side.value}", 0) for side in Side}

    async def _compare_by_name(self, suspects: Suspects) -> None:
        keys = self.plan.by_name
        for start in range(0, len(keys), BY_NAME_AT_ONCE):
            found = await self.comparer.among(keys[start : start + BY_NAME_AT_ONCE])
            if self.plan.scope is RunKind.CHANGED:
                self._count(found)
            await suspects.add(found.suspects)
            await self._progressed(suspects)
        self._by_name, self._convicted = self._convicted, set()

    async def _compare_chunks(self, suspects: Suspects) -> None:
        run = self.keeper.run
        chunks = self.comparer.chunks(after=self._resume_at, share=run.share, seed=run.seed)
        async with aclosing(chunks):
            async for chunk in chunks:
                self._count(chunk)
                await suspects.add(chunk.suspects)
                if (chunk.resume_at or None) != (self._resume_at or None):
                    self._convicted.clear()
                self._resume_at, self._exhausted = chunk.resume_at, chunk.resume_at is None
                await self._progressed(suspects)
                await self.hook("validator_chunk_compared")

    def _count(self, chunk: ChunkResult) -> None:
        direction = self.recheck.sides.direction
        self._rows[direction.source] += chunk.source_rows
        self._rows[direction.target] += chunk.target_rows

    async def _progressed(self, suspects: Suspects) -> None:
        """Tell of the progress, and keep it about every second."""
        self.tell(self._state_of_progress())
        self.keeper.check()
        if self.keeper.is_due:
            found, self._unkept = self._unkept, []
            await self.keeper.save(self._progress(suspects), found)

    def _state_of_progress(self, *, finished: bool = False) -> Progress:
        return Progress(
            entity=self.plan.entity,
            rows=self._rows[self.recheck.sides.direction.source],
            expected=self.expected,
            mismatches=sum(self._kinds.values()),
            finished=finished,
        )

    def _progress(self, suspects: Suspects) -> EntityProgress:
        before = self.plan.taken_up.seconds if self.plan.taken_up else 0.0
        counts = {f"rows_{side.value}": count for side, count in self._rows.items()}
        counts |= {kind.value: count for kind, count in self._kinds.items() if count}
        if self.plan.scope is RunKind.CHANGED:
            counts["keys_changed"] = len(self.plan.by_name)
        return EntityProgress(
            entity=self.plan.entity,
            scope=self.plan.scope,
            mapping=self.plan.mapping,
            began_at=self.began_at,
            resume_at=self._resume_at,
            exhausted=self._exhausted,
            waiting=suspects.undecided,
            overflowed=not self._all_kept or not suspects.all_named,
            counts=counts,
            seconds=before + time.monotonic() - self._began,
        )

    @property
    def _all_kept(self) -> bool:
        return self._kept_count == sum(self._kinds.values())

    async def _failed_keys(self) -> AsyncIterator[list[str]]:
        """Keys with an open failure, some at a time; those that fail while this runs are left to the next run."""
        if self.plan.failed is not None:
            for start in range(0, len(self.plan.failed), LOOKED_AT_ONCE):
                yield list(self.plan.failed[start : start + LOOKED_AT_ONCE])
            return
        async for page in self.recheck.failed_pages():
            yield page

    def _convict(self, look: Look) -> None:
        known = look.key in self._mismatches or look.key in self._convicted or look.key in self._by_name
        if (look.failed and not self._among_failures) or known:
            return
        self._convicted.add(look.key)
        self._kinds[self.recheck.kind(look)] += 1
        if len(self._mismatches) < self.listed or self._kept_count < MISMATCHES_KEPT:
            found = self.recheck.mismatch(look)
            if len(self._mismatches) < self.listed:
                self._mismatches[look.key] = found
            if self._kept_count < MISMATCHES_KEPT:
                self._kept_count += 1
                self._unkept.append(found)

    async def _finish(
        self, suspects: Suspects, run_verdict: Callable[[EntityReport], Verdict] | None
    ) -> EntityReport:
        progress = self._progress(suspects)
        report = self._report(moving=suspects.still_moving, seconds=progress.seconds)
        found, self._unkept = self._unkept, []
        changes = await self.keeper.finish(
            replace(progress, verdict=report.verdict, exhausted=True),
            found,
            Settled(
                looked_at=self.plan.looked_at,
                moving=suspects.undecided,
                countable=self._all_kept and suspects.all_named,
            ),
            verdict=run_verdict(report) if run_verdict else None,
        )
        self.tell(self._state_of_progress(finished=True))
        return replace(report, changes=changes)

    def _report(self, *, moving: int, seconds: float) -> EntityReport:
        kinds = self._kinds
        return EntityReport(
            service=self.recheck.names.service,
            entity=self.plan.entity,
            rows_legacy=self._rows[Side.LEGACY],
            rows_new=self._rows[Side.NEW],
            missing_in_new=kinds[MismatchKind.MISSING_IN_NEW],
            missing_in_legacy=kinds[MismatchKind.MISSING_IN_LEGACY],
            different=kinds[MismatchKind.DIFFERENT]
            + kinds[MismatchKind.FAILED]
            + kinds[MismatchKind.UNREADABLE],
            moving=moving,
            duration_seconds=seconds,
            mismatches=tuple(self._mismatches.values()),
            scope=self.plan.scope,
            share=self.keeper.run.share,
            since_run=self.plan.since_run,
            keys_changed=len(self.plan.by_name) if self.plan.scope is RunKind.CHANGED else 0,
            rows_expected=self.expected,
            run_id=self.keeper.run.id,
        )
