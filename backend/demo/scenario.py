"""The demo from end to end: a private stack, traffic under faults through all phases, both sides held against the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backend.shared.cli.services import manager_class
from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.phases import Phase
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.dual_write_manager import DualWriteManager

from .audit import audit
from .backfills import Backfills
from .comparison import Comparison
from .display import Display
from .errors import StepError
from .faults import Faults
from .frame import GATE_SETTINGS, common_figures, perform, report_on
from .ledger import Ledger
from .legacy_prints import legacy_prints
from .old_writer import OldWriter
from .operator import Operator
from .phase_walk import PhaseWalk
from .registry import RegisteredService
from .report import DemoReport
from .shop import Shop
from .stack import Stack
from .staff import Credentials
from .steps import ShopSource
from .story import ShopCast, ShopStory
from .traffic import CUSTOMERS, STAFF, Traffic
from .watch import JournalWatch

OLD_PROGRAM_WRITES_PER_SECOND = 20.0
NEEDED_SERVICES = frozenset({"auth", "product", "cart"})
REPLICAS = {"cart": 2}
_TICK_SECONDS = 0.25
Managers = Mapping[str, DualWriteManager]


async def _nothing(_stack: Stack) -> None:
    """Tests write here what nobody should."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What to run. The faults before the cutover are spread over `seconds`; the way through the phases comes on top."""

    source: ShopSource = field(default_factory=ShopSource)
    seconds: float = 20.0
    customers: int = CUSTOMERS
    before_comparison: Callable[[Stack], Awaitable[None]] = _nothing
    before_end: Callable[[Stack], Awaitable[None]] = _nothing


class Demo:
    """One run. Everything lies under `folder`, which must be a place that the servers' account can reach."""

    def __init__(self, options: DemoOptions, *, folder: Path, display: Display) -> None:
        self._options = options
        self._display = display
        self._stack = Stack(
            folder,
            data=folder / "data",
            phase=Phase.OFF,
            replicas=REPLICAS,
            settings=GATE_SETTINGS,
            say=display.step,
        )
        self.logs = self._stack.logs

    async def run(self) -> DemoReport:
        """Run from end to end. Whatever happens, nothing runs afterwards; the folder is left to the caller.

        Raises `TandemError` when something could not be done at all.
        """
        started = time.monotonic()
        missing = NEEDED_SERVICES - {member.name for member in self._stack.members}
        if missing:
            raise ConfigurationError(f"the demo needs services that are not installed: {', '.join(missing)}")
        with self._display.open():
            async with self._stack, AsyncExitStack() as exits:
                load = await self._stack.setup(self._options.source, backfill=False)
                self._display.steps_done()
                if load is None:
                    raise StepError("the folder of the demo holds a shop already")
                managers = {
                    member.name: await exits.enter_async_context(self._manager(member))
                    for member in self._stack.members
                }
                cast = self._cast(managers)
                await self._work(cast)
                await self._options.before_end(self._stack)
                self._display.step("holding the ledger against the new side once more")
                await cast.comparison.conclude()
                report = report_on(
                    cast, DemoReport, seed=load.seed, started=started, load=load, old_program=cast.old.summary
                )
                self._display.step("stopping everything")
            self._display.steps_done()
        return report

    @asynccontextmanager
    async def _manager(self, member: RegisteredService) -> AsyncIterator[DualWriteManager]:
        settings = DualWriteSettings.from_env(member.name, self._stack.child_env(member))
        manager = manager_class(member.name)(settings=settings)
        manager.counted = False  # it only looks: no change of a phase need wait for it
        try:
            yield manager
        finally:
            await manager.close()

    def _cast(self, managers: Managers) -> ShopCast:
        stack, env, options, say = self._stack, self._stack.env, self._options, self._display.say
        faults, operator = Faults(stack, say=say), Operator(stack)
        ledger, watch = Ledger(), JournalWatch(managers)
        shop = Shop(
            {member.name: stack.urls_of(member) for member in stack.members},
            connections=options.customers + STAFF,
            fault_is_on=lambda: faults.is_on,
        )
        credentials = Credentials(email=env["TANDEM_ADMIN_EMAIL"], password=env["TANDEM_ADMIN_PASSWORD"])
        return ShopCast(
            ledger=ledger,
            shop=shop,
            traffic=Traffic(
                shop,
                ledger,
                seed=options.source.seed,
                credentials=credentials,
                customers=options.customers,
            ),
            faults=faults,
            old=OldWriter(
                ledger,
                services=[member.name for member in stack.members],
                env=env,
                folder=stack.logs,
                seed=options.source.seed,
                writes_per_second=OLD_PROGRAM_WRITES_PER_SECOND,
            ),
            watch=watch,
            backfills=Backfills(stack, managers, seconds=options.seconds, killed="cart", say=say),
            operator=operator,
            walk=PhaseWalk(list(managers), first=Phase.OFF, run=operator.run, quiet=faults.quiet, say=say),
            comparison=Comparison(
                managers,
                audit=lambda sides: audit(ledger, managers, sides=sides),
                prints=legacy_prints,
                watch=watch,
            ),
        )

    async def _work(self, cast: ShopCast) -> None:
        """Traffic and the story, side by side."""
        await self._start_old_program(cast.old)
        options = self._options
        story = ShopStory(
            self._stack,
            cast,
            seconds=options.seconds,
            before_comparison=lambda: options.before_comparison(self._stack),
            say=self._display.say,
        )
        await perform(story, display=self._display, figures=lambda: _figures(cast))

    async def _start_old_program(self, old: OldWriter) -> None:
        """Before all traffic: it works on rows that are there when it begins, which then are nobody else's."""
        self._stack.processes[old.process.name] = old.process
        old.start()
        while not old.has_begun:  # noqa: ASYNC110 - another process rings no bell
            await asyncio.sleep(_TICK_SECONDS)


def _figures(cast: ShopCast) -> dict[str, str]:
    phases = ", ".join(f"{service} {phase.value}" for service, phase in cast.walk.phases.items())
    return {"phases": phases, **common_figures(cast)}
