"""The task service's demo from end to end: a private stack, traffic under faults through all phases, both sides held against the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.demo.backfills import Backfills
from backend.demo.comparison import Comparison
from backend.demo.display import Display
from backend.demo.errors import StepError
from backend.demo.ledger import Ledger
from backend.demo.operator import Operator
from backend.demo.phase_walk import PhaseWalk
from backend.demo.scenario import GATE_SETTINGS
from backend.demo.shop import Shop
from backend.demo.waiting import background, to_the_end
from backend.demo.watch import JournalWatch
from backend.legacy_documents import DocumentLoadReport
from backend.shared.cli.services import manager_class
from backend.shared.domain.phases import Phase
from backend.shared.dual_write_manager import DualWriteManager

from .audit import audit, collection_prints
from .faults import TaskFaults
from .mending import Mender
from .misfits import names_of
from .report import TasksReport
from .stack import SERVICE, TaskStack
from .story import Cast, Story
from .traffic import CLERKS, PEOPLE, TaskTraffic

SETTINGS = {**GATE_SETTINGS, "DUAL_WRITE_VALIDATE_SYNC": "false"}
"""The story itself says when all is compared."""
_TICK_SECONDS = 0.25


async def _nothing(_stack: TaskStack) -> None:
    """Tests write here what nobody should."""


@dataclass(frozen=True, kw_only=True)
class TasksOptions:
    """What to run; `size` is about how many documents, None as many as the generator makes by itself.

    The faults while history is moved are spread over `seconds`.
    """

    seed: int = 1
    size: int | None = None
    seconds: float = 20.0
    people: int = PEOPLE
    before_comparison: Callable[[TaskStack], Awaitable[None]] = _nothing
    before_end: Callable[[TaskStack], Awaitable[None]] = _nothing


class TasksDemo:
    """One run. Everything lies under `folder`, which must be a place that the servers' account can reach."""

    def __init__(self, options: TasksOptions, *, folder: Path, display: Display) -> None:
        self._options = options
        self._display = display
        self._stack = TaskStack(folder, settings=SETTINGS, say=display.step)
        self.logs = self._stack.logs

    async def run(self) -> TasksReport:
        """Run from end to end. Whatever happens, nothing runs afterwards; the folder is left to the caller.

        Raises `TandemError` when something could not be done at all.
        """
        started = time.monotonic()
        with self._display.open():
            async with self._stack:
                load = await self._stack.setup(seed=self._options.seed, size=self._options.size)
                self._display.steps_done()
                async with self._manager() as manager:
                    cast = self._cast(manager, load)
                    await self._work(cast)
                    await self._options.before_end(self._stack)
                    self._display.step("holding the ledger against the new side once more")
                    await cast.comparison.conclude()
                report = _report(cast, load, started=started)
                self._display.step("stopping everything")
            self._display.steps_done()
        return report

    @asynccontextmanager
    async def _manager(self) -> AsyncIterator[DualWriteManager]:
        manager = manager_class(SERVICE)(settings=self._stack.dual_write_settings())
        manager.counted = False  # it only looks, but for what it mends: no change of a phase need wait for it
        try:
            yield manager
        finally:
            await manager.close()

    def _cast(self, manager: DualWriteManager, load: DocumentLoadReport) -> Cast:
        stack, options, say = self._stack, self._options, self._display.say
        managers = {SERVICE: manager}
        faults, operator = TaskFaults(stack, say=say), Operator(stack)
        ledger, watch = Ledger(), JournalWatch(managers)
        shop = Shop(
            {SERVICE: stack.urls},
            connections=options.people + CLERKS,
            fault_is_on=lambda: faults.is_on,
        )
        return Cast(
            ledger=ledger,
            shop=shop,
            traffic=TaskTraffic(
                shop,
                ledger,
                seed=options.seed,
                make_token=stack.token,
                avoided=[name for misfit in load.misfits for name in names_of(misfit)],
                people=options.people,
            ),
            faults=faults,
            watch=watch,
            backfills=Backfills(stack, managers, seconds=None, say=say),
            operator=operator,
            walk=PhaseWalk([SERVICE], first=Phase.OFF, run=operator.run, quiet=faults.quiet, say=say),
            mender=Mender(manager, operator, ledger, misfits=load.misfits, say=say),
            comparison=Comparison(
                managers,
                audit=lambda sides: audit(ledger, stack, sides=sides),
                prints=lambda _: collection_prints(stack.env["LEGACY_DATABASE_URL"]),
                watch=watch,
            ),
        )

    async def _work(self, cast: Cast) -> None:
        """Traffic and the story, side by side, and an eye on both."""
        story = Story(
            self._stack,
            cast,
            seconds=self._options.seconds,
            before_comparison=self._options.before_comparison,
            say=self._display.say,
        )
        async with cast.shop, cast.traffic, background(cast.watch.run()) as watching:
            await cast.traffic.start()
            cast.traffic_began = time.monotonic()
            cast.faults.begin()
            try:
                async with background(story.run()) as telling:
                    while not telling.done():
                        self._check(cast, watching)
                        self._show(cast, story)
                        await asyncio.wait({telling}, timeout=_TICK_SECONDS)
                    telling.result()
            finally:
                await to_the_end(cast.backfills.close())
            self._display.step("letting everybody finish")
            await cast.traffic.stop()
            cast.traffic_seconds = time.monotonic() - cast.traffic_began

    def _check(self, cast: Cast, watching: asyncio.Task[None]) -> None:
        """Raise what anything that runs beside failed with."""
        cast.traffic.check()
        if watching.done():
            watching.result()
        if cast.faults.current is None:
            dead = [name for name, process in self._stack.processes.items() if not process.is_running]
            if dead:
                raise StepError(f"{dead[0]} ended by itself; its log is {self.logs / dead[0]}.log")

    def _show(self, cast: Cast, story: Story) -> None:
        tally, depth = cast.shop.tally, cast.watch.depths[SERVICE]
        sources = ", ".join(f"{name} {count:,}" for name, count in cast.ledger.by_source.items())
        self._display.progress(
            seconds=time.monotonic() - cast.traffic_began,
            act=story.act,
            figures={
                "phase": cast.walk.phases[SERVICE].value,
                "acknowledged": sources,
                "requests": f"{tally.requests:,}, server errors {tally.server_error_count}, in doubt {cast.ledger.in_doubt_count}",
                "lag (journal rows)": f"{depth.lag_seconds:.1f} s ({depth.rows})",
                "fault": cast.faults.current or "",
            },
            bars=cast.backfills.bars() if story.moves_history else {},
        )


