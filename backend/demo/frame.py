"""What every demo is made of: who takes part, a story told beside the traffic, and an eye on both."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from backend.shared.testing.processes import ServiceProcess

from .backfills import Backfills
from .comparison import Comparison
from .crew import Crew
from .display import Display
from .errors import StepError
from .fault_log import FaultLog
from .ledger import Ledger
from .operator import Operator
from .phase_walk import PhaseWalk
from .run_report import RunReport
from .shop import Shop
from .waiting import all_at_once, background, to_the_end
from .watch import JournalWatch

SHADOW_READS = 20
"""How many compared reads a step up asks for; the default is more than so short a demo has."""
GATE_SETTINGS = {
    "DUAL_WRITE_LAG_WINDOW": "3",
    "DUAL_WRITE_MIN_SHADOW_READS": str(SHADOW_READS),
    "SHADOW_READ_SAMPLE_RATE": "1.0",
}
"""What of the gates does not fit into two minutes. None is forced."""
AFTER_SECONDS = 4.0
"""So long everybody goes on when all services are `complete`."""
VALIDATIONS = 5
VALIDATION_SECONDS = 900.0
_INCOMPLETE = 2
_TICK_SECONDS = 0.25

TrafficT = TypeVar("TrafficT", bound=Crew)
FaultsT = TypeVar("FaultsT", bound=FaultLog)
ReportT = TypeVar("ReportT", bound=RunReport)


class Staged(Protocol):
    """A stack: the processes that should run, by name, and where their logs lie."""

    processes: dict[str, ServiceProcess]

    @property
    def logs(self) -> Path:
        """The folder."""


@dataclass(kw_only=True)
class Cast(Generic[TrafficT, FaultsT]):
    """Who and what takes part."""

    ledger: Ledger
    shop: Shop
    traffic: TrafficT
    faults: FaultsT
    watch: JournalWatch
    backfills: Backfills
    operator: Operator
    walk: PhaseWalk
    comparison: Comparison
    traffic_began: float = 0.0
    traffic_seconds: float = 0.0


CastT = TypeVar("CastT", bound=Cast[Any, Any])


class Story(ABC, Generic[CastT]):
    """Told from beginning to end by `run`, beside the traffic. `act` says what it is at."""

    def __init__(
        self,
        stack: Staged,
        cast: CastT,
        *,
        act: str,
        before_comparison: Callable[[], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        self.act = act
        self.moves_history = False
        self.cast = cast
        self.say = say
        self._stack = stack
        self._before_comparison = before_comparison

    @abstractmethod
    async def run(self) -> None:
        """All of it. Raises `StepError` when something could not be done at all."""

    def check(self) -> None:
        """Raise what anything that runs beside failed with."""
        self.cast.traffic.check()
        if self.cast.faults.current is None:
            dead = [name for name, process in self._stack.processes.items() if not process.is_running]
            if dead:
                raise StepError(f"{dead[0]} ended by itself; its log is {self._stack.logs / dead[0]}.log")

    def begin(self, act: str) -> None:
        """The next act."""
        self.act = act
        self.say(act)

    async def all_answered(self) -> None:
        """Wait until nothing is under way that was so during the last change: a fault would be taken for its work."""
        await self.cast.traffic.hold()
        self.cast.traffic.go_on()

    async def validate(self, *services: str) -> None:
        """`tandem validate`, all at once. What it finds is for the gates to judge."""
        await self.cast.faults.quiet()
        await all_at_once(*(self._validate_one(service) for service in services))

    async def compare(self, *, what: str) -> None:
        """Hold both sides against each other and against the ledger. Everybody waits, so that nothing is on its way."""
        comparison = self.cast.comparison
        self.begin("everybody waits: draining the journals")
        await self.cast.traffic.hold()
        await comparison.drain()
        await self._before_comparison()
        self.begin(f"everybody waits: comparing {what}")
        await comparison.compare_sides()
        self.begin("everybody waits: holding the ledger against both sides")
        await comparison.hold_ledger()
        self.cast.traffic.go_on()

    async def _validate_one(self, service: str) -> None:
        for _ in range(VALIDATIONS):
            told = await self.cast.operator.run(
                "validate", service, "--json", within_seconds=VALIDATION_SECONDS
            )
            if told.code != _INCOMPLETE:
                break


async def perform(story: Story[CastT], *, display: Display, figures: Callable[[], Mapping[str, str]]) -> None:
    """Traffic and the story, side by side, and an eye on both; `figures` are shown meanwhile."""
    cast = story.cast
    async with cast.shop, cast.traffic, background(cast.watch.run()) as watching:
        await cast.traffic.start()
        cast.traffic_began = time.monotonic()
        cast.faults.begin()
        try:
            async with background(story.run()) as telling:
                while not telling.done():
                    story.check()
                    if watching.done():
                        watching.result()
                    display.progress(
                        seconds=time.monotonic() - cast.traffic_began,
                        act=story.act,
                        figures=figures(),
                        bars=cast.backfills.bars() if story.moves_history else {},
                    )
                    await asyncio.wait({telling}, timeout=_TICK_SECONDS)
                telling.result()
        finally:
            await to_the_end(cast.backfills.close())
        display.step("letting everybody finish")
        await cast.traffic.stop()
        cast.traffic_seconds = time.monotonic() - cast.traffic_began


def common_figures(cast: Cast[TrafficT, FaultsT]) -> dict[str, str]:
    """What every demo shows while it runs."""
    tally, ledger = cast.shop.tally, cast.ledger
    return {
        "acknowledged": ", ".join(f"{name} {count:,}" for name, count in ledger.by_source.items()),
        "requests": f"{tally.requests:,}, server errors {tally.server_error_count}, in doubt {ledger.in_doubt_count}",
        "lag (journal rows)": ", ".join(
            f"{service} {depth.lag_seconds:.1f} s ({depth.rows})"
            for service, depth in cast.watch.depths.items()
        ),
        "fault": cast.faults.current or "",
    }


def report_on(
    cast: Cast[TrafficT, FaultsT], make: Callable[..., ReportT], *, seed: int, started: float, **own: Any
) -> ReportT:
    """Everything that was counted, and what is the demo's `own`."""
    market, ledger, watch, comparison = cast.traffic.market, cast.ledger, cast.watch, cast.comparison
    return make(
        seed=seed,
        traffic_seconds=cast.traffic_seconds,
        duration_seconds=time.monotonic() - started,
        writes_by_source=ledger.by_source,
        writes_acknowledged=ledger.acknowledged_count,
        writes_in_doubt=ledger.in_doubt_count,
        lost=comparison.lost,
        checked_reads=market.checked_reads,
        wrong_answer_count=market.wrong_answer_count,
        wrong_answers=market.wrong_answers,
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
        **own,
    )
