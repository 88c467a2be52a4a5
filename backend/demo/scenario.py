"""The demo from end to end: a private stack, traffic under faults, and both sides held against the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.legacy_shop.report import LoadReport
from backend.shared.cli.services import manager_class
from backend.shared.domain.errors import ConfigurationError
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.sync_validator import SyncValidator
from backend.shared.validation.report import EntityReport, ValidationReport

from .audit import audit
from .backfills import Backfills
from .display import Display
from .errors import StepError
from .faults import Faults
from .ledger import Ledger, Lost
from .old_writer import OldWriter
from .registry import RegisteredService
from .report import DemoReport
from .shop import Shop
from .stack import Stack
from .staff import Credentials
from .steps import ShopSource
from .traffic import CUSTOMERS, STAFF, Traffic
from .waiting import to_the_end
from .watch import JournalWatch

OLD_PROGRAM_WRITES_PER_SECOND = 20.0
NEEDED_SERVICES = frozenset({"auth", "product", "cart"})
_TICK_SECONDS = 0.25
Managers = Mapping[str, DualWriteManager]


async def _nothing(_stack: Stack) -> None:
    """Tests put a corrupted row here."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What to run. Traffic lasts `seconds`, or until all faults are over, whichever is later."""

    source: ShopSource = field(default_factory=ShopSource)
    seconds: float = 40.0
    customers: int = CUSTOMERS
    before_comparison: Callable[[Stack], Awaitable[None]] = _nothing


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What traffic and comparison left behind."""

    ledger: Ledger
    shop: Shop
    traffic: Traffic
    faults: Faults
    old: OldWriter
    watch: JournalWatch
    backfills: Backfills
    traffic_seconds: float


class Demo:
    """One run. Everything lies under `folder`, which must be a place that the servers' account can reach."""

    def __init__(self, options: DemoOptions, *, folder: Path, display: Display) -> None:
        self._options = options
        self._display = display
        self._stack = Stack(folder, data=folder / "data", say=display.step)
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
                outcome = await self._work(managers)
                report = await self._compare(managers, outcome, load, started)
                self._display.step("stopping everything")
            self._display.steps_done()
        return report

    @asynccontextmanager
    async def _manager(self, member: RegisteredService) -> AsyncIterator[DualWriteManager]:
        settings = DualWriteSettings.from_env(member.name, self._stack.child_env(member))
        manager = manager_class(member.name)(settings=settings)
        try:
            yield manager
        finally:
            await manager.close()

    async def _work(self, managers: Managers) -> _Outcome:
        """Traffic, the old program, the backfills and the faults, side by side."""
        seconds, env = self._options.seconds, self._stack.env
        faults = Faults(self._stack, seconds=seconds, say=self._display.say)
        ledger, watch = Ledger(), JournalWatch(managers)
        backfills = Backfills(self._stack, managers, seconds=seconds, say=self._display.say)
        shop = Shop(
            {member.name: env[f"{member.variable_prefix}_URL"] for member in self._stack.members},
            connections=self._options.customers + STAFF,
            fault_is_on=lambda: faults.is_on,
        )
        credentials = Credentials(email=env["TANDEM_ADMIN_EMAIL"], password=env["TANDEM_ADMIN_PASSWORD"])
        traffic = Traffic(
            shop,
            ledger,
            seed=self._options.source.seed,
            credentials=credentials,
            customers=self._options.customers,
        )
        old = self._old_writer(ledger)
        async with shop, traffic, _background(watch.run()) as watching:
            await self._start_old_program(old)
            await traffic.start()
            began = time.monotonic()
            outcome = _Outcome(
                ledger=ledger,
                shop=shop,
                traffic=traffic,
                faults=faults,
                old=old,
                watch=watch,
                backfills=backfills,
                traffic_seconds=0,
            )
            try:
                async with _background(faults.run()) as breaking, _background(backfills.run()) as moving:
                    works = (breaking, moving)
                    while (past := time.monotonic() - began) < seconds or not all(
                        work.done() for work in works
                    ):
                        self._check(outcome, watching, *works)
                        self._display.progress(
                            done=past, total=seconds, figures=_figures(outcome), bars=backfills.bars()
                        )
                        await asyncio.sleep(_TICK_SECONDS)
                    for work in works:
                        work.result()
            finally:
                await to_the_end(backfills.close())
            self._display.step("letting everybody finish")
            await traffic.stop()
            await old.stop()
            del self._stack.processes[old.process.name]
        return _Outcome(**{**vars(outcome), "traffic_seconds": time.monotonic() - began})

    def _old_writer(self, ledger: Ledger) -> OldWriter:
        return OldWriter(
            ledger,
            services=[member.name for member in self._stack.members],
            env=self._stack.env,
            folder=self._stack.logs,
            seed=self._options.source.seed,
            writes_per_second=OLD_PROGRAM_WRITES_PER_SECOND,
        )

    async def _start_old_program(self, old: OldWriter) -> None:
        """Before all traffic: it works on rows that are there when it begins, which then are nobody else's."""
        self._stack.processes[old.process.name] = old.process
        old.start()
        while not old.has_begun:  # noqa: ASYNC110 - another process rings no bell
            await asyncio.sleep(_TICK_SECONDS)

    def _check(self, outcome: _Outcome, *tasks: asyncio.Task[None]) -> None:
        """Raise what anything that runs beside failed with."""
        outcome.old.read()
        outcome.traffic.check()
        for task in tasks:
            if task.done():
                task.result()
        if outcome.faults.current is None:
            dead = [name for name, process in self._stack.processes.items() if not process.is_running]
            if dead:
                raise StepError(f"{dead[0]} ended by itself; its log is {self.logs / dead[0]}.log")

    async def _compare(
        self, managers: Managers, outcome: _Outcome, load: LoadReport, started: float
    ) -> DemoReport:
        self._display.step("draining the journals")
        began = time.monotonic()
        drained = await outcome.watch.drained()
        drain_seconds = time.monotonic() - began
        await self._options.before_comparison(self._stack)
        self._display.step("comparing all rows of both sides")
        validation = await _validate(managers)
        self._display.step("holding the ledger against both sides")
        lost = await audit(outcome.ledger, managers)
        return _report(outcome, load, lost, validation, drained=(drained, drain_seconds), started=started)