def _report(cast: Cast, load: DocumentLoadReport, *, started: float) -> TasksReport:
    desk, ledger, watch, comparison = cast.traffic.desk, cast.ledger, cast.watch, cast.comparison
    return TasksReport(
        load=load,
        misfits=cast.mender.listing,
        seed=load.seed,
        traffic_seconds=cast.traffic_seconds,
        duration_seconds=time.monotonic() - started,
        writes_by_source=ledger.by_source,
        writes_acknowledged=ledger.acknowledged_count,
        writes_in_doubt=ledger.in_doubt_count,
        lost=comparison.lost,
        checked_reads=desk.checked_reads,
        wrong_answer_count=desk.wrong_answer_count,
        wrong_answers=desk.wrong_answers,
        http=cast.shop.tally,
        faults=cast.faults.done,
        backfill=cast.backfills.to_dict(),
        relay_max_lag_seconds=watch.max_lag_seconds,
        relay_lag_by_service={service: peak.lag_seconds for service, peak in watch.peaks.items()},
        drained=comparison.drained,
        drain_seconds=comparison.drain_seconds,
        failures_open=watch.failures_open,
        validation=comparison.validation,
        phase_changes=cast.walk.seen(cast.shop.log, traffic_began=cast.traffic_began),
        phases=comparison.phases,
        stuck=cast.walk.stuck,
        gates_forced=comparison.forced,
        legacy_written=comparison.legacy_written,
        conflicts_open=comparison.conflicts_open,
    )
