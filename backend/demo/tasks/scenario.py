"""The task service's demo from end to end: a private stack, traffic under faults through all phases, both sides held against the ledger."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.demo.backfills import Backfills
from backend.demo.comparison import Comparison
from backend.demo.display import Display
from backend.demo.frame import GATE_SETTINGS, common_figures, perform, report_on
from backend.demo.ledger import Ledger
from backend.demo.operator import Operator
from backend.demo.phase_walk import PhaseWalk
from backend.demo.shop import Shop
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
from .story import TasksCast, TasksStory
from .traffic import CLERKS, PEOPLE, TaskTraffic

SETTINGS = {**GATE_SETTINGS, "DUAL_WRITE_VALIDATE_SYNC": "false"}
"""The story itself says when all is compared."""


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
                report = report_on(
                    cast,
                    TasksReport,
                    seed=load.seed,
                    started=started,
                    load=load,
                    misfits=cast.mender.listing,
                )
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

    def _cast(self, manager: DualWriteManager, load: DocumentLoadReport) -> TasksCast:
        stack, options, say = self._stack, self._options, self._display.say
        managers = {SERVICE: manager}
        faults, operator = TaskFaults(stack, say=say), Operator(stack)
        ledger, watch = Ledger(), JournalWatch(managers)
        shop = Shop(
            {SERVICE: stack.urls},
            connections=options.people + CLERKS,
            fault_is_on=lambda: faults.is_on,
            documents_are_held=lambda: faults.documents_are_held,
        )
        return TasksCast(
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

    async def _work(self, cast: TasksCast) -> None:
        """Traffic and the story, side by side."""
        options = self._options
        story = TasksStory(
            self._stack,
            cast,
            seconds=options.seconds,
            before_comparison=lambda: options.before_comparison(self._stack),
            say=self._display.say,
        )
        await perform(story, display=self._display, figures=lambda: _figures(cast))


def _figures(cast: TasksCast) -> dict[str, str]:
    return {"phase": cast.walk.phases[SERVICE].value, **common_figures(cast)}