async def _validate(managers: Managers) -> ValidationReport:
    entities: list[EntityReport] = []
    for manager in managers.values():
        await manager.start()
        entities += (await SyncValidator(manager.runtime).run()).entities
    return ValidationReport(entities=tuple(entities))


def _report(
    outcome: _Outcome,
    load: LoadReport,
    lost: list[Lost],
    validation: ValidationReport,
    *,
    drained: tuple[bool, float],
    started: float,
) -> DemoReport:
    market, ledger, watch = outcome.traffic.market, outcome.ledger, outcome.watch
    return DemoReport(
        load=load,
        seed=load.seed,
        traffic_seconds=outcome.traffic_seconds,
        duration_seconds=time.monotonic() - started,
        writes_by_source=ledger.by_source,
        writes_acknowledged=ledger.acknowledged_count,
        writes_in_doubt=ledger.in_doubt_count,
        lost=lost,
        checked_reads=market.checked_reads,
        wrong_answer_count=market.wrong_answer_count,
        wrong_answers=market.wrong_answers,
        http=outcome.shop.tally,
        faults=outcome.faults.done,
        backfill=outcome.backfills.to_dict(),
        relay_max_lag_seconds=watch.max_lag_seconds,
        relay_lag_by_service={service: peak.lag_seconds for service, peak in watch.peaks.items()},
        drained=drained[0],
        drain_seconds=drained[1],
        failures_open=watch.failures_open,
        validation=validation,
        old_program=outcome.old.summary,
    )


def _figures(outcome: _Outcome) -> dict[str, str]:
    tally, watch = outcome.shop.tally, outcome.watch
    sources = ", ".join(f"{name} {count:,}" for name, count in outcome.ledger.by_source.items())
    lags = ", ".join(
        f"{service} {depth.lag_seconds:.1f} s ({depth.rows})" for service, depth in watch.depths.items()
    )
    return {
        "acknowledged": sources,
        "requests": f"{tally.requests:,}, server errors {tally.server_error_count}, in doubt {outcome.ledger.in_doubt_count}",
        "lag (journal rows)": lags,
        "fault": outcome.faults.current or "",
    }


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """`work` as a task that is over when the block is left."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
